"""Postal addresses: Korean road and lot addresses, English street addresses, PO boxes,"
" postcodes."""

import re
from collections.abc import Iterator

from mm.privacy.text.view import Span, has_any

# --- Korean ---------------------------------------------------------------------------------------

_METRO = (
    r"(?:서울(?:특별시|시)?|(?:부산|대구|인천|광주|대전|울산)(?:광역시|시)?|세종(?:특별자치시"
    r"|시)?|경기(?:도)?"
    r"|강원(?:특별자치도|도)?|충청북도|충청남도|전라북도|전라남도|전북특별자치도|경상북도"
    r"|경상남도|충북|충남|전북|전남|경북|경남"
    r"|제주(?:특별자치도|도|시)?)"
)
_UNIT = r"(?:[가-힣]{1,8}(?:시|군|구|읍|(?<![하되으이려라다자])면))"
_NUMBER = r"(?:지하[ ]?)?(?:산[ ]?)?\d{1,4}(?:[ ]?-[ ]?\d{1,4})?"
# No time, count or amount: 서울로 10시에, 3개.
_END = (
    r"(?![\d.]|[ ]?(?:시(?!설)|분|초|년|월|일|명|원|개(?!발)|번(?!길|지)|차|km|m\b|%|퍼센트|회|살"
    r"|세|대(?!로)|마리|위|배"
    r"|도\b|점|권|장|잔|병|박|주|억|만|천|kg|층짜리))"
)
_ROAD = (
    rf"[가-힣][가-힣0-9·.]{{0,12}}?(?:대로|로|길|\d거리|\d가)[ ]?(?:\d{{1,4}}(?:번|가|나"
    rf"|다)?[가-힣]?길[ ]?)?{_NUMBER}(?:번지)?{_END}"
)
_LOT = rf"[가-힣]{{1,7}}\d{{0,2}}(?:동|리|가|읍|면)[ ]?{_NUMBER}(?:번지)?{_END}"
_DETAIL = (
    r"(?:[ ]?,?[ ]?(?:\([가-힣0-9 ,.]{2,24}\)|[가-힣A-Za-z0-9]{1,14}(?:아파트|빌라|오피스텔|빌딩"
    r"|타워|맨션|주택|하이츠|캐슬"
    r"|자이|푸르지오|래미안|힐스테이트|더샵|아이파크|e편한세상|센터|플라자)"
    r"|(?:제)?[0-9A-Za-z가나다라]{1,5}[ ]?동(?!안|네|물|작|시|전|양|의|쪽)"
    r"|(?:지하[ ]?)?B?\d{1,3}[ ]?층"
    r"|[0-9A-Za-z]{1,5}(?:-\d{1,4})?[ ]?호(?!선|텔|주|응|기|랑|실|차|수))){0,6}"
)
_ADMIN = rf"(?:{_METRO}[ ]?(?:{_UNIT}[ ]?){{0,3}}|(?:{_UNIT}[ ]){{1,3}})"
_KOREAN = re.compile(
    rf"(?<![가-힣])(?:\(?\d{{5}}\)?[ ,]{{1,2}})?{_ADMIN}(?:{_ROAD}"
    rf"|{_LOT}){_DETAIL}(?:[ ]?\(?우?[ ]?\d{{5}}\))?"
)
# Without a city: only forms that are little else.
_KOREAN_SHORT = re.compile(
    rf"(?<![가-힣])(?:[가-힣]{{1,6}}(?:동|리"
    rf"|가)[ ](?:산[ ]?)?\d{{1,4}}-\d{{1,4}}(?:번지)?(?![\d\-])"
    rf"|[가-힣]{{1,6}}(?:동|리|가)[ ](?:산[ ]?)?\d{{1,4}}(?:-\d{{1,4}})?[ ]?번지"
    rf"|[가-힣]{{2,8}}(?:로|길)[ ]?\d{{1,4}}(?:번|가|나|다)?[가-힣]?길[ ]?{_NUMBER}{_END}"
    rf"|[가-힣]{{1,7}}대로[ ]\d{{1,4}}(?:-\d{{1,4}})?{_END}"
    rf"|[가-힣]{{2,8}}(?:로|길)[ ]\d{{1,4}}(?:-\d{{1,4}})?(?=,? ?(?:\([가-힣]{{1,6}}동"
    rf"|(?:지하 ?)?\d{{1,3}}층|\d{{1,5}}호|\d{{1,4}}동))"
    rf"|[가-힣]{{1,6}}길[ ]\d{{1,4}}-\d{{1,4}}(?![\d\-]))"
    rf"{_DETAIL}"
)
_UNITS = re.compile(
    r"(?<![\d가-힣])(?:[가-힣A-Za-z0-9]{1,14}(?:아파트|빌라|오피스텔|맨션|자이|푸르지오|래미안"
    r"|힐스테이트|더샵|아이파크"
    r"|캐슬)[ ]?)?\d{1,4}동[ ]\d{2,4}호(?!선|텔|주|응|기|랑|실|차|수)"
)
_POSTCODE_KO = re.compile(r"(?:우편[ ]?번호|우\))[^\d\n]{0,6}(\d{5}|\d{3}-\d{3})(?!\d)")
_LABELLED_KO = re.compile(
    r"(?:주소|거주지|배송지|수령지|소재지|사는 곳)(?:은|는|이|가)?[^\w\n]{0,4}"
    rf"([가-힣][가-힣0-9 ·,()]{{1,30}}(?:시|군|구|동|읍|면|로|길|리"
    rf"|가) ?[가-힣0-9 ·,()\-]{{0,30}}?\d{{1,4}}(?:-\d{{1,4}})?{_DETAIL})(?![\d])"
)

# --- English --------------------------------------------------------------------------------------

_KIND = (
    r"(?:Street|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Lane|Ln|Drive|Dr|Court|Ct|Place|Pl|Square|Sq"
    r"|Terrace|Ter"
    r"|Parkway|Pkwy|Circle|Cir|Highway|Hwy|Close|Crescent|Gardens|Grove|Row|Mews|Trail|Way|Walk"
    r"|Alley|Plaza|Loop"
    r"|STREET|AVENUE|ROAD|DRIVE|LANE|BLVD)"
)
_STATE = (
    r"(?:A[AEKLPRSZ]|C[AOT]|D[CE]|F[LM]|G[AU]|HI|I[ADLN]|K[SY]|LA|M[ADEHINOPST]|N[CDEHJMVY]"
    r"|O[HKR]|PA|RI"
    r"|S[CD]|T[NX]|UT|V[AIT]|W[AIVY])"
)
_STATE_NAME = (
    r"(?:Alabama|Alaska|Arizona|Arkansas|California|Colorado|Connecticut|Delaware|Florida|Georgia"
    r"|Hawaii|Idaho|Illinois|Indiana|Iowa"
    r"|Kansas|Kentucky|Louisiana|Maine|Maryland|Massachusetts|Michigan|Minnesota|Mississippi"
    r"|Missouri|Montana|Nebraska|Nevada|New [A-Z][a-z]+"
    r"|North [A-Z][a-z]+|Ohio|Oklahoma|Oregon|Pennsylvania|Rhode Island|South [A-Z][a-z]+"
    r"|Tennessee|Texas|Utah|Vermont|Virginia|Washington|West Virginia|Wisconsin|Wyoming)"
)
_UKCODE = r"(?:GIR 0AA|[A-PR-UWYZ][A-HK-Y]?\d[A-Z\d]? ?\d[ABD-HJLNP-UW-Z]{2})"
_TOWN = (
    rf"(?:,? [A-Z][A-Za-z.'\-]+(?: [A-Z][A-Za-z.'\-]+){{0,2}},? (?:{_STATE}"
    rf"|{_STATE_NAME})(?![a-z])(?:,? \d{{5}}(?:-\d{{4}})?)?"
    rf"|(?:, [A-Z][A-Za-z.'\-]+(?: [A-Z][A-Za-z.'\-]+){{0,2}}){{0,2}},? {_UKCODE}(?![A-Z\d])"
    rf"|(?:, [A-Z][A-Za-z.'\-]+(?: [A-Z][A-Za-z.'\-]+){{0,2}})?,? \d{{5}}(?:-\d{{4}})?(?!\d))"
)
_FLAT = (
    r"(?:,? (?:Apt|Apartment|Suite|Ste|Unit|Flat|Floor|Fl|Room|Rm"
    r"|#)\.? ?#?[A-Za-z0-9\-]{1,6}(?![A-Za-z]))"
)
_STREET = re.compile(
    r"(?<![\w.\-$£€])(?:(?:Flat|Apt|Apartment|Unit"
    r"|Suite) [A-Za-z0-9]{1,5},? )?\d{1,5}(?:-\d{1,4})?[A-Za-z]?,? "
    r"(?:(?:[NSEW]|North|South|East|West|NE|NW|SE|SW)\.? )?"
    rf"(?:(?:[A-Z][A-Za-z'.\-]+|\d{{1,3}}(?:st|nd|rd|th)|de|la|of|the"
    rf"|del) ){{1,4}}?{_KIND}(?: {_KIND})?(?![A-Za-z])\.?(?: (?:[NSEW]|NE|NW|SE|SW)(?![A-Za-z]))?"
    rf"{_FLAT}?{_TOWN}?"
)
_PROPER = r"[A-Z][A-Za-z'.\-]{1,30}"
_ANY_STREET = re.compile(  # whatever the street is called, if town, state and code follow
    rf"(?<![\w.\-$£€])\d{{1,6}} {_PROPER}(?: {_PROPER}){{0,4}}{_FLAT}?"
    rf",? {_PROPER}(?: {_PROPER}){{0,2}}, {_STATE} \d{{5}}(?:-\d{{4}})?(?!\d)"
)
_MILITARY = re.compile(
    r"(?:(?:PSC|CMR|Unit) ?\d{1,5},? ?(?:Box \d{1,5},? ?)?"
    r"|\bUS[NS]S? [A-Z][a-z]+,? )[AFD]PO,? A[AEP] \d{5}"
)
_BROADWAY = re.compile(
    rf"(?<![\w.\-$£€])\d{{1,5}} (?:(?:N|S|E|W|North|South|East|West)\.? )?(?:Broadway|The Strand"
    rf"|Piccadilly|Whitehall)(?![A-Za-z]){_FLAT}?{_TOWN}?"
)
_ROMANISED = re.compile(
    r"(?<![\w.])(?:#?\d{1,4}-\d{1,4}ho,? )?(?:\d{1,4}-dong,? )?\d{1,4}(?:-\d{1,4})?,? "
    r"(?:[A-Z][a-z]{1,20}(?:-?[a-z0-9]{1,20}){0,3}?(?:-daero|-ro|-gil|daero|-dong|-ri)"
    r"(?: ?\d{1,3}(?:beon|ga|na|da)?-gil)?)"
    r"(?:,? [A-Z][a-z]+(?:-(?:gu|si|do|gun|dong|myeon|eup)))*(?:,? (?:Seoul|Busan|Daegu|Incheon"
    r"|Gwangju|Daejeon|Ulsan|Sejong|Jeju))?(?:,? \d{5})?"
)
_BOX = re.compile(
    rf"\bP\.?O\.? ?Box \d{{1,6}}(?:{_TOWN})?|사서함[ ]?(?:제)?\d{{1,5}}호?", re.IGNORECASE
)
_UKCODE_ALONE = re.compile(rf"(?<![A-Z\d\-]){_UKCODE.replace(' ?', ' ')}(?![A-Z\d\-])")
_ZIP = re.compile(
    rf"(?<![A-Za-z])[A-Z][a-z]+(?: [A-Z][a-z]+){{0,2}}, {_STATE} \d{{5}}(?:-\d{{4}})?(?!\d)"
)


_KOREAN_HINT = re.compile(r"(?:로|길|동|리|가|읍|면)[ ]?(?:지하[ ]?|산[ ]?)?\d")
# A number before a capital or an ordinal; after a state; within a postcode; after Box.
_ENGLISH_HINT = re.compile(
    r"\d[A-Za-z]?,? (?:[A-Z]|\d{1,3}[a-z]{2} )|[A-Z]{2},? \d{5}|[A-Z]\d[A-Z\d]? \d|[Bb][Oo][Xx] \d"
    r"|사서함"
)


def find_address(text: str) -> Iterator[Span]:
    """Find postal addresses that hold a number."""
    if not text.isascii():
        if _KOREAN_HINT.search(text):
            for pattern in (_KOREAN, _KOREAN_SHORT, _UNITS):
                for match in pattern.finditer(text):
                    yield match.span()
        if has_any(
            text, ("주소", "거주지", "배송지", "수령지", "소재지", "사는 곳", "우편", "우)")
        ):
            for pattern in (_POSTCODE_KO, _LABELLED_KO):
                for match in pattern.finditer(text):
                    yield match.span(1)
    if _ENGLISH_HINT.search(text):
        for pattern in (
            _STREET,
            _ANY_STREET,
            _MILITARY,
            _BROADWAY,
            _ROMANISED,
            _BOX,
            _UKCODE_ALONE,
            _ZIP,
        ):
            for match in pattern.finditer(text):
                yield match.span()
