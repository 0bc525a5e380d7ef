"""Names and addresses for the held-out sentences, from lists that the rules do not have."""

import random

from mm.report.labelled.values import Make

_FIRST_EN = (
    "Ruth Calvin Simone Darnell Yolanda Percival Esme Tobias Anneliese Bartholomew Keisha Ramon"
    " Leocadia Ulrich Saoirse Thaddeus Winifred Cyrus Marguerite Ezekiel Odette Rosalind Lamont"
    " Petra Joaquin Hyun Suresh Amara Zainab Bianca"
).split()
_LAST_EN = (
    "Abernathy Vasquez Thornton Okonkwo Ivanova Sorensen Beaumont Quintero Hargrove MacLeod Tanaka"
    " Moreau Blanchard Kaplan Osei Rahman Villanueva Strickland Eriksen Valente Whitlock"
    " Achterberg Dunne Papadopoulos Hwang Sinclair Montoya Bhattacharya Lockwood Ferreira"
).split()
_NAMES_KO = (
    "김보름 이슬기 박초아 최하람 정다솔 강이레 조아인 윤슬아 장별하 임채율 한지음 서이든 황단비"
    " 안온유 송이담 전해나 홍시온 고은솔 문가온 손예나 배이안 백하율 유아라 남도일 심은조 하도겸"
    " 곽한별 성주원 차은결 주시아 우다현 민태구 나혜주 진가람 엄지원 채송화 현아름 염치훈 추상미"
    " 도하나 소이현 석도원 길은혜 위성우 표인봉 기태영 옥주현 탁재훈 남궁옥분 황보라 사공민주"
    " 김복동 이순덕 박말순 최점례 정금자 강옥분 윤끝순 장만복 임판석 한금숙 오정자 서춘식 신길자"
    " 권병호 황덕구 김도윤 이준서 박하준 최은우 정시우 강지호 조예준 윤유준 장지아 임서윤 한아린"
    " 오하윤 서지유 신지안 권채아 김수자 이상옥 박광호 최영철 정미숙 강명숙 조현정"
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
                f"서울시 은평구 통일로 {number}",
                f"경기도 수원시 팔달구 인계동 {number}-{small}",
                f"인천시 서구 청라커낼로 {number}, 2{small:02}호",
                f"울산 남구 삼산로{number}번길 {small}",
                f"강원 원주시 무실로 {number} 무실주공아파트 {100 + small}동 {number + 100}호",
                f"경북 포항시 북구 중흥로 {number}",
                f"전남 여수시 학동 {number}-{small}",
                f"충남 천안시 서북구 불당동 {number}",
                f"부산 사하구 낙동대로{number}번길 {small}-{small}",
                f"대전 서구 둔산로 {number} {small}층",
                f"제주 서귀포시 중문관광로 {number}",
                f"경기 파주시 문산읍 선유리 {number}",
            ]
        )
    return rng.choice(
        [
            f"{number} Juniper Hollow Lane",
            f"{number} W 5th Ave, Columbus, OH 43212",
            f"{small} Abbey Road, London NW8 9AY",
            f"{number} Peachtree St NE, Atlanta, GA 30308",
            f"Apt {small}, {number} Vineyard Court, Napa, CA 94558",
            f"{number} St. Charles Avenue, New Orleans, LA 70130",
            f"P.O. Box {number}, Bend, OR 97709",
            f"{number} Old Mill Road",
            f"{small} Church Lane, York YO1 7HH",
            f"{number} South Michigan Avenue, Chicago",
            f"{number}-{small} Sejong-daero, Jung-gu, Seoul",
            f"{number} Harbour View Terrace, Bristol BS1 5TY",
        ]
    )


MAKERS: dict[str, Make] = {"person": _person, "address": _address}
