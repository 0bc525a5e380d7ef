"""First set of text rules: e-mail addresses, phone numbers and payment card numbers.

What a rule finds is replaced by a typed placeholder: `[EMAIL]`, `[PHONE]`, `[CARD]`. The rules are
applied until they find nothing more, so that scrubbing twice equals scrubbing once. Where a run of
digits could be either, it is taken for personal: these rules prefer one wrong removal to one miss.

Not found: addresses and numbers spelled in words, names, postal addresses, national identity
numbers, account numbers of banks.

Ref: RFC 5321 section 4.1.2 (what an address may be); ITU-T E.164; ISO/IEC 7812-1 (Luhn).
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

Span = tuple[int, int]
DEFAULT_RULES = ("email", "card", "phone")
KINDS = DEFAULT_RULES
DEFAULT_REGIONS = ("KR", "US", "GB")

_LOCAL = r"[\w.!#$%&'*+/=?^`{|}~-]"
_EMAIL = re.compile(
    rf"(?:\"[^\"\n]{{1,64}}\"|(?<!{_LOCAL}){_LOCAL}{{1,256}})\s?(?:@|%40|\(at\)|\[at\])\s?"
    r"(?:(?:[a-z0-9-]+\.)+[a-z]{2,24}(?![a-z0-9])|(?:[\w-]+\.)+[^\W\d_]{2,24}"
    r"|\[[0-9a-f:.]{3,45}\])",
    re.IGNORECASE,
)
_AT_WORD = re.compile(r"%40|\(at\)|\[at\]", re.IGNORECASE)
_SEPARATORS = r"[ \t\n.\-/_·]"
_CARD_RUN = re.compile(rf"(?<!\d)\d(?:{_SEPARATORS}{{0,2}}\d){{12,40}}(?!\d)")
_CARD_PREFIX = re.compile(r"3[0-9]|[24569]")
_PHONE_HINT = re.compile(r"\d(?:[\s().\-/~_·,+]{0,3}\d){6}")  # seven digits near each other
_MOBILE_KR = re.compile(
    r"(?<!\d)(?:\+?82[ .\-]?\(?0?\)?|0)1[016789][ .\-)/_·,]{0,2}\d{3,4}[ .\-/_·,]{0,2}\d{4}(?!\d)"
)
_PLUS = re.compile(r"(?<![\w+])\+\s?\d(?:[\s().\-/]{0,2}\d){6,14}(?!\d)")
_DATE = re.compile(
    r"(?<![\d.\-/])(?:19|20)\d\d([.\-/])(?:0?[1-9]|1[0-2])\1(?:0?[1-9]|[12]\d|3[01])(?![\d\-/])"
)
_OCTET = r"(?:\d|[1-9]\d|1\d\d|2[0-4]\d|25[0-5])"
_IP = re.compile(rf"(?<![\d.]){_OCTET}(?:\.{_OCTET}){{3}}(?!\d|\.\d)")
_LABELLED = re.compile(
    r"(?:(?<![a-z])(?:tel|phone|telephone|mobile|cell|fax|call|whatsapp|dial)(?![a-z])"
    r"|전화|연락처|휴대폰|핸드폰|팩스)[^\d\n+(]{0,16}"
    r"([+(]{0,2}\d(?:[\s().\-/]{0,2}\d){6,14})(?!\d)",
    re.IGNORECASE,
)
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u202a-\u202e"
    "\u2060-\u2064\u2066-\u2069\ufe00-\ufe0f\ufeff]"
)


def scrub_text(
    text: str,
    rules: Sequence[str] = DEFAULT_RULES,
    regions: Sequence[str] = DEFAULT_REGIONS,
) -> tuple[str, Counter[str]]:
    """Replace personal data by placeholders.

    Args:
        text: any text.
        rules: names among `email`, `card`, `phone`, applied in this order.
        regions: countries (ISO 3166 letters) whose national phone formats are known.

    Returns:
        The text and the number of replacements by rule.
    """
    for rule in rules:
        _check_rule(rule)
    found: Counter[str] = Counter()
    if "@" not in text and text.isascii() and not any(map(str.isdigit, text)):
        if not _AT_WORD.search(text):
            return text, found
    changed = True
    while changed:  # ends: every replacement takes digits or an @ away
        changed = False
        for rule in rules:
            spans = _merged(find(text, rule, regions))
            for start, end in reversed(spans):
                text = f"{text[:start]}[{rule.upper()}]{text[end:]}"
            found[rule] += len(spans)
            changed = changed or bool(spans)
    return text, +found


def find(text: str, rule: str, regions: Sequence[str] = DEFAULT_REGIONS) -> list[Span]:
    """Return the (start, end) spans that one rule finds in `text`.

    Raises:
        ValueError: unknown rule; a detector that does not exist is no pass.
    """
    _check_rule(rule)
    view, places = _plain_view(text)
    spans = RULES[rule](view, tuple(regions))
    if places is None:
        return spans
    return [(places[start], places[end - 1] + 1) for start, end in spans]


def check_rules(rules: Iterable[str], regions: Iterable[str]) -> None:
    """Raise `ValueError` for a rule or a phone region that does not exist."""
    import phonenumbers

    for rule in rules:
        _check_rule(rule)
    for region in regions:
        if region not in phonenumbers.SUPPORTED_REGIONS:
            raise ValueError(f"unknown phone region {region!r}; use two letters such as KR")


def _check_rule(rule: str) -> None:
    if rule not in RULES:
        raise ValueError(f"unknown text rule {rule!r}; known: {', '.join(sorted(RULES))}")


def _find_email(text: str, regions: tuple[str, ...]) -> list[Span]:
    return [match.span() for match in _EMAIL.finditer(text)]


def _find_card(text: str, regions: tuple[str, ...]) -> list[Span]:
    from stdnum import luhn

    spans = []
    for run in _CARD_RUN.finditer(text):
        # A number may stand next to a card: try every stretch of whole digit groups.
        groups = [match.span() for match in re.finditer(r"\d+", run.group())]
        taken = 0
        for first, (start, _) in enumerate(groups):
            if start < taken:
                continue
            for last in reversed(range(first, len(groups))):
                end = groups[last][1]
                lengths = [b - a for a, b in groups[first : last + 1]]
                if min(lengths[:-1], default=3) < 3 and max(lengths) > 1:
                    continue  # 12 34 56 ... is a list; cards are in fours, sixes or single digits
                digits = re.sub(r"\D", "", run.group()[start:end])
                if 13 <= len(digits) <= 19 and _CARD_PREFIX.match(digits) and luhn.is_valid(digits):
                    spans.append((run.start() + start, run.start() + end))
                    taken = end
                    break
    return spans


def _find_phone(text: str, regions: tuple[str, ...]) -> list[Span]:
    if not _PHONE_HINT.search(text):
        return []
    for pattern in (_DATE, _IP):  # 2024.05.12 10:20 and 192.0.2.123 look like numbers to call
        text = pattern.sub(lambda match: ";" * len(match.group()), text)
    spans = [match.span() for pattern in (_MOBILE_KR, _PLUS) for match in pattern.finditer(text)]
    spans += [match.span(1) for match in _LABELLED.finditer(text)]
    import phonenumbers

    for region in regions:
        for number in phonenumbers.PhoneNumberMatcher(text, region):
            spans.append((number.start, number.end))
    return spans


RULES: dict[str, Callable[[str, tuple[str, ...]], list[Span]]] = {
    "email": _find_email,
    "card": _find_card,
    "phone": _find_phone,
}


def _merged(spans: list[Span]) -> list[Span]:
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _plain_view(text: str) -> tuple[str, list[int] | None]:
    """Return `text` as the rules should see it, and each character's place in the original.

    Invisible characters are dropped; full-width letters, foreign digits, dashes and spaces become
    plain ones. Places are None where nothing was dropped.
    """
    if text.isascii():
        return text, None
    places = None
    if _INVISIBLE.search(text):
        places = [place for place, char in enumerate(text) if not _INVISIBLE.match(char)]
        text = "".join(text[place] for place in places)
    return "".join(char if char < "\x80" else _plain_char(char) for char in text), places


@lru_cache(maxsize=65536)
def _plain_char(char: str) -> str:
    category = unicodedata.category(char)
    if category == "Nd":
        return str(unicodedata.digit(char))
    if category == "Pd":
        return "-"
    if category == "Zs":
        return " "
    plain = unicodedata.normalize("NFKC", char)
    return plain if len(plain) == 1 and plain.isascii() and plain.isprintable() else char
