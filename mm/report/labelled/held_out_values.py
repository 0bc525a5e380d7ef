"""Names and addresses for the held-out sentences, from lists that the rules do not have."""

import random

from mm.report.labelled.values import Make

_FIRST_EN = (
    "Theodore Abigail Marcus Priya Oliver Chloe Ahmed Fatima Diego Sofia Hiroshi Ingrid Nathan"
    " Zoe Patrick Heather Stanley Gwendolyn Tyrone Imani Kenji Olga Rajesh Mei Declan Aaliyah"
    " Vincent Monique Harold Beatrice"
).split()
_LAST_EN = (
    "Fitzgerald O'Connor Patel Kowalski Nakamura Schneider Okafor Petrov Castillo Blackwood"
    " Ramirez McAllister Whitaker Dubois Larsson Novak Goldberg Hossain Chaudhry Bennett"
    " Pemberton Ashworth Delgado Fontaine Haruki Lindqvist Mbeki Rossi Stein Yamamoto"
).split()
_NAMES_KO = (
    "김하늘 이도현 박서윤 최준서 정예은 강시우 조민서 윤지호 장하린 임주원 한소율 오건우 서아린"
    " 신유찬 권나윤 황태윤 안시은 송은우 류하준 홍지안 전수아 고은찬 문채원 손지율 배준혁 백서현"
    " 허도경 유채린 남궁민재 심우진 노아영 하윤재 곽동훈 성미란 차영길 주현석 우상혁 구본준"
    " 민경훈 진선규 엄태웅 채정안 원미경 천호진 방시혁 공효진 현진영 변희봉 염혜란 추자현 도경수"
    " 석지훈 선우은숙 설경구 마동석 길해연 연제욱 위하준 표예진 명세빈"
).split()


def _person(rng: random.Random, language: str) -> str:
    if language == "ko":
        return rng.choice(_NAMES_KO)
    return f"{rng.choice(_FIRST_EN)} {rng.choice(_LAST_EN)}"


def _address(rng: random.Random, language: str) -> str:
    number = rng.randrange(1, 900)
    if language == "ko":
        return rng.choice(
            [
                f"서울 서초구 서초대로 {number}",
                f"경기 용인시 수지구 풍덕천로 {number}번길 {rng.randrange(1, 60)}",
                f"부산 남구 문현동 {number}-{rng.randrange(1, 30)}",
                f"경상남도 창원시 성산구 상남로 {number}, {rng.randrange(101, 130)}동"
                f" {rng.randrange(101, 1800)}호",
                f"대구 달서구 월배로 {number} (진천동)",
                f"전북 전주시 완산구 홍산로 {number}",
                f"충남 아산시 배방읍 장재리 {number}",
                f"강원도 강릉시 경강로 {number}-{rng.randrange(1, 20)}",
                f"세종시 한누리대로 {number}",
                f"서울 영등포구 여의대로 {number} {rng.randrange(2, 40)}층",
                f"인천 부평구 부평동 {number}번지 햇살빌라 {rng.randrange(101, 505)}호",
                f"제주시 노형동 {number}-{rng.randrange(1, 30)}",
            ]
        )
    return rng.choice(
        [
            f"{number} Willow Creek Road",
            f"{number} E 42nd St, New York, NY 10017",
            f"{number}B Baker Street, London NW1 6XE",
            f"{number} Sunset Blvd, Los Angeles, CA 90028",
            f"Unit {rng.randrange(1, 30)}, {number} Rosewood Drive, Houston, TX 77005",
            f"{number} Martin Luther King Jr Blvd",
            f"PO Box {number}, Salem, OR 97301",
            f"{number} Elm Terrace",
            f"{number} King's Road, Brighton BN1 2FW",
            f"{number} North Lake Shore Drive, Chicago, Illinois 60611",
            f"{number} Teheran-ro, Gangnam-gu, Seoul",
            f"{number} Orchard Close, Cambridge CB2 1TN",
        ]
    )


MAKERS: dict[str, Make] = {"person": _person, "address": _address}
