"""Personal data in written words: the text rules over what was read, back in the picture."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from mm.privacy import text
from mm.privacy.visible.boxes import Finding, box_around
from mm.privacy.visible.reading import Word

MARGIN = 0.25  # of a word's height, on each side
Spans = Callable[[str], list[tuple[int, int, str]]]  # text -> (start, end, kind)

# What a reader takes digits for. Tried on top of what was read, never instead of it.
_LIKE_DIGITS = {
    ord(letter): digit for letter, digit in zip("OoQDIl|!iZSsBgqA", "0000111112558994", strict=True)
}
_NUMBER = re.compile(r"[\dOoQDIl|!iZSsBgqA+()\[\]./~_\-—–]{4,}")
_AT = re.compile(r"(?<=\w)\s?(?:©|®|\(@|\(a\)|\(Q|@\)?)\s?(?=\w)")
_GAPS = re.compile(r"\s*([.@\-_/])\s*")
# A misread digit breaks check sums and formats, so that a number's length has to do.
_LONG_NUMBER = re.compile(r"(?<![\d.,])\+?\d(?:[\s()./\-]{0,2}\d){8,}(?![\d,])")
_DATE_OR_TIME = re.compile(
    r"(?:19|20)\d\d\s?[.\-/년]\s?[01]?\d\s?[.\-/월]\s?[0-3]?\d|[0-3]?\d[./][01]?\d[./](?:19|20)\d\d"
    r"|\d{1,2}:\d\d(?::\d\d)?"
)
_LIKE_EMAIL = re.compile(r"[^\s@]{2,}@[^\s@]*[^\W\d_]{2,}[^\s@]*")


def find(lines: Sequence[Sequence[Word]], spans: Spans, size: tuple[int, int]) -> list[Finding]:
    """Find the words that a text rule takes for personal.

    Args:
        lines: what `reading.read` returned.
        spans: the text rules: (start, end, kind) of each find in a text.
        size: width and height of the picture.
    """
    found = []
    for line in lines:
        hits: dict[int, str] = {}
        for variant, places in _variants(line):
            for start, end, kind in (*spans(variant), *_misread(variant)):
                for place in {places[k] for k in range(start, end) if places[k] >= 0}:
                    hits.setdefault(place, kind)
        for place, kind in hits.items():
            left, top, right, bottom = line[place].box
            box = box_around([(left, top), (right, bottom)], 2 + MARGIN * (bottom - top), size)
            if box:
                found.append(Finding(f"text_{kind}", box))
    return found


def _misread(words: str) -> list[tuple[int, int, str]]:
    """Find what would be a long number or an address, but for a character."""
    blank = _DATE_OR_TIME.sub(lambda match: ";" * len(match.group()), words)
    return [
        (*match.span(), kind)
        for kind, pattern in (("long_number", _LONG_NUMBER), ("like_email", _LIKE_EMAIL))
        for match in pattern.finditer(blank)
    ]


def _variants(line: Sequence[Word]) -> list[tuple[str, list[int]]]:
    """Return a line as read, and with misread digits, signs and gaps put right.

    Each comes with the number of the word that every character stands for, -1 for spaces.
    """
    read = ""
    places: list[int] = []
    for place, word in enumerate(line):
        if place:
            read, places = read + " ", places + [-1]
        read, places = read + word.text, places + [place] * len(word.text)
    digits = _NUMBER.sub(
        lambda m: m.group().translate(_LIKE_DIGITS) if _mostly_digits(m.group()) else m.group(),
        read,
    )
    variants = [(read, places), (digits, places)]
    for pattern, replacement in ((_AT, "@"), (_GAPS, r"\1")):
        variants.append(_replaced(variants[-1], pattern, replacement))
    unique = {variant: kept for variant, kept in reversed(variants)}
    return list(unique.items())


def _mostly_digits(run: str) -> bool:
    return sum(map(str.isdigit, run)) * 2 >= sum(map(str.isalnum, run)) > 0


def _replaced(
    variant: tuple[str, list[int]], pattern: re.Pattern[str], replacement: str
) -> tuple[str, list[int]]:
    """Substitute in a text and its places alike."""
    read, places = variant
    text_, kept, end = "", [], 0
    for match in pattern.finditer(read):
        new = match.expand(replacement)
        inside = [place for place in places[match.start() : match.end()] if place >= 0]
        text_ += read[end : match.start()] + new
        kept += places[end : match.start()] + [max(inside, default=-1)] * len(new)
        end = match.end()
    return text_ + read[end:], kept + places[end:]


def spans_of(rules: Sequence[str], regions: Sequence[str]) -> Spans:
    """Bind the text rules of a policy."""

    def spans(words: str) -> list[tuple[int, int, str]]:
        found = text.find_all(words, rules, regions)
        return [(finding.start, finding.end, finding.kind) for finding in found]

    return spans
