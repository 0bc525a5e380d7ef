"""Every kind, found in the forms that people write and left alone where it only looks so."""

import pytest

from mm.privacy.text import KINDS, find_all, scrub_text

# All made up; numbers carry valid check digits where the kind has them.
FOUND = [
    ("김민수 씨의 주민번호 900101-1234568", "[PERSON] 씨의 주민번호 [RESIDENT_NUMBER]"),
    ("211231-3456789 확인", "[RESIDENT_NUMBER] 확인"),
    ("900101 · 2******", "[RESIDENT_NUMBER]"),
    ("9 0 0 1 0 1 - 1 2 3 4 5 6 8", "[RESIDENT_NUMBER]"),
    ("외국인등록번호 850505-5123457", "외국인등록번호 [FOREIGNER_NUMBER]"),
    ("여권번호는 M12345678이고", "여권번호는 [PASSPORT]이고"),
    ("M123A4567", "[PASSPORT]"),
    ("US passport number 123456789", "US passport number [PASSPORT]"),
    ("운전면허 11-22-333333-44", "운전면허 [DRIVER_LICENCE]"),
    ("서울 12-345678-90", "[DRIVER_LICENCE]"),
    ("Driver's license: D1234567.", "Driver's license: [DRIVER_LICENCE]."),
    ("사업자등록번호 123-45-67891", "사업자등록번호 [BUSINESS_NUMBER]"),
    ("12가 3456 차량", "[VEHICLE_PLATE] 차량"),
    ("서울 123허1234", "[VEHICLE_PLATE]"),
    ("License plate 7ABC123", "License plate [VEHICLE_PLATE]"),
    ("SSN 123-45-6789", "SSN [US_SSN]"),
    ("ITIN 912-78-1234", "ITIN [US_ITIN]"),
    ("NHS number 943 476 5919", "NHS number [UK_NHS]"),
    ("IBAN DE89 3704 0044 0532 0130 00 ok", "IBAN [IBAN] ok"),
    ("국민은행 123456-01-123456", "국민은행 [BANK_ACCOUNT]"),
    ("110-123-456789 (신한은행)", "[BANK_ACCOUNT] (신한은행)"),
    ("bank account number 12345678", "bank account number [BANK_ACCOUNT]"),
    ("from 192.0.2.17 at noon", "from [IP_ADDRESS] at noon"),
    ("2001:db8::8a2e:370:7334로 접속", "[IP_ADDRESS]로 접속"),
    ("00:1A:2b:3C:4d:5E", "[MAC_ADDRESS]"),
    ("37.5665, 126.9780", "[COORDINATES]"),
    ("북위 37.5665도, 동경 126.9780도", "[COORDINATES]"),
    ("37°33'58.9\"N 126°58'40.1\"E", "[COORDINATES]"),
    ("서울특별시 강남구 테헤란로 152, 3층입니다", "[ADDRESS]입니다"),
    ("서울 강남구 역삼동 123-45번지", "[ADDRESS]"),
    ("성남시 분당구 판교역로 10 101동 1203호로", "[ADDRESS]로"),
    ("at 742 Evergreen Terrace, Springfield, IL 62704.", "at [ADDRESS]."),
    ("Flat 3, 12 Baker Street, London NW1 6XE", "[ADDRESS]"),
    ("P.O. Box 123", "[ADDRESS]"),
    ("born on 12 May 1990 in Ohio", "born on [DATE_OF_BIRTH] in Ohio"),
    ("생년월일: 1990년 1월 2일", "생년월일: [DATE_OF_BIRTH]"),
    ("90.01.02생", "[DATE_OF_BIRTH]생"),
    ("follow @john_doe99", "follow [ACCOUNT_HANDLE]"),
    ("카카오톡 아이디: gildong123", "카카오톡 아이디: [ACCOUNT_HANDLE]"),
    ("https://instagram.com/jane.roe/", "https://instagram.com/[ACCOUNT_HANDLE]/"),
    ("1BoatSLRHtKNngkdXEeobR76b53LETtpyT", "[WALLET]"),
    ("0x52908400098527886E0F7030069857D2E4169EE7", "[WALLET]"),
    ("AKIAIOSFODNN7EXAMPLE", "[API_KEY]"),
    ("password: hunter2x", "password: [API_KEY]"),
    ("https://bob:s3cret@example.com/x", "https://[API_KEY]/x"),
    ("gildong at example dot com", "[EMAIL]"),
    ("gildong골뱅이example.com", "[EMAIL]"),
    ("Ask Emily Johnson about it", "Ask [PERSON] about it"),
    ("Mr. Bean and Dr. Lee Hartman", "Mr. [PERSON] and Dr. [PERSON]"),
    ("my name is john smith", "my name is [PERSON]"),
    ("SMITH, JOHN and O'Neil, Mary", "[PERSON] and O'Neil, [PERSON]"),
    ("Hong Gil-dong and Kim Minsu", "[PERSON] and [PERSON]"),
    ("이름: 남궁민", "이름: [PERSON]"),
    ("담당자: 표가람", "담당자: [PERSON]"),
    ("홍길동은 의적이다", "[PERSON]은 의적이다"),
    ("민수야 밥 먹자, 지영 씨도", "[PERSON]야 밥 먹자, [PERSON] 씨도"),
]  # fmt: skip
LEFT = [
    "Version 1.2.3.4, firmware 10.0.19.1 and torch==2.11.0.1",
    "Order 123-45-6789 and invoice 900101-1234567",
    "주문번호 9001011234567, 송장 1234-5678-9012",
    "바코드 8801234567893, ISBN 978-3-16-148410-0",
    "commit 8d0e1c2b3a4f5e6d7c8b9a0f1e2d3c4b5a697887",
    "scores 0.9213, 0.8472 and [12.3456, 34.5678, 56.7890, 78.1234]",
    "10조 2000억, 101호 1234, 버스로 30분, 서울로 10시에",
    "2 Dogs cross the street; 5th Avenue is long; 3 people",
    "She was born to run in 2019",
    "@property, @media, @types/node, 3@5, found at example.com",
    "password is required; the token is invalid; API key: none",
    "Will it rain in May? Mark the box. Grace and hope. Virginia Beach, San Francisco",
    "Johnson & Johnson, Charles River, Madison Avenue, Stanford University",
    "고양이가 2마리 있고 강아지가 3마리 있다. 이 이미지에는 주전자가 있다.",
    "고객님, 선생님, 사장님, 회원님께 알립니다. 이 영상은 재미있다.",
    "국민은행 앞, 여권을 잃어버렸다, 운전면허 시험 12월 3일",
    "std::vector<int> at 12:30:45, 16:9",
    "1990년대에 태어난 노래, 20주년 기념 1234명",
]


@pytest.mark.parametrize(("text", "expected"), FOUND)
def test_kind_is_found(text: str, expected: str) -> None:
    assert scrub_text(text)[0] == expected


@pytest.mark.parametrize("text", LEFT)
def test_look_alike_is_left_alone(text: str) -> None:
    assert scrub_text(text) == (text, {})


def test_every_kind_is_in_a_test() -> None:
    seen = {kind for _, expected in FOUND for kind in KINDS if f"[{kind.upper()}]" in expected}
    assert seen | {"phone", "card"} == set(KINDS)


def test_findings_are_in_order_and_apart() -> None:
    found = find_all("Jane Roe, 010-1234-5678, jane@example.com, 192.0.2.1")
    assert [kind for _, _, kind in found] == ["person", "phone", "email", "ip_address"]
    assert all(a.end <= b.start for a, b in zip(found, found[1:], strict=False))
