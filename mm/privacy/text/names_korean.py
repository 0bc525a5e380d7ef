"""Korean names: a surname and a given name of the list, or any name beside 씨, 님, 이름: and"
" such."""

import re
from collections.abc import Iterator

from mm.privacy.text import lists
from mm.privacy.text.view import Span

_SURNAMES = (
    "김이박최정강조윤장임한오서신권황안송류전홍고문양손배백허유남심노하곽성차주우구민나진지엄채원천방공현함변염여추도소석선설마길"
    "연위표명기반왕금옥육인맹제모탁국어은편용예경봉사부"
)
# Those that are not a word of their own so often that one syllable after them says little.
_FREQUENT = frozenset(
    "김이박최정강조윤장임한오서신권황안송류전홍고문양손배백허유남심노곽성차주민나진엄채원천방공변염추석설길연표명"
)
_TWO = frozenset("남궁 황보 제갈 선우 독고 사공 서문 동방 어금 망절".split())
_PARTICLE = (
    r"(?:은|는|이|가|을|를|의|에게서?|께서?|한테서?|와|과|도|만|로|으로|랑|이랑|이나|나|라고?"
    r"|이라고?|입니다|이에요|예요|이다"
    r"|이고|인데|이며|이었|였|씨|님|야|아|보다|처럼|까지|부터|하고|네|이네|이?라는|이?란|인"
    r"|이?에요|이?죠|더러|에)"
)
_TITLE = re.compile(
    r"(?:씨|님|군|양|선생님?|교수님?|박사님?|대표(?:님|이사)?|[과부차]장님?|대리님?|사원|팀장님?"
    r"|이사님?|사장님?|회장님?"
    r"|실장님?|본부장님?|주임님?|원장님?|의원|기자|판사|검사|변호사|의사|간호사|학생|할머니"
    r"|할아버지|감독|선수|배우|가수"
    r"|아나운서|장관|대통령|총리|작가|소장|목사님?|신부님?|스님|형님?|누나|언니|오빠|고객님?"
    r"|환자분?|회원님?|어린이"
    r"|여사|[이반]장|코치|대원|경위|경사|순경|소방관|[상일병]병|[대중소]위|[중하]사)"
    rf"(?:{_PARTICLE})*(?![가-힣])"
)
_TAIL = re.compile(rf"(?:{_PARTICLE}){{1,3}}$")
_NAME_TAIL = re.compile(r"(?:입니다|이에요|예요|이고|이며|씨|님|이다|이?라고|인데|인|이)?$")
_LABEL = re.compile(
    r"(?:이름|성명|성함|본명|실명|담당자|예금주|신청인|신청자|환자명?|수신인|수취인|발신인"
    r"|보낸[ ]?(?:사람|이|분)"
    r"|받는[ ]?(?:사람|이|분)|작성자|대표자|고객명|보호자|계약자|피보험자|임차인|임대인|가입자"
    r"|회원명|글쓴이|주문자|주문인"
    r"|입금자|예약자|학생|참가자|수강생|교사|기사)명?[ ]?(?:[:=\-]|(?:은|는)(?= ))[ ]?$"
)
# A role before a name: 환자 김하늘. After a role only a name of usual syllables counts.
_ROLE = re.compile(
    r"(?:환자|피고인|피고|원고|증인|용의자|피해자|담당|대표|기사|기자|학생|선수|감독|배우|가수"
    r"|의원|교수|작가|강사|교사|팀장|원장|과장"
    r"|부장|대리|사장|예금주|신청인|보호자|고객|회원|직원|저는|나는|제가|내가|친구|동생|아들|딸"
    r"|남편|아내|사람은|이름은|이분은) ?$"
)
# After these a name may be of any syllables, but end in no particle: 강이레 선생님.
_STRONG = re.compile(
    "씨|님|선생님|교수|박사|감독|작가|변호사|의원|대표|과장|부장|대리|팀장|원장|목사|여사|기자"
)
_ENDINGS = "의은는이가을를도에로와과들인한할된만간별용적형식"
_CLOSING = re.compile("드림|올림|배상|귀하|귀중")
_BETWEEN = (*"·․ㆍ・.,/", ", ")
_WORD = re.compile("[가-힣]+")
_SPACED = re.compile(rf"(?:이름|성명|성함)[ ]?:[ ]?([{_SURNAMES}] [가-힣] [가-힣])(?![가-힣])")


def find(text: str) -> Iterator[Span]:
    """Find names of people that are written in Hangul."""
    given, no_name = lists.korean_given(), lists.words("korean_words")
    found = list(_WORD.finditer(text))
    whole: list[int] = []  # words that are a name and nothing else
    for place, match in enumerate(found):
        word, start = match.group(), match.start()
        following = ""
        if place + 1 < len(found) and text[match.end() : found[place + 1].start()] == " ":
            following = found[place + 1].group()
        length = _full_name(text, start, word, following)
        if not length and word[:2] in given and word[:2] not in no_name:
            length = 2 if _is_addressed(word[:2], word[2:], following) else 0
        if length:
            yield start, start + length
            if length == len(word) >= 3:
                whole.append(place)
    for place in _neighbours(text, found, whole):
        yield found[place].span()
    if "성" in text or "이름" in text:
        for match in _SPACED.finditer(text):
            yield match.span(1)


def _full_name(text: str, start: int, word: str, following: str) -> int:
    """Return the length of the name that a word starts with, 0 for none.

    Args:
        following: the next word, if only a space is between.
    """
    size = 2 if word[:2] in _TWO else 1  # syllables of the surname
    if size == 1 and word[0] not in _SURNAMES:
        return 0
    given, (firsts, seconds) = lists.korean_given(), lists.korean_syllables()
    words, stop = lists.words("korean_words"), lists.words("korean_stop")
    name, rest = word[: size + 2], word[size + 2 :]
    if len(name) == size + 2 and name not in stop and word not in stop:
        titled = _TITLE.match(rest) if rest else _TITLE.match(following)
        if name.endswith("주") and rest.startswith("의"):
            return 0  # 민족주의
        if name[size:] in given and (titled or rest == "" or _TAIL.match(rest)):
            return size + 2
        usual = name[size] in firsts and name[-1] in seconds and name[:2] not in words
        strong = titled and name[0] in _FREQUENT and name[:2] not in words
        if strong and name[-1] not in _ENDINGS and _STRONG.match(rest or following):
            return size + 2
        if usual and name[0] in "김박" and (rest == "" or _TAIL.match(rest)):
            return size + 2
        if usual and (titled or (rest == "" and _CLOSING.match(following))):
            return size + 2
        if usual and (rest == "" or _TAIL.match(rest)) and name[0] in _FREQUENT:
            if _ROLE.search(text, max(0, start - 6), start):
                return size + 2
    name, rest = word[: size + 1], word[size + 1 :]
    if len(name) == size + 1 and name not in words and name[0] in _FREQUENT:
        address = (rest or following)[:1]
        if address in ("씨", "님") and _TITLE.match(rest or following):
            return size + 1
        if name[0] in "김박최" and not rest and _TITLE.match(following):
            return size + 1
    if len(word) <= size + 6 and _LABEL.search(text, max(0, start - 14), start):
        for length in (size + 2, size + 1):
            if len(word) >= length and _NAME_TAIL.match(word, length) and word[:2] not in words:
                return 0 if word[:3] in stop else length
    return 0


def _neighbours(text: str, found: list[re.Match[str]], known: list[int]) -> Iterator[int]:
    """Find the other names of a list such as 김철수·이영희·박지훈 around those that are known."""
    no_name, seen = lists.words("korean_stop") | lists.words("korean_words"), set(known)
    for start in known:
        for step in (-1, 1):
            here = start + step
            while 0 <= here < len(found) and here not in seen:
                first, second = sorted((here - step, here))
                word = found[here].group()
                if text[found[first].end() : found[second].start()] not in _BETWEEN:
                    break
                if len(word) != 3 or word[0] not in _SURNAMES or {word, word[:2]} & no_name:
                    break
                seen.add(here)
                yield here
                here += step


def _is_addressed(name: str, rest: str, following: str) -> bool:
    """Tell whether 씨, 님 or a call follows a given name."""
    if rest[:1] in ("씨", "님"):
        return rest[1:] == "" or _TAIL.fullmatch(rest[1:]) is not None
    if rest == "":
        return following in ("씨", "님") or (
            following[:1] in ("씨", "님") and _TAIL.fullmatch(following[1:]) is not None
        )
    return rest in ("야", "아", "군", "양") and name in lists.words("korean_called")
