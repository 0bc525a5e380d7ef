"""Phone numbers: Korean ones in every spelling, the national formats of given regions, any with +.

Ref: ITU-T E.164; Korea's numbering plan; libphonenumber through `phonenumbers`.
"""

import re
from collections.abc import Iterator

from mm.privacy.text.numbers import names_a_thing
from mm.privacy.text.view import Span

_SEP = r"[ .\-/_·,~)\n]{0,3}"
_HINT = re.compile(r"\d(?:[\s().\-/~_·,+]{0,3}\d){6}")  # seven digits near each other
# Mobiles, Seoul and the regions, internet phones, personal numbers, free numbers.
_KOREA = re.compile(
    rf"(?<![\d+])(?<!\d[.\-])(?:(?:\+|00|011)?82[ .\-]?\(?0?\)?[ .\-]?|\(?0)"
    rf"(?:1[016789]|2|3[1-3]|4[1-4]|5[1-5]|6[1-4]|70|50[2-8]?"
    rf"|80)\)?{_SEP}\d{{3,4}}{_SEP}\d{{4}}(?!\d|[.\-]\d)"
)
_KOREA_PAIRS = re.compile(r"(?<!\d)01[016789](?:[ .\-]\d{2}){4}(?!\d)")
_SERVICE = re.compile(
    r"(?<![\d\-.])(?:15(?:22|33|44|66|77|88|99)|16(?:00|11|44|55|61|66|68|70|77|88|99)|18(?:00|11"
    r"|22|33|44|55|66|77|88|99))-\d{4}(?!\d|-\d)"
)
_PLUS = re.compile(r"(?<![\w+])\+\s?\d(?:[\s().\-/]{0,2}\d){6,14}(?!\d)")
_NANP = re.compile(
    r"(?<![\d\-.+])(?:(?:00|011)?1[ .\-])?(?:\([2-9]\d{2}\) ?"
    r"|[2-9]\d{2}[.\-/ ] ?)[2-9]\d{2}[.\- ]\d{4}(?!\d"
    r"|[.\-]\d)"
)
_LABELLED = re.compile(
    r"(?:(?<![a-z])(?:tel|phone|telephone|mobile|cell|fax|call|whatsapp|dial|ph|text|ring"
    r"|reach)(?![a-z])"
    r"|전화|연락처|휴대폰|핸드폰|팩스|폰[ ]?번호|연락|(?<![가-힣])(?:제|내|이) 번호)[^\d\n+(]{0,16}"
    r"([+(]{0,2}\d(?:[\s().\-/]{0,2}\d){6,14})(?!\d)",
    re.IGNORECASE,
)
_EXTENSION = re.compile(
    r"[ ,]{0,2}(?:x|ext\.?|extension|내선(?:번호)?)[ :.]{0,2}\d{1,6}(?!\d)",
    re.I,
)
_WORD_BEFORE = re.compile(r"(?:tel|phone|call|fax|hp|h\.p|cell|mobile|no)$", re.IGNORECASE)
_DATE = re.compile(
    r"(?<![\d.\-/])(?:(?:19|20)\d\d([.\-/ ])(?:0?[1-9]|1[0-2])\1(?:0?[1-9]|[12]\d|3[01])(?![\d\-/])"
    r"|(?:19|20)\d\d[ ]?[\-~][ ]?(?:19|20)\d\d(?!\d))"
)
_OCTET = r"(?:\d|[1-9]\d|1\d\d|2[0-4]\d|25[0-5])"
_IP = re.compile(rf"(?<![\d.]){_OCTET}(?:\.{_OCTET}){{3}}(?!\d|\.\d)")
_BRITAIN = re.compile(
    r"(?<![\d\-.+])\(?0(?:7\d{3}\)?[ \-]\d{3}[ \-]?\d{3}|20\)?[ \-]\d{4}[ \-]\d{4}"
    r"|1\d{3}\)?[ \-]\d{5,6}|1\d1\)?[ \-]\d{3}[ \-]\d{4})(?!\d|[.\-]\d)"
)
_FORM = re.compile(r"[^\d+]")
_DECIMAL = re.compile(r"\d+\.\d+")


# Regions whose national formats the patterns here hold; others are looked for by libphonenumber.
_KNOWN = ("KR", "US", "CA", "GB")
_LEADING_ZERO = re.compile(
    r"(?<![\d\-.+:])\(?0\d{1,4}\)?(?:[ .\-/]{1,2}\d{2,8}){1,4}(?!\d|[.\-]\d)"
)


def find_phone(text: str, regions: tuple[str, ...]) -> Iterator[Span]:
    """Find phone numbers, with their extensions.

    Args:
        text: a view's text.
        regions: countries (ISO 3166 letters) whose national formats are known.
    """
    if not _HINT.search(text):
        return
    for start, end in _find(text, regions):
        extension = _EXTENSION.match(text, end)
        yield start, extension.end() if extension else end


def _find(text: str, regions: tuple[str, ...]) -> Iterator[Span]:
    for pattern in (_DATE, _IP):  # 2024.05.12 10:20 and 192.0.2.123 look like numbers to call
        text = pattern.sub(lambda match: ";" * len(match.group()), text)
    for pattern in (_KOREA, _KOREA_PAIRS, _PLUS):
        for match in pattern.finditer(text):
            if "\n" not in match.group() and not _is_thing(text, match.start(), match.group()):
                yield match.span()
    national = [_SERVICE]
    national += [_NANP] if "US" in regions or "CA" in regions else []
    national += [_BRITAIN] if "GB" in regions else []
    for pattern in national:
        for match in pattern.finditer(text):
            if not names_a_thing(text, match.start()):
                yield match.span()
    for match in _LABELLED.finditer(text):
        if not names_a_thing(text, match.start(1)):
            yield match.span(1)
    yield from _find_national(text, regions)


def _find_national(text: str, regions: tuple[str, ...]) -> Iterator[Span]:
    """Ask libphonenumber about numbers that start with 0, and about all for regions not known."""
    import phonenumbers

    for match in _LEADING_ZERO.finditer(text):
        raw = match.group()
        if _DECIMAL.fullmatch(raw) or not 8 <= sum(map(str.isdigit, raw)) <= 12:
            continue
        if any(_is_valid(raw, region) for region in regions if region in _KNOWN):
            if not names_a_thing(text, match.start()):
                yield match.span()
    for region in regions:
        if region in _KNOWN:
            continue
        for number in phonenumbers.PhoneNumberMatcher(text, region):
            raw = number.raw_string
            if not _FORM.search(raw) and not raw.startswith(("+", "0")):
                continue  # digits alone are a number of anything, unless a word says phone
            if _DECIMAL.fullmatch(raw) or _is_thing(text, number.start, raw):
                continue
            if not names_a_thing(text, number.start):
                yield number.start, number.end


def _is_valid(number: str, region: str) -> bool:
    import phonenumbers

    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(number, region))
    except phonenumbers.NumberParseException:
        return False


def _is_thing(text: str, start: int, number: str) -> bool:
    """Tell whether a number is part of a code, or stands bare and is named as a thing."""
    before, after = text[max(0, start - 1) : start], text[start + len(number) :][:1]
    prefixed = before.isascii() and before.isalpha()
    prefixed = prefixed and not _WORD_BEFORE.search(text, max(0, start - 9), start)
    followed = (
        after.isascii() and after.isalpha() and not _EXTENSION.match(text, start + len(number))
    )
    if not number.isdigit():
        return prefixed and followed
    if number.startswith("82"):
        return True  # the country without its plus: digits of anything, unless a word says phone
    return prefixed or followed or names_a_thing(text, start)
