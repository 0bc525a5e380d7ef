"""Numbers as people write them: decimal prefixes and three digits."""


def quantity(value: float, unit: str) -> str:
    """Write a number with a decimal prefix and at least three digits."""
    prefixes = ("", "k", "M", "G", "T", "P", "E", "Z", "Y")
    step = 0
    while value >= 999.5 and step < len(prefixes) - 1:
        value, step = value / 1000, step + 1
    digits = 0 if step == 0 or value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:,.{digits}f} {prefixes[step]}{unit}"


def size(num_bytes: float) -> str:
    """Write bytes in decimal units, three digits or more: 1.19 GB."""
    return quantity(num_bytes, "B")


def count(number: int) -> str:
    """Write a number of parameters as people say it: 596 M, 30.5 B."""
    return quantity(number, "").replace("G", "B").strip()


def rate(value: float) -> str:
    """Write a rate with three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def plural(number: int, thing: str) -> str:
    """Write a number of things: 1 layer, 28 layers."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
