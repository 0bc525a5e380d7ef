"""Names and addresses for the held-out sentences, from lists that the rules do not have."""

import random

from mm.report.labelled.values import Make

_FIRST_EN = (
    "Gloria Wendell Phoebe Dmitri Camille Obinna Harriet Luca Nadia Sebastian Ines Caleb Yuki"
    " Marjorie Hassan Lorna Felipe Greta Silas Parvati Edmund Kwame Bettina Rufus Aurelia"
).split()
_LAST_EN = (
    "Carmichael Dominguez Finch Kuznetsov Adeyemi Lindholm Prescott Serrano Wexler Ibarra Tran"
    " Holloway Schmitt Obi Fairbanks Russo Kimura Stapleton Varga Nwosu Pickering Leclerc"
    " Stanton Agarwal Redmond"
).split()
_NAMES_KO = (
    "김연두 이재하 박세린 최무성 정채린 강성훈 조원빈 윤하람 장유나 임시우 한보라 오세준 서경덕"
    " 신동엽 권유리 황선홍 안재욱 송가인 류시원 전미도 홍진아 고두심 문근영 손석희 배철수 백일섭"
    " 허각 유재하 남주혁 심수봉 노사연 하지원 곽경택 성시경 차두리 주상욱 우지현 민효린 나문희"
    " 진서연 엄기준 채시라 원기준 천우희 방민아 공유진 현영민 함은정 변정수 염기훈 추소영 도상우"
    " 소유진 석주명 설인아 마재윤 길용우 위수정 표창원 기성용 옥택연 탁현민 남궁선 황보관 김철민"
).split()


def _person(rng: random.Random, language: str) -> str:
    if language == "ko":
        return rng.choice(_NAMES_KO)
    return f"{rng.choice(_FIRST_EN)} {rng.choice(_LAST_EN)}"


def _address(rng: random.Random, language: str) -> str:
    number, small = rng.randrange(1, 900), rng.randrange(1, 40)
    if language == "ko":
        return rng.choice(
            [
                f"서울 관악구 남부순환로 {number}",
                f"경기도 안양시 동안구 비산동 {number}-{small}",
                f"대구 중구 국채보상로 {number}, {small}층",
                f"광주 서구 상무중앙로 {number} 햇빛타워 {number + 100}호",
                f"강원도 속초시 중앙로{small}번길 {small}",
                f"경남 김해시 내외동 {number}",
                f"전북 군산시 나운로 {number}",
                f"충북 제천시 청전동 {number}-{small}번지",
                f"제주시 연동 {number}-{small}",
                f"서울특별시 송파구 올림픽로35길 {number} ({small + 100}동 {number + 100}호)",
            ]
        )
    return rng.choice(
        [
            f"{number} Lincoln Boulevard",
            f"{number} SE 12th Ave, Portland, OR 97214",
            f"{small} Victoria Road, Leeds LS6 1PF",
            f"{number} Canyon Ridge Dr, Boulder, CO 80302",
            f"Suite {number}, {small} Market Street, San Francisco, CA 94105",
            f"P.O. Box {number}",
            f"{number} Beacon St Apt {small}, Boston, MA 02116",
            f"{small} Rue Street, Montreal",
            f"{number} Hangang-daero, Yongsan-gu, Seoul",
            f"{small} Kensington Gardens Square, London W2 4BG",
        ]
    )


MAKERS: dict[str, Make] = {"person": _person, "address": _address}
