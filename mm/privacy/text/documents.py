"""What is on papers and cars: passports, driver's licences, number plates, dates of birth.

A form that is nothing else is found anywhere; digits that could be anything only beside a word
that says what they are.
"""

import re
from collections.abc import Iterator

from mm.privacy.text.numbers import names_a_thing
from mm.privacy.text.view import Span, has_any

_KO_PASSPORT = r"[A-Z]{1,2}\d{7,8}|[A-Z]\d{3}[A-Z]\d{4}"
_PASSPORT = re.compile(
    rf"(?:여권|passports?)[^\n\d]{{0,28}}?\b({_KO_PASSPORT}|\d{{9}}"
    rf"|[A-Z]{{1,2}}[ -]\d{{7,8}})(?![A-Z\d])"
    rf"|(?<![A-Z\d])({_KO_PASSPORT})(?=[^\w\n]{{0,3}}(?:여권|passport|\(?passport))"
    r"|(?<![A-Z\d])([MSRGD]\d{3}[A-Z]\d{4})(?![A-Z\d])",
    re.IGNORECASE,
)


_PASSPORT_HINT = re.compile(r"passport|여권|[MSRGD]\d{3}[A-Z]\d", re.IGNORECASE)


def find_passport(text: str) -> Iterator[Span]:
    """Find passport numbers next to the word; Korean ones of today's form anywhere."""
    if not _PASSPORT_HINT.search(text):
        return
    for match in _PASSPORT.finditer(text):
        if match.group(3) and not match.group(3)[0].isupper():
            continue
        if match.group(3) and names_a_thing(text, match.start()):
            continue
        yield match.span(match.lastindex or 0)


_PLACES = "서울|부산|대구|인천|광주|대전|울산|세종|경기|강원|충북|충남|전북|전남|경북|경남|제주"
_LICENCE = re.compile(
    rf"(?<![\d가-힣])(?:(?:{_PLACES})[ \-]?|(?:1[1-9]"
    rf"|2[0-8])[\-. ])\d{{2}}[\-. ]\d{{6}}[\-. ]\d{{2}}(?!\d|-\d)"
)
_LICENCE_LABELLED = re.compile(
    r"(?:운전[ ]?면허(?:증)?|면허[ ]?번호|면허증)[^\d\n]{0,16}?"
    rf"((?:{_PLACES})?[ \-]?(?:\d[ \-.]{{0,2}}){{10,12}})(?<=\d)(?!\d)"
)
_LICENCE_EN = re.compile(
    r"(?:driver'?s?'? ?licen[cs]e|driving licen[cs]e|\bDL\b|licen[cs]e (?:number|no\b|#))"
    r"(?:,? ?(?:number|no\b|num|id|#))?[^\w\n]{0,4}(?:is|was|=)?[^\w\n]{0,4}"
    r"((?=(?:[A-Z\-]*\d){4})[A-Z0-9](?:[A-Z0-9]|[\- ](?=\d)){4,19})(?![A-Z0-9])",
    re.IGNORECASE,
)
_LICENCE_UK = re.compile(r"(?<![A-Z\d])[A-Z]{2,5}9{0,3}\d{6}[A-Z9]{2} ?\d[A-Z]{2}(?![A-Z\d])")


def find_driver_licence(text: str) -> Iterator[Span]:
    """Find Korean driver's licences by their form, others after the word."""
    for match in _LICENCE.finditer(text):
        yield match.span()
    for match in _LICENCE_UK.finditer(text):
        if len(match.group().replace(" ", "")) == 16:
            yield match.span()
    if not has_any(text.lower(), ("licen", "dl", "면허")):
        return
    for pattern in (_LICENCE_LABELLED, _LICENCE_EN):
        for match in pattern.finditer(text):
            yield match.span(1)


_CLEAR = "가나다라마거너더러머버서어저고노모소오두루무바사아허하배"
_VAGUE = "로도보조구누부수우주자호국합육해공"  # 10조 2000, 101호 1234
_REGION = rf"(?:(?:{_PLACES})[ ]?)?"
_UNIT = r"(?!\d|[ ]?(?:년|원|억|만|명|개|번|호|번지|분|시|일|월|회|%|km|㎞|m\b|kg)|[.,\-]\d)"
_PLATE = re.compile(
    rf"(?<![\d가-힣.\-]){_REGION}\d{{2,3}}[ ]?[{_CLEAR}][ ]?\d{{4}}{_UNIT}"
    rf"|(?<![\d가-힣.\-]){_REGION}\d{{2,3}}[{_CLEAR}{_VAGUE}]\d{{4}}{_UNIT}"
    rf"|(?<![\d.\-])(?:{_PLACES})[ ]?\d{{1,3}}[ ]?[{_CLEAR}{_VAGUE}][ ]?\d{{4}}{_UNIT}"
)
_PLATE_LABEL = (
    r"(?:차량[ ]?번호|번호판|차[ ]?번호|차량|plates?|licen[cs]e plate|number plate"
    r"|registration plate"
    r"|vehicle reg(?:istration)?|car reg(?:istration)?|\bVRN|\breg(?:istration)? (?:no|number)\b)"
)
_PLATE_LABELLED = re.compile(
    rf"{_PLATE_LABEL}[^\d\n]{{0,16}}?((?:{_PLACES})?[ ]?\d{{1,3}}[ ]?[가-힣][ ]?\d{{4}})(?!\d)",
    re.IGNORECASE,
)
_PLATE_EN = re.compile(
    rf"{_PLATE_LABEL}(?: (?:number|no\.?|is|was|reads?|says?|of)\b)*[^\w\n]{{0,4}}"
    r"(?-i:((?=[A-Z \-]*\d)(?=[\d \-]*[A-Z])[A-Z0-9]{1,4}(?:[ \-]?[A-Z0-9]{1,4}){1,2}))"
    r"(?![A-Za-z0-9])",
    re.IGNORECASE,
)
_PLATE_UK = re.compile(r"(?<![A-Z\d\-])[A-Z]{2}(?:0[1-9]|[1-7]\d)[ ][A-Z]{3}(?![A-Z\d\-])")


def find_vehicle_plate(text: str) -> Iterator[Span]:
    """Find Korean number plates and current British ones by their form, others after the word."""
    for pattern in (_PLATE, _PLATE_UK):
        for match in pattern.finditer(text):
            yield match.span()
    if not has_any(text.lower(), ("plate", "reg", "vrn", "차", "번호판")):
        return
    for pattern in (_PLATE_LABELLED, _PLATE_EN):
        for match in pattern.finditer(text):
            yield match.span(1)


# --- Dates of birth -------------------------------------------------------------------------------

_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?"
    r"|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\.?"
)
_DATE = (
    r"(?:(?:(?:19|20)\d\d|'?\d\d)[ ]?[년.\-/][ ]?\d{1,2}[ ]?[월.\-/][ ]?\d{1,2}(?!\d)[ ]?일?"
    r"|\d{1,2}[./\-]\d{1,2}[./\-](?:19|20)?\d\d(?!\d)"
    r"|(?:19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?!\d)"
    r"|\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?!\d)"
    rf"|{_MONTH} \d{{1,2}}(?:st|nd|rd|th)?,? (?:19|20)\d\d"
    rf"|(?:the )?\d{{1,2}}(?:st|nd|rd|th)?(?: of)?[ \-]{_MONTH},?[ \-](?:19|20)\d\d"
    r"|\d{1,2}월[ ]?\d{1,2}일)"
)
_BIRTH = re.compile(
    r"(?:\bborn(?: (?:on|in))?|\bbirth(?:[ -]?(?:day|date))?|date of birth|\bd\.?o\.?b\b\.?"
    r"|생년월일"
    r"|생일|출생(?:일|[ ]?연월일)?"
    rf"|태어난[ ]?날)[^\d\n]{{0,24}}?(?<!\d)({_DATE})"
    rf"|(?<!\d)({_DATE})(?=[ ]?(?:생(?!산|활|성|긴|겨|명|각|일[ ]?파티)|출생|에[ ]?(?:태어|출생)"
    rf"|\(?생일"
    rf"|[,]? \(?(?:DOB|birth)))"
    r"|(?<!\d)((?:19|20)?\d{2}[ ]?년[ ]?생)(?!산|활|성)",
    re.IGNORECASE,
)


def find_date_of_birth(text: str) -> Iterator[Span]:
    """Find dates next to born, DOB, 생년월일, 생 and such."""
    if not has_any(text.lower(), ("born", "birth", "dob", "d.o", "생", "태어", "출생")):
        return
    for match in _BIRTH.finditer(text):
        yield match.span(match.lastindex or 0)
