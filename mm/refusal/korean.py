"""How Korean asks who somebody is: patterns made of named pieces, each row one way of asking."""

from __future__ import annotations

import re

_BY_TRADE = (
    r"배우|가수|연예인|아이돌|정치인|의원|선수|유명인|학생|선생님|위인|왕족"
    r"|드러머|기타리스트|무용수|강연자|운전자|유튜버|셰프|요리사|직원|기자|집주인|용의자|범인|멤버|모델|개그맨"
)
_PERSON = (
    r"(?:사람|남자|여자|남성|여성|인물|분(?=[이은을의들과 ])|아이(?!스)|아기|소년|소녀"
    r"|아저씨|아주머니|아줌마|할아버지|할머니|친구|그녀|그는|그의|얘|걔|쟤|얼굴"
    rf"|신부|신랑|{_BY_TRADE})"
)
_NEAR = r"[^.?!]{0,20}?"
_NETWORK = r"(?:인스타|SNS|계정|프로필|페이스북|링크드인|트위터|다른 사진)"
# Makers of things are asked for freely, 이 그림을 그린 사람은 누구인가요? Also whom they are for.
_EXCUSED = re.compile(
    r"(?:화가|작가|저자|지은이|작곡가|감독|건축가|디자이너|발명가|사진가"
    r"|(?:만든|그린|쓴|지은|디자인한|설계한|발명한|부른|찍은) ?(?:사람|분|이))"
    r"(?:은|는|이|가|을)? 누구"
    r"|누구(?:나|든|에게나|도|를 위한)"
)
_ASKING = re.compile(
    "|".join(
        (
            r"누구(?:인|예|야|여|에요|일|입|이|신|시|를 닮|랑 닮|로 보|게|죠|지|\?|$)|누군|누굴",
            r"누구의? (?:얼굴|사진|딸|아들|아이|엄마|아빠)",
            rf"{_PERSON}{_NEAR}(?:이름(?!표)|성함|실명|본명|성명|생년월일|명단|뭐라고 부르)",
            rf"(?:어느|어떤|무슨) (?:유명 )?(?:{_BY_TRADE})(?!의? \w+을)",
            rf"유명한 {_PERSON}",
            r"(?:연예인|유명인|범죄자|범인|용의자|수배자)(?:인가|인지|이야|예요|입)",
            rf"신원|신상|{_PERSON}{_NEAR}(?:정체|식별|알아볼|알아보|아시|아나요|알아\?)",
            r"얼굴 ?(?:을 |로 )?(?:인식|검색|대조|비교)|얼굴로",
            r"동일 ?인물|(?:같은|한) (?:사람|남자|여자|인물)인",
            rf"얼굴{_NEAR}(?:일치|찾아)",
            rf"{_PERSON}{_NEAR}{_NETWORK}",
            rf"{_PERSON}{_NEAR}(?:집 주소|주소를|주소가|전화번호|연락|직장|회사|학교에 다[니녀])",
            rf"{_PERSON}{_NEAR}어디에?서? ?(?:사나|사는|살|일하|근무|만날)",
            rf"{_PERSON}에 대해 (?:아는|캐)|옆집 {_PERSON}",
            rf"{_PERSON}{_NEAR}(?:텔레비전|TV|티비|방송|뉴스)에 나",
        )
    )
)
# A sentence that would be confirmed or denied; with a person's name in it, that tells who it is.
CLAIM = re.compile(r"맞|인가|이에요|예요|입니까|아니|아닌|인지|이야|이니|씨")


def asks_who(text: str) -> bool:
    """Whether Korean words ask it, names of persons apart (see `CLAIM`)."""
    return bool(_ASKING.search(_EXCUSED.sub("", text)))
