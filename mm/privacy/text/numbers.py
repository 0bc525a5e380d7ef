"""Numbers that the state, banks and offices give to people: checksums, dates inside, labels before.

A number whose form is its own (a resident number, an IBAN) is found wherever it stands. One that
could be anything (nine digits of a passport) is found after or before a word that says what it is.

Ref: ISO/IEC 7812-1 (card numbers, Luhn); ISO 13616 (IBAN); the layouts of Korean registration
numbers (without a check digit since October 2020), of US SSN and ITIN, of UK NHS numbers (mod 11).
"""

import re
from collections.abc import Iterator
from datetime import date

from mm.privacy.text.view import Span, has_any

_SEP = r"[\s\-./_·:~|,]{0,3}"
# Words that say that a number names a thing and no person.
_THING = re.compile(
    r"(?:order|error|invoice|tracking|parcel|ticket|serial|s/n|sku|isbn|ean|barcode|bar code|lot"
    r"|batch"
    r"|part|model|product|ref(?:erence)?|case|commit|build|timestamp|item|receipt|transaction"
    r"|주문|송장|운송장|상품|제품|품번|모델|일련|관리|접수|바코드|문서|시리얼|거래|영수증|승인|예약"
    r"|증권|규격|고시|공고|법률|등기)"
    r"[ ]?(?:number|no|num|id|code|번호|코드)?s?[^\w\n]{0,4}(?:is|was|는|은|가|이)?[^\w\n]{0,4}"
    r"[A-Z]{0,4}-?$",
    re.IGNORECASE,
)


def names_a_thing(text: str, start: int) -> bool:
    """Tell whether the words just before a number say order, invoice, ISBN or such."""
    return _THING.search(text, max(0, start - 32), start) is not None


# --- Payment cards --------------------------------------------------------------------------------

_CARD_RUN = re.compile(r"(?<![\d])\d(?:[ \t\n.\-/_·,]{0,2}\d){11,40}(?!\d)")
_CARD_LABEL = re.compile(
    r"(?:카드|card|visa|mastercard|amex|비자|마스터)[^\d\n]{0,20}$", re.IGNORECASE
)
_DIGITS = re.compile(r"\d+")
_CARD_AFTER = re.compile(r"[ ]?(?:번[ ]?)?(?:카드|card)", re.IGNORECASE)
# Issuer prefixes and the lengths that they have. 9: cards for use in Korea only.
_ISSUERS = (
    (re.compile(r"4"), (13, 16, 19)),
    (re.compile(r"5[1-5]|2(?:22[1-9]|2[3-9]|[3-6]|7[01]|720)"), (16,)),
    (re.compile(r"3[47]"), (15,)),
    (re.compile(r"3(?:0[0-5]|095|[689])"), (14, 16, 17, 18, 19)),
    (re.compile(r"35(?:2[89]|[3-8])"), (16, 17, 18, 19)),
    (re.compile(r"6(?:011|4[4-9]|5)"), (16, 17, 18, 19)),
    (re.compile(r"1800|2131"), (15,)),
    (re.compile(r"62|81"), (16, 17, 18, 19)),
    (re.compile(r"50|5[6-9]|6"), (13, 14, 15, 16, 17, 18, 19)),
    (re.compile(r"9"), (14, 15, 16)),
)


def luhn(digits: str) -> bool:
    """Tell whether the last digit is the Luhn check digit of the others."""
    total = 0
    for place, char in enumerate(reversed(digits)):
        value = int(char) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def _issued(digits: str) -> bool:
    return any(prefix.match(digits) and len(digits) in lengths for prefix, lengths in _ISSUERS)


def find_card(text: str) -> Iterator[Span]:
    """Find 13 to 19 digits that an issuer could have given out and that pass the Luhn check."""
    for run in _CARD_RUN.finditer(text):
        labelled = _CARD_LABEL.search(text, max(0, run.start() - 32), run.start()) is not None
        labelled = labelled or _CARD_AFTER.match(text, run.end()) is not None
        # A number may stand next to a card: try every stretch of whole digit groups.
        groups = [(match.start(), match.group()) for match in _DIGITS.finditer(run.group())]
        taken = 0
        for first, (start, _) in enumerate(groups):
            if start < taken:
                continue
            stretches: list[tuple[int, list[str]]] = []
            count = 0
            for last in range(first, len(groups)):
                place, digits = groups[last]
                count += len(digits)
                if count > 19:
                    break
                if count >= (12 if labelled else 13):
                    stretches.append(
                        (place + len(digits), [g for _, g in groups[first : last + 1]])
                    )
            for end, pieces in reversed(stretches):
                if "," in run.group()[start:end] and not labelled:
                    continue  # 2002, 2003, 2004, 2005
                if _is_card(pieces, labelled) and (
                    labelled or len(pieces) > 1 or not _is_code(text, run.start() + start)
                ):
                    yield run.start() + start, run.start() + end
                    taken = end
                    break


def _is_code(text: str, start: int) -> bool:
    """Tell whether digits go on from letters (1Z...) or are named as an order or such."""
    before = text[max(0, start - 1) : start]
    return (before.isascii() and before.isalpha()) or names_a_thing(text, start)


def _is_card(pieces: list[str], labelled: bool) -> bool:
    lengths = [len(piece) for piece in pieces]
    if len(lengths) > 1 and min(lengths[:-1]) < 3 and max(lengths) > 1:
        return False  # 12 34 56 ... is a list; cards are in fours, sixes or single digits
    digits = "".join(pieces)
    fours = lengths == [4, 4, 4, 4]
    usual = (
        len(lengths) == 1 or max(lengths) == 1 or set(lengths[:-1]) == {4} or lengths[:2] == [4, 6]
    )
    if labelled and (fours or len(digits) == 16) and digits[0] in "234569":
        return True
    if not luhn(digits) or not (usual or labelled):
        return False
    return labelled or _issued(digits) or (fours and digits[0] in "234569")


# --- Resident and foreigner registration numbers --------------------------------------------------

_RRN = re.compile(
    rf"(?<![\d])(?<!\d-)(\d\d)(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(\s?[-–]\s?|{_SEP})"
    r"(\d)((?:\d{6}|\d{0,5}[*●○•xX#]{1,6})(?![\d*]))(?!-?\d)"
)
_RRN_SPACED = re.compile(r"(?<!\d)(?<!\d )\d(?: \d){5} ?-? ?\d(?: \d){6}(?! ?\d)")
_RRN_LABEL = re.compile(
    r"(?:주민|외국인|거소|등록번호|resident|registration|alien|foreigner|RRN|ARC\b|FRN)",
    re.IGNORECASE,
)
_COMPANY_LABEL = re.compile(r"법인(?:등록|등기)?[ ]?번호?[^\d\n]{0,8}$")
_WEIGHTS = (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5)


def _find_registration(text: str, genders: str) -> Iterator[Span]:
    for match in _RRN.finditer(text):
        year, month, day, separator, gender, rest = match.groups()
        if gender not in genders or len(rest) != 6 or not _is_date(year, month, day):
            continue
        if _COMPANY_LABEL.search(text, max(0, match.start() - 24), match.start()):
            continue
        checked = rest.isdigit() and _rrn_check(re.sub(r"\D", "", match.group()))
        labelled = _RRN_LABEL.search(text, max(0, match.start() - 30), match.start()) is not None
        if separator == "" and not labelled and names_a_thing(text, match.start()):
            continue
        if not (labelled or checked):
            if gender in "90" or (gender in "3478" and int(year) >= 40):
                continue  # born before 1900 or after 2040
            if names_a_thing(text, match.start()):
                continue
            if separator == "" and _is_barcode(match.group()):
                continue
        yield match.span()
    for match in _RRN_SPACED.finditer(text):
        digits = re.sub(r"\D", "", match.group())
        if digits[6] in genders and _is_date(digits[:2], digits[2:4], digits[4:6]):
            yield match.span()


def find_resident_number(text: str) -> Iterator[Span]:
    """Find Korean resident registration numbers, half hidden ones (900101-1******) too."""
    return _find_registration(text, "123490")


def find_foreigner_number(text: str) -> Iterator[Span]:
    """Find Korean foreigner registration and domestic residence numbers."""
    return _find_registration(text, "5678")


def _is_date(year: str, month: str, day: str) -> bool:
    try:
        date(2000 + int(year) % 100, int(month), int(day))
    except ValueError:
        return int(month) == 2 and int(day) == 29
    return True


def _rrn_check(digits: str) -> bool:
    total = sum(int(a) * b for a, b in zip(digits, _WEIGHTS, strict=False))
    if digits[6] in "5678":
        return (13 - total % 11) % 10 == int(digits[12])
    return (11 - total % 11) % 10 == int(digits[12])


def _is_barcode(digits: str) -> bool:
    """Tell whether thirteen digits are a Korean article number (EAN-13 that starts with 880)."""
    if not (digits.isdigit() and digits.startswith("880")):
        return False
    total = sum(int(char) * (1 + 2 * (place % 2)) for place, char in enumerate(digits[:12]))
    return -total % 10 == int(digits[12])


# --- Business numbers -----------------------------------------------------------------------------

_BRN = re.compile(r"(?<![\d])(?<!\d[-.])[1-9]\d{2}( ?[-. ] ?)\d{2}( ?[-. ] ?)\d{5}(?!\d|-\d)")
_BRN_PLAIN = re.compile(r"(?<![\d\-.])[1-9]\d{9}(?![\d\-])")
_BRN_LABELLED = re.compile(
    r"(?:사업자(?:[ ]?등록)?[ ]?(?:번호)?|business (?:registration|licen[cs]e)(?: (?:number"
    r"|no\.?))?"
    r"|\bBRN)"
    r"[^\d\n]{0,12}(\d{3}[ \-.]{0,3}\d{2}[ \-.]{0,3}\d{5})(?!\d)",
    re.IGNORECASE,
)
_COMPANY = re.compile(r"법인(?:등록|등기)?[ ]?(?:번호)?[^\d\n]{0,8}(\d{6}[ \-.]{0,3}\d{7})(?!\d)")


def find_business_number(text: str) -> Iterator[Span]:
    """Find Korean business registration numbers, and corporation numbers after their name."""
    from stdnum.kr import brn

    for match in _BRN.finditer(text):
        if match.group(1) == match.group(2) and brn.is_valid(re.sub(r"\D", "", match.group())):
            if match.group(1) == "-" or not names_a_thing(text, match.start()):
                yield match.span()
    lower = text.lower()
    if has_any(lower, ("사업", "상호", "등록번호", "세금계산서", "business")):
        for match in _BRN_PLAIN.finditer(text):
            if brn.is_valid(match.group()):
                yield match.span()
    if not has_any(lower, ("사업자", "법인", "business", "brn")):
        return
    for pattern in (_BRN_LABELLED, _COMPANY):
        for match in pattern.finditer(text):
            yield match.span(1)


# --- United States, United Kingdom ----------------------------------------------------------------

_NINE = re.compile(r"(?<![\d\-.])(\d{3})( ?[\-. ] ?)(\d{2})\2(\d{4})(?!\d|[\-.]\d)")
_SSN_LABELLED = re.compile(
    r"(?:\bSSN|social security|\bSS ?#|\b(?:my|his|her|your|their) social)(?: (?:number|no\.?"
    r"|card))?[^\d\n]{0,12}(\d{3}[ \-.]?\d{2}[ \-.]?\d{4})(?!\d)",
    re.IGNORECASE,
)
_ITIN_LABELLED = re.compile(
    r"(?:\bITIN|taxpayer id\w*)(?: (?:number"
    r"|no\.?))?[^\d\n]{0,12}(9\d{2}[ \-.]?\d{2}[ \-.]?\d{4})(?!\d)",
    re.IGNORECASE,
)
_SSN_WORD = re.compile(r"\bSSN|\bsocial\b|\bITIN|\btax", re.IGNORECASE)


def find_us_ssn(text: str) -> Iterator[Span]:
    """Find US social security numbers: 3-2-4 digits in ranges that are given out, or labelled."""
    for match in _NINE.finditer(text):
        area, separator, group, serial = match.groups()
        if area in ("000", "666") or area[0] == "9" or group == "00" or serial == "0000":
            continue
        if separator.strip() == "-" or _SSN_WORD.search(text):
            if not names_a_thing(text, match.start()):
                yield match.span()
    for match in _SSN_LABELLED.finditer(text):
        yield match.span(1)


def find_us_itin(text: str) -> Iterator[Span]:
    """Find US individual taxpayer numbers: 9xx-50..65, 70..88, 90..92, 94..99."""
    for match in _NINE.finditer(text):
        group = int(match.group(3))
        if match.group(1)[0] == "9" and (
            50 <= group <= 65 or 70 <= group <= 88 or 90 <= group <= 99 and group != 93
        ):
            if match.group(2).strip() == "-" or _SSN_WORD.search(text):
                yield match.span()
    for match in _ITIN_LABELLED.finditer(text):
        yield match.span(1)


_NHS = re.compile(r"(?<![\d\-.+])\d{3}([ \-]?)\d{3}\1\d{4}(?!\d|[\-.]\d)")


def find_uk_nhs(text: str) -> Iterator[Span]:
    """Find UK NHS numbers: ten digits with their check digit, near the word or unlike a phone."""
    for match in _NHS.finditer(text):
        digits = re.sub(r"\D", "", match.group())
        total = sum(int(char) * (10 - place) for place, char in enumerate(digits[:9]))
        if (11 - total % 11) % 11 != int(digits[9]):
            continue
        near = text[max(0, match.start() - 40) : match.end() + 20].upper()
        if "NHS" in near or "HEALTH SERVICE" in near:
            yield match.span()
        elif match.group(1) == " " and digits[0] not in "01" and digits[3] in "01":
            yield match.span()  # no exchange of a US number starts so
