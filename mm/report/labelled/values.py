"""Make values of every kind at random: valid ones, in the spellings that people use."""

import base64
import hashlib
import random
import string
from collections.abc import Callable

from mm.privacy.text.numbers import luhn

Make = Callable[[random.Random, str], str]  # generator, language (en or ko) -> value

FIRST_EN = (
    "James Mary Robert Patricia Michael Linda David Barbara Susan Joseph Jessica Thomas Karen"
    " Daniel Nancy Lisa Matthew Betty Anthony Sandra Kevin Laura Brian Emily Jason Rachel Ryan"
    " Carolyn Jacob Catherine"
).split()
LAST_EN = (
    "Smith Johnson Williams Brown Jones Garcia Miller Davis Rodriguez Martinez Hernandez Lopez"
    " Wilson Anderson Taylor Thomas Moore Jackson Martin Thompson White Harris Clark Lewis"
    " Robinson Walker Perez Hall Allen Nguyen"
).split()
SUR_KO = "김이박최정강조윤장임한오서신권황안송류전홍고문양손배백허유남심노하곽성차주우구"
GIVEN_KO = (
    "민수 영희 지훈 서연 민준 지영 수진 영수 민지 준호 현우 지민 은지 미영 성호 동현 예진 하은"
    " 서준 도윤 지우 민호 상철 재현 승민 태영 혜진 보람 유진 나연 은정 경숙 정희 진우 수빈 다은"
    " 윤서 채원"
).split()
ROADS_KO = (
    "테헤란로 강남대로 세종대로 올림픽로 양재대로 한강대로 중앙로 충무로 을지로 퇴계로 월드컵북로"
    " 디지털로 가산디지털1로 봉은사로 압구정로28길 판교역로 해운대해변로 동성로 대학로 번영로"
).split()
GU_KO = [
    ("서울특별시", "강남구"),
    ("서울시", "마포구"),
    ("서울", "종로구"),
    ("부산광역시", "해운대구"),
    ("대구광역시", "수성구"),
    ("인천광역시", "연수구"),
    ("경기도 성남시", "분당구"),
    ("경기도", "고양시"),
    ("대전광역시", "유성구"),
    ("광주광역시", "북구"),
    ("강원특별자치도", "춘천시"),
    ("전라남도", "순천시"),
    ("제주특별자치도", "제주시"),
    ("충청북도 청주시", "상당구"),
]
DONG_KO = (
    "역삼동 신사동 서교동 정자동 우동 범어동 송도동 봉명동 용봉동 효자동 연동 망원동 청운동 대치동"
).split()
MONTHS = (
    "January February March April May June July August September October November December"
).split()
PLATES_KO = "가나다라마거너더러머버서어저고노도로모보소오조구누두루무부수우주바사아자하허호"
STREETS_EN = (
    "Main Oak Maple Cedar Pine Elm Washington Lake Hill Walnut Park Church Spring Franklin"
    " Highland Jefferson Madison River Sunset Chestnut"
).split()
TOWNS_EN = [
    ("Springfield", "IL", "62704"),
    ("Portland", "OR", "97205"),
    ("Austin", "TX", "78701"),
    ("Madison", "WI", "53703"),
    ("Boston", "MA", "02108"),
    ("Denver", "CO", "80203"),
    ("San Diego", "CA", "92101"),
]
HOSTS = (
    "example.com example.org mail.example.net example.co.kr sub-domain.example.com example.io"
    " corp.example.co.uk"
).split()
WORDS = "blue river happy tiger coffee moon maple pixel sunny green silver cloud".split()


def digits(rng: random.Random, count: int) -> str:
    """Return random digits."""
    return "".join(rng.choice(string.digits) for _ in range(count))


def letters(
    rng: random.Random, count: int, alphabet: str = string.ascii_letters + string.digits
) -> str:
    """Return random characters of an alphabet."""
    return "".join(rng.choice(alphabet) for _ in range(count))


def wide(text: str) -> str:
    """Return a text in full-width characters."""
    return "".join(chr(ord(char) + 0xFEE0) if "!" <= char <= "~" else char for char in text)


def hidden(rng: random.Random, text: str) -> str:
    """Put a zero-width character somewhere inside."""
    place = rng.randrange(1, len(text))
    return text[:place] + rng.choice("\u200b\u200d\u2060\ufeff\u00ad") + text[place:]


def disguised(make: Make) -> Make:
    """Write one value in twelve full-width, and one in twelve with a zero-width character."""

    def made(rng: random.Random, language: str) -> str:
        value, chance = make(rng, language), rng.random()
        return wide(value) if chance < 1 / 12 else hidden(rng, value) if chance < 2 / 12 else value

    return made


def email(rng: random.Random, language: str) -> str:
    """Make an e-mail address, at times with the sign or the dots spelled out."""
    user = (
        rng.choice(WORDS)
        + rng.choice(["", ".", "_", "-", "+"])
        + rng.choice(WORDS)
        + rng.choice(["", digits(rng, 2)])
    )
    host, chance = rng.choice(HOSTS), rng.random()
    if chance < 0.7:
        return f"{user}@{host}"
    if chance < 0.8:
        return f"{user}{rng.choice([' (at) ', '(at)', ' [at] ', '%40', ' @ '])}{host}"
    if chance < 0.9:
        return (
            f"{user} at {host.replace('.', ' dot ')}" if language == "en" else f"{user}골뱅이{host}"
        )
    return f"{user}[at]{host.replace('.', '[dot]')}"


def card(rng: random.Random, language: str) -> str:
    """Make a card number that passes the Luhn check."""
    prefix, length = rng.choice(
        [
            ("4", 16),
            ("51", 16),
            ("55", 16),
            ("2221", 16),
            ("34", 15),
            ("37", 15),
            ("3528", 16),
            ("6011", 16),
            ("62", 16),
        ]
        + ([("94", 16), ("9", 16)] if language == "ko" else [("36", 14)])
    )
    body = prefix + digits(rng, length - 1 - len(prefix))
    number = next(body + last for last in string.digits if luhn(body + last))
    separator = rng.choice(["", " ", "-", " ", "-", "."])
    if length == 16:
        return separator.join(number[i : i + 4] for i in range(0, 16, 4))
    return separator.join([number[:4], number[4:10], number[10:]])


SPOKEN_KO, SPOKEN_EN = (
    "공일이삼사오육칠팔구",
    "zero one two three four five six seven eight nine".split(),
)


def phone(rng: random.Random, language: str) -> str:
    """Make a phone number of the language's countries, at times in words."""
    if language == "ko":
        head = rng.choice(
            ["010"] * 6 + ["011", "016", "019", "02", "031", "051", "064", "070", "0505"]
        )
        middle = digits(rng, 4 if head in ("010", "070") else 3)
        middle, last = str(rng.randrange(2, 10)) + middle[1:], digits(rng, 4)
        chance = rng.random()
        if chance < 0.55:
            separator = rng.choice(["-", "-", " ", ".", "", " - ", "/", "_"])
            return separator.join([head, middle, last])
        if chance < 0.65:
            return f"{rng.choice(['({})', '{})'])}{rng.choice(['', ' '])}{middle}-{last}".format(
                head
            )
        if chance < 0.8:
            return rng.choice(
                ["+82-{}-{}-{}", "+82 {} {} {}", "+82{}{}{}", "82-{}-{}-{}", "+82 (0){}-{}-{}"]
            ).format(head[1:], middle, last)
        if chance < 0.9:
            separator = rng.choice(["", " ", "-"])
            return separator.join(
                "".join(SPOKEN_KO[int(d)] for d in part) for part in (head, middle, last)
            )
        return (
            rng.choice(["1588", "1577", "1644"]) + "-" + last
            if chance < 0.95
            else f"O1O-{digits(rng, 4)}-{last}"
        )
    area, middle, last = (
        f"{rng.choice('2345678')}{rng.randrange(2, 10)}{rng.randrange(2, 10)}",
        f"{rng.randrange(2, 10)}{digits(rng, 2)}",
        digits(rng, 4),
    )
    area = rng.choice(["212", "415", "312", "617", "303", "206", "512", "702", "305", "213"])
    chance = rng.random()
    if chance < 0.5:
        return rng.choice(["({}) {}-{}", "{}-{}-{}", "{}.{}.{}", "{} {} {}", "1-{}-{}-{}"]).format(
            area, middle, last
        )
    if chance < 0.65:
        return rng.choice(["+1 {} {} {}", "+1-{}-{}-{}", "+1 ({}) {}-{}", "+1{}{}{}"]).format(
            area, middle, last
        )
    if chance < 0.8:
        return rng.choice(
            ["+44 20 7946 0{}", "020 7946 0{}", "+44 7700 900{}", "07700 900{}"]
        ).format(digits(rng, 3))
    if chance < 0.9:
        return (
            f"+{rng.choice(['49 30 ', '33 1 ', '81 3 ', '91 98'])}{digits(rng, 4)} {digits(rng, 4)}"
        )
    return " ".join(SPOKEN_EN[int(d)] for d in area + middle + last)


def iban(rng: random.Random, language: str) -> str:
    """Make an IBAN that passes its check."""
    country, layout = rng.choice([("DE", "n18"), ("GB", "a4n14"), ("FR", "n23"), ("NL", "a4n10")])
    if country == "FR":  # has a check of its own inside
        body = "20041010050500013M02606"
    elif layout == "n18":
        body = digits(rng, 18)
    else:
        body = letters(rng, 4, string.ascii_uppercase) + digits(rng, 14 if country == "GB" else 10)
        body = {"GB": "NWBK", "NL": "ABNA"}[country] + body[4:]
    number = "".join(str(int(char, 36)) for char in body + country + "00")
    value = f"{country}{98 - int(number) % 97:02}{body}"
    return (
        value if rng.random() < 0.4 else " ".join(value[i : i + 4] for i in range(0, len(value), 4))
    )


def bank_account(rng: random.Random, language: str) -> str:
    """Make an account number in the layout of a bank."""
    if language == "en":
        return digits(rng, rng.choice([8, 9, 10, 12]))
    layout = rng.choice(
        [
            (6, 2, 6),
            (3, 3, 6),
            (3, 2, 6),
            (4, 2, 7),
            (4, 3, 6),
            (3, 4, 4, 2),
            (3, 6, 5),
            (14,),
            (12,),
            (4, 4, 4),
        ]
    )
    return rng.choice(["-", "-", " "]).join(
        str(rng.randrange(1, 10)) + digits(rng, count - 1) for count in layout
    )


def _registration(rng: random.Random, genders: tuple[str, str]) -> str:
    year = rng.randrange(1940, 2025)
    day = f"{year % 100:02}{rng.randrange(1, 13):02}{rng.randrange(1, 29):02}"
    rest = genders[year >= 2000][rng.randrange(2)] + digits(rng, 5)
    total = sum(
        int(a) * b for a, b in zip(day + rest, (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5), strict=True)
    )
    check = (13 if genders[0][0] == "5" else 11) - total % 11
    check = (
        check % 10 if rng.random() < 0.6 else rng.randrange(10)
    )  # since October 2020: no check digit
    separator = rng.choice(["-", "-", "-", "", " ", " - ", ".", "/", "_", "~", ":", "·", "–"])
    return day + separator + rest + str(check)


def resident_number(rng: random.Random, language: str) -> str:
    """Make a Korean resident number, at times half hidden."""
    value = _registration(rng, ("12", "34"))
    return value[:-6] + "******" if rng.random() < 0.08 else value


def foreigner_number(rng: random.Random, language: str) -> str:
    """Make a Korean foreigner registration number."""
    return _registration(rng, ("56", "78"))


def passport(rng: random.Random, language: str) -> str:
    """Make a passport number."""
    if language == "ko":
        return rng.choice(
            [
                f"M{digits(rng, 8)}",
                f"M{digits(rng, 3)}{rng.choice('ABCDEFGHJ')}{digits(rng, 4)}",
                f"S{digits(rng, 8)}",
            ]
        )
    return rng.choice(
        [
            digits(rng, 9),
            f"{rng.choice('ABCX')}{digits(rng, 8)}",
            f"{rng.choice('PLK')}{rng.choice('ABCX')}{digits(rng, 7)}",
        ]
    )


def driver_licence(rng: random.Random, language: str) -> str:
    """Make a driver's licence number."""
    if language == "ko":
        head = rng.choice(["서울 ", "경기 ", "부산 ", ""]) or f"{rng.randrange(11, 29)}-"
        return f"{head}{rng.randrange(10, 24)}-{digits(rng, 6)}-{digits(rng, 2)}"
    return rng.choice(
        [
            f"{rng.choice('ABDS')}{digits(rng, 7)}",
            f"{rng.choice('SFM')}{digits(rng, 3)}-{digits(rng, 4)}-{digits(rng, 4)}",
            f"MORGA6{digits(rng, 5)}SM9IJ",
            digits(rng, 8),
        ]
    )


def business_number(rng: random.Random, language: str) -> str:
    """Make a Korean business number with its check digit."""
    body = str(rng.randrange(101, 900)) + f"{rng.randrange(1, 99):02}" + digits(rng, 4)
    total = (
        sum(int(a) * b for a, b in zip(body, (1, 3, 7, 1, 3, 7, 1, 3, 5), strict=True))
        + int(body[8]) * 5 // 10
    )
    value = body + str(-total % 10)
    return value if rng.random() < 0.2 else f"{value[:3]}-{value[3:5]}-{value[5:]}"


def vehicle_plate(rng: random.Random, language: str) -> str:
    """Make a number plate of Korea, California, Great Britain or New York."""
    if language == "ko":
        letter = rng.choice(PLATES_KO)
        space = "" if letter in "로도보조구부수우주자호누" else rng.choice([" ", ""])
        head = rng.choice(["", "", "서울 ", "경기"]) + rng.choice(
            [f"{digits(rng, 1)}2", f"1{digits(rng, 2)}"]
        )
        return f"{head}{letter}{space}{digits(rng, 4)}"
    three = letters(rng, 3, string.ascii_uppercase)
    british = f"{letters(rng, 2, 'ABDEFGKLNPRSWXY')}{rng.randrange(51, 74)} {three}"
    return rng.choice(
        [f"{rng.randrange(1, 9)}{three}{digits(rng, 3)}", british, f"{three}-{digits(rng, 4)}"]
    )


def us_ssn(rng: random.Random, language: str) -> str:
    """Make a US social security number."""
    area = rng.choice([rng.randrange(1, 666), rng.randrange(667, 900)])
    parts = [f"{area:03}", f"{rng.randrange(1, 100):02}", f"{rng.randrange(1, 10000):04}"]
    return rng.choice(["-", "-", "-", " "]).join(parts)


def us_itin(rng: random.Random, language: str) -> str:
    """Make a US taxpayer number."""
    return (
        f"9{digits(rng, 2)}-{rng.choice([50, 60, 65, 70, 78, 88, 90, 92, 94, 99])}-{digits(rng, 4)}"
    )


def uk_nhs(rng: random.Random, language: str) -> str:
    """Make a UK NHS number with its check digit."""
    while True:
        body = str(rng.choice([4, 6, 7])) + digits(rng, 8)
        check = (11 - sum(int(d) * (10 - i) for i, d in enumerate(body)) % 11) % 11
        if check < 10:
            value = body + str(check)
            return value if rng.random() < 0.3 else f"{value[:3]} {value[3:6]} {value[6:]}"


def ip_address(rng: random.Random, language: str) -> str:
    """Make an IPv4 or IPv6 address."""
    if rng.random() < 0.7:
        return ".".join(
            str(
                rng.choice([10, 192, rng.randrange(1, 127), rng.randrange(128, 224)])
                if place == 0
                else rng.randrange(1, 255)
            )
            for place in range(4)
        )
    groups = [f"{rng.randrange(1, 65536):x}" for _ in range(8)]
    return rng.choice(
        [
            ":".join(groups),
            f"2001:db8::{groups[0]}:{groups[1]}",
            f"fe80::{':'.join(groups[:4])}",
            f"2001:db8:{groups[1]}::{groups[2]}",
        ]
    )


def mac_address(rng: random.Random, language: str) -> str:
    """Make a hardware address."""
    parts = [f"{rng.randrange(256):02x}" for _ in range(6)]
    value = rng.choice(
        [
            ":".join(parts),
            "-".join(parts),
            ":".join(parts),
            f"a{''.join(parts)[1:4]}.{''.join(parts)[4:8]}.{''.join(parts)[8:]}",
        ]
    )
    return value.upper() if rng.random() < 0.5 else value


def coordinates(rng: random.Random, language: str) -> str:
    """Make a place on the globe."""
    latitude, longitude = rng.uniform(33, 60), rng.uniform(5, 130)
    style = rng.randrange(5 if language == "en" else 6)
    if style < 3:
        return f"{latitude:.{4 + style}f}, {longitude:.{4 + style}f}"
    if style == 3:

        def dms(value: float) -> str:
            return f"{int(value)}°{int(value * 60) % 60}'{value * 3600 % 60:.1f}\""

        return f"{dms(latitude)}N {dms(longitude)}E"
    if style == 4:
        return f"{latitude:.4f}° N, {longitude:.4f}° E"
    return f"북위 {latitude:.4f}도, 동경 {longitude:.4f}도"


def address(rng: random.Random, language: str) -> str:
    """Make a postal address."""
    if language == "ko":
        city, gu = rng.choice(GU_KO)
        number = str(rng.randrange(1, 500)) + (
            f"-{rng.randrange(1, 40)}" if rng.random() < 0.3 else ""
        )
        unit = rng.choice(
            [
                "",
                "",
                f", {rng.randrange(1, 20)}층",
                f" {rng.randrange(101, 120)}동 {rng.randrange(101, 2000)}호",
                f", {rng.randrange(101, 999)}호",
                f" ({rng.choice(DONG_KO)})",
            ]
        )
        if rng.random() < 0.65:
            return f"{city} {gu} {rng.choice(ROADS_KO)} {number}{unit}"
        place = f"{rng.choice(DONG_KO)} {number}" + rng.choice(["", "번지"])
        return (
            f"{city} {gu} {place}"
            if rng.random() < 0.7
            else f"{rng.choice(DONG_KO)} {rng.randrange(1, 900)}-{rng.randrange(1, 40)}{unit}"
        )
    kind = rng.choice("Street St Avenue Ave Road Drive Lane Blvd Court Way".split())
    side = rng.choice(["", "", "N ", "West "])
    street = f"{rng.randrange(1, 9999)} {side}{rng.choice(STREETS_EN)} {kind}"
    town, state, code = rng.choice(TOWNS_EN)
    return rng.choice(
        [
            street,
            f"{street}, {town}, {state} {code}",
            f"{street}, Apt {rng.randrange(1, 40)}, {town}, {state} {code}",
            f"Flat {rng.randrange(1, 20)}, {rng.randrange(1, 200)} Baker Street, London NW1 6XE",
            f"P.O. Box {rng.randrange(10, 9999)}",
            f"{street}, {town}, {state}",
        ]
    )


def date_of_birth(rng: random.Random, language: str) -> str:
    """Make a date."""
    year, month, day = rng.randrange(1930, 2020), rng.randrange(1, 13), rng.randrange(1, 29)
    if language == "ko":
        return rng.choice(
            [
                f"{year}년 {month}월 {day}일",
                f"{year}.{month:02}.{day:02}",
                f"{year}-{month:02}-{day:02}",
                f"{year % 100:02}{month:02}{day:02}",
                f"{year}{month:02}{day:02}",
                f"{year % 100:02}.{month}.{day}",
            ]
        )
    name = MONTHS[month - 1]
    return rng.choice(
        [
            f"{name} {day}, {year}",
            f"{day} {name} {year}",
            f"{month:02}/{day:02}/{year}",
            f"{year}-{month:02}-{day:02}",
            f"{name[:3]} {day}, {year}",
            f"{day:02}.{month:02}.{year}",
        ]
    )


def account_handle(rng: random.Random, language: str) -> str:
    """Make an @name."""
    return (
        "@"
        + rng.choice(WORDS)
        + rng.choice(["_", "", "."])
        + rng.choice(WORDS)
        + rng.choice(["", digits(rng, 2), digits(rng, 4)])
    )


def _base58check(rng: random.Random, version: int) -> str:
    alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
    payload = bytes([version]) + rng.randbytes(20)
    data = payload + hashlib.sha256(hashlib.sha256(payload).digest()).digest()[:4]
    number, out = int.from_bytes(data, "big"), ""
    while number:
        number, rest = divmod(number, 58)
        out = alphabet[rest] + out
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + out


def wallet(rng: random.Random, language: str) -> str:
    """Make the address of a wallet."""
    return rng.choice(
        [
            _base58check(rng, 0),
            _base58check(rng, 5),
            f"0x{rng.randbytes(20).hex()}",
            "bc1q" + letters(rng, 38, "023456789acdefghjklmnpqrstuvwxyz"),
            _base58check(rng, 65),
        ]
    )


def api_key(rng: random.Random, language: str) -> str:
    """Make a key in a provider's form."""
    jwt = ".".join(
        base64.urlsafe_b64encode(part).decode().rstrip("=")
        for part in (b'{"alg":"HS256"}', b'{"sub":"%d"}' % rng.randrange(10**9), rng.randbytes(32))
    )
    return rng.choice(
        [
            f"AKIA{letters(rng, 16, string.ascii_uppercase + '234567')}",
            f"ghp_{letters(rng, 36)}",
            f"sk-proj-{letters(rng, 40)}",
            f"sk_live_{letters(rng, 24)}",
            f"AIza{letters(rng, 35)}",
            f"hf_{letters(rng, 34, string.ascii_letters)}",
            f"xoxb-{digits(rng, 11)}-{letters(rng, 24)}",
            f"glpat-{letters(rng, 20)}",
            jwt,
        ]
    )


def person(rng: random.Random, language: str) -> str:
    """Make a name of frequent parts."""
    if language == "ko":
        return rng.choice(SUR_KO) + rng.choice(GIVEN_KO)
    return rng.choice(
        [
            f"{rng.choice(FIRST_EN)} {rng.choice(LAST_EN)}",
            f"{rng.choice(FIRST_EN)} {rng.choice(LAST_EN)}",
            f"{rng.choice(FIRST_EN)} {rng.choice('ABCDEGHJKLMPRST')}. {rng.choice(LAST_EN)}",
        ]
    )


_PLAIN: dict[str, Make] = {
    "account_handle": account_handle,
    "address": address,
    "api_key": api_key,
    "business_number": business_number,
    "coordinates": coordinates,
    "date_of_birth": date_of_birth,
    "driver_licence": driver_licence,
    "passport": passport,
    "person": person,
    "vehicle_plate": vehicle_plate,
    "wallet": wallet,
}
_DISGUISED: dict[str, Make] = {
    "bank_account": bank_account,
    "card": card,
    "email": email,
    "foreigner_number": foreigner_number,
    "iban": iban,
    "ip_address": ip_address,
    "mac_address": mac_address,
    "phone": phone,
    "resident_number": resident_number,
    "uk_nhs": uk_nhs,
    "us_itin": us_itin,
    "us_ssn": us_ssn,
}
MAKERS = _PLAIN | {kind: disguised(make) for kind, make in _DISGUISED.items()}
