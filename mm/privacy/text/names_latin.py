"""Names of people in Latin letters: after a title or a label, from lists, romanised Korean ones."""

import re
from collections.abc import Iterator
from functools import lru_cache

from mm.privacy.text import lists
from mm.privacy.text.view import Span, has_any

_CAP = (
    r"(?:[A-Z](?:[a-z\u00df-\u00ff]+|'[A-Z][a-z]+)(?:[A-Z][a-z]+)?(?:-[A-Z]?[a-z]+)?"
    r"|[\u00c0-\u00de][a-z\u00df-\u00ff]+)"
)
_OF = r"(?:van der|van den|van de|de la|von der|van|von|de|del|della|di|da|dos|bin|al|el|ter|St\.)"
_FULL = rf"{_CAP}(?: (?:[A-Z]\.|{_OF} {_CAP}|{_CAP})){{0,3}}"
_CAPITALISED = re.compile(r"[A-Z][a-z]*")
_TITLES = frozenset(
    "Mr Mrs Ms Miss Mx Dr Prof Professor Sir Madam Rev Fr Capt Captain Sgt Lt Col Judge Nurse"
    " Officer Detective Doctor Coach Uncle Aunt Auntie Grandma Grandpa".split()
)
_TITLED = re.compile(rf"(?<!\w)(?:{'|'.join(sorted(_TITLES, reverse=True))})\.? ({_FULL})")

# "Patient name: ..."; what stands before a colon, and what introduces a name without one.
_WHO = (
    r"(?:(?:full |first |last |given |family |middle |maiden |legal |real |patient |customer "
    r"|guest "
    r"|contact |client |employee |account |card ?holder )?name|patient|customer|card ?holder"
    r"|signed(?: by)?|contact(?: person)?|author|sender|recipient|beneficiary|employee|tenant|attn"
    r"|attention|from|to|cc|c/o|guest|client)"
)
_GREETINGS = "Dear|Hi|Hello|Hey"
_CLOSINGS = "Regards|Sincerely|Thanks|Cheers|Best|Yours|Love"
_LABELLED = re.compile(
    rf"(?:\b{_WHO}(?:'s)?(?: is| was)?[ ]?[:=][ ]?|\b(?:my name is|my name's|name is|named|called"
    rf"|this is|I am|I'm|{_GREETINGS}) |\b(?:{_CLOSINGS}),\s)((?-i:{_FULL}))",
    re.IGNORECASE,
)
_NAME_ALONE = re.compile(r"(?:name(?:'s)?(?: is| was)?|named) ?[:=]? ?$", re.IGNORECASE)
_LOWER_LABELLED = re.compile(
    r"(?:\b(?:full |patient |customer |guest |client |employee |contact )?name ?[:=] ?"
    r"|\bmy name is |\bi am |\bi'm |\bthis is )([a-z]{2,15}(?: [a-z]\.?)?(?: [a-z'\-]{2,18})?)\b",
    re.IGNORECASE,
)
_LABEL_HINTS = (
    *(":", "=", "name", "called", "this is", "i am", "i'm"),
    *(word.lower() for word in f"{_GREETINGS}|{_CLOSINGS}".split("|")),
)
_WORD = re.compile(rf"(?<![\w'@/#])(?:{_CAP}|[A-Z]{{3,15}})(?![\w@])")
_AFTER = re.compile(
    rf"(?:[ ](?:[A-Z]\.?(?=[ ])|{_OF}(?= [A-Z])|(?:{_CAP}|[A-Z]{{2,15}})(?![\w@]))){{1,4}}"
)
_CAPITAL_NEXT = re.compile(r" ([A-Z][a-z]+)")
_INVERTED = re.compile(
    rf"(?<!\w)({_CAP}|[A-Z]{{2,15}}), ({_CAP}|[A-Z]{{3,15}})(?: ([A-Z])\.?)?(?!\w| [A-Z][a-z])"
)
# A capitalised word and a surname, where a sentence does not start and no third follows.
_UNKNOWN = re.compile(
    r"(?:\b(?:by|with|from|is|was|see|met|meet|ask|tell|and|of|for|to|wishes,|regards,|thanks,"
    r"|love,) )"
    r"([A-Z][a-z]{2,14}) ([A-Z][a-z]{2,14})(?![\w@&]| (?:[A-Z&]|and [A-Z])|-)"
)
_INITIALS = re.compile(rf"(?<![\w.])(?:[A-Z]\. ?){{1,2}}({_CAP})(?!\w)")

_KOREAN_SURNAMES = frozenset(
    "Kim Lee Yi Rhee Park Pak Bak Choi Choe Jung Jeong Chung Kang Gang Cho Jo Yoon Yun Jang Chang"
    " Lim Im Rim Han Oh Seo Suh Shin Sin Kwon Gwon Hwang Ahn An Song Ryu Yoo Yu Jeon Jun Hong Ko Go"
    " Koh Moon Mun Yang Son Sohn Bae Pae Baek Paik Heo Hur Nam Sim Shim Noh No Roh Ha Kwak Gwak"
    " Sung"
    " Seong Cha Joo Ju Woo Koo Gu Min Jin Ji Na Um Eom Chae Won Cheon Bang Kong Gong Hyun Ham Byun"
    " Yeom Yeo Chu Do So Seok Sun Ma Gil Wi Pyo Myung Ki Ban".split()
)
_SURNAME = f"(?:{'|'.join(sorted(_KOREAN_SURNAMES))})"
_SYLLABLE = r"(?:[bcdghjkmnprstwy]{0,2}[aeiouw]{1,3}(?:ng|n|k|l|m|p|t|b|r|h)?)"
_GIVEN = rf"([A-Z][a-z]{{1,5}}(?:-[A-Za-z][a-z]{{1,5}}|{_SYLLABLE})?)"
_ROMANISED = re.compile(rf"(?<![\w@/])(?:{_SURNAME} {_GIVEN}|{_GIVEN} {_SURNAME})(?![\w@])")
_TWO_SYLLABLES = re.compile(rf"[A-Z]?{_SYLLABLE}-?{_SYLLABLE}", re.IGNORECASE)
_PARTS = (
    "min soo su jun joon ji hyun hyeon woo young yeong hee hui sung seong seung jin ho hye eun"
    " kyung"
    " gyeong jae won sang hoon hun seo yeon yoon yun ha na ra mi ah a in sun seon dong wook uk chul"
    " cheol tae hwan suk seok kyu gyu yong gil bin chan do da so hyung hyeong bo ram sol byung"
    " byeong sook hwa cha soon ok ja ye rin yu jung jeong joo ju geon gun hong ki gi han chae"
).split()


def find(text: str) -> Iterator[Span]:
    """Find names of people that are written in Latin letters."""
    capitals = set(_CAPITALISED.findall(text))
    if not capitals.isdisjoint(_TITLES):
        for match in _TITLED.finditer(text):
            name = _trimmed(match.group(1))
            if name and name.split()[0].lower() not in lists.words("not_names"):
                yield match.start(1), match.start(1) + len(name)
    if has_any(text.lower(), _LABEL_HINTS):
        yield from _after_labels(text)
    if not capitals:
        return
    yield from _from_lists(text)
    first, surnames, common = lists.first_names(), lists.surnames(), lists.words("common_surnames")
    for match in _INVERTED.finditer(text) if ", " in text else ():
        last = match.group(1).lower()
        if last in surnames and last not in first and first.get(match.group(2).lower(), "?") != "?":
            yield match.span()
    for match in _UNKNOWN.finditer(text):
        given, last = match.group(1).lower(), match.group(2).lower()
        if last in surnames and last not in common and last not in first and _name_like(given):
            if last not in lists.words("not_after") and given not in lists.words("not_before"):
                yield match.span(1)[0], match.end(2)
    for match in _INITIALS.finditer(text) if "." in text else ():
        if match.group(1).lower() in surnames and match.group(1).lower() not in common:
            yield match.span()
    if not capitals.isdisjoint(_KOREAN_SURNAMES):
        for match in _ROMANISED.finditer(text):
            given = match.group(1) or match.group(2)
            if len(given) > 4 and _TWO_SYLLABLES.fullmatch(given) and _name_like(given):
                if "-" in given or _korean_parts().fullmatch(given):
                    yield match.span()


def _after_labels(text: str) -> Iterator[Span]:
    first, surnames = lists.first_names(), lists.surnames()
    for match in _LABELLED.finditer(text):
        name = _trimmed(match.group(1))
        label = match.group()[: match.start(1) - match.start()].lower()
        parts = name.lower().split()
        if not parts or parts[0] in lists.words("not_names"):
            continue
        known = parts[0] in first or (len(parts) > 1 and parts[-1] in surnames)
        # "Name:" stands before things too; "my name is" and "patient name:" do not.
        if known or ("name" in label and not _NAME_ALONE.match(label)):
            yield match.start(1), match.start(1) + len(name)
    for match in _LOWER_LABELLED.finditer(text):
        parts = match.group(1).lower().split()
        certain = first.get(parts[0], "?") != "?"
        known = len(parts) > 1 and parts[-1] in surnames
        if certain:
            end = match.end(1) if known else match.start(1) + len(parts[0])
            yield match.start(1), end
        elif known and parts[0] in first and parts[-1] not in lists.words("common_surnames"):
            yield match.span(1)


def _from_lists(text: str) -> Iterator[Span]:
    """Find given names of the list, with what follows them if that can be a surname."""
    first, surnames = lists.first_names(), lists.surnames()
    taken = 0
    for match in _WORD.finditer(text):
        word = match.group()
        sign = first.get(word.lower(), first.get(word.lower().split("-")[0]))
        if sign is None or match.start() < taken or _is_place(text, match.start()):
            continue
        after = _AFTER.match(text, match.end())
        rest = _trimmed(after.group()) if after else ""
        place = _CAPITAL_NEXT.match(text, match.end() + len(rest))
        if rest and place and place[1].lower() in lists.words("places"):
            continue  # Nelson Mandela Bay
        parts = rest.split()
        last = parts[-1].lower().rstrip(".") if parts else ""
        if word.isupper():
            good = bool(parts) and sign != "?" and last in surnames and parts[-1].isupper()
        elif parts and (len(parts[-1]) > 2 or not parts[-1].isupper()):
            good = last in surnames or (sign != "?" and (len(parts) > 1 or _name_like(last)))
            if sign == "?" and len(parts) == 1 and last in lists.words("common_surnames"):
                good = False
        else:
            rest = ""
            good = sign == "+" and _stands_alone(text, match)
        if good:
            taken = match.end() + len(rest)
            yield match.start(), taken


def _is_place(text: str, start: int) -> bool:
    before = re.search(r"([\w'.]+) $", text[max(0, start - 16) : start])
    return before is not None and before[1].lower().rstrip(".") in lists.words("not_before")


def _trimmed(name: str) -> str:
    """Cut a run of capitalised words where it stops being a name."""
    kept = ""
    for piece in re.findall(r" ?[^ ]+", name):
        word = piece.strip().lower().rstrip(".,")
        if len(word) > 1 and word in lists.words("not_after") and piece.strip() != "St.":
            if word not in lists.words("also_surnames"):
                break
        kept += piece
    return kept.rstrip(" ")


def _name_like(word: str) -> bool:
    return word.lower() not in lists.words("not_after") | lists.words("not_names")


def _stands_alone(text: str, match: re.Match[str]) -> bool:
    """Tell whether a single given name is no part of a longer proper noun."""
    following = re.match(r"(?:'s|\u2019s)? ([A-Z]\w*)", text[match.end() : match.end() + 24])
    if following and (text[match.end()] != " " or not _name_like(following[1])):
        return False  # Emma's Diner, Charles River
    if text[match.end() : match.end() + 1] in ("-", "&", "/", "_", "="):
        return False
    if text.startswith(" &", match.end()) or text.endswith("& ", 0, match.start()):
        return False
    before = re.search(
        r"(?:^|[\s.!?:;,\"'(])([A-Za-z]+) $", text[max(0, match.start() - 24) : match.start()]
    )
    return before is None or before[1].islower() or not _name_like(before[1])


@lru_cache(maxsize=1)
def _korean_parts() -> re.Pattern[str]:
    parts = "|".join(sorted(_PARTS, key=len, reverse=True))
    return re.compile(rf"(?:{parts})(?:{parts})", re.IGNORECASE)
