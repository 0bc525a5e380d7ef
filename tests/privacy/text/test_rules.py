"""Text rules: what is found, what is left alone, and that scrubbing twice equals once."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stdnum import luhn

from mm.privacy.text import find, scrub_text

# All numbers are documented test numbers, fictitious ranges or made up.
FOUND = [
    ("Write to John.Doe+x@mail.example.co.uk, please", "Write to [EMAIL], please"),
    ("메일은 kim@example.com으로 보내세요", "메일은 [EMAIL]으로 보내세요"),
    ("홍길동@예시.한국", "[EMAIL]"),
    ("user＠example．com", "[EMAIL]"),
    ("user (at) example.com", "[EMAIL]"),
    ("a\u200bb@exa\u200bmple.com", "[EMAIL]"),
    ("mailto:john%40example.com", "mailto:[EMAIL]"),
    ("root@[192.0.2.1]", "[EMAIL]"),
    ("call 555-0142 now", "call [PHONE] now"),
    ("call me on (415) 555-0142", "call me on [PHONE]"),
    ("212-555-0142", "[PHONE]"),
    ("+44 20 7946 0958", "[PHONE]"),
    ("07911 123456 is mine", "[PHONE] is mine"),
    ("+1 (212) 555-0142 x", "[PHONE] x"),
    ("010-1234-5678로 연락", "[PHONE]로 연락"),
    ("01012345678", "[PHONE]"),
    ("010 1234 5678", "[PHONE]"),
    ("010.1234.5678", "[PHONE]"),
    ("０１０－１２３４－５６７８", "[PHONE]"),
    ("tel010-1234-5678", "tel[PHONE]"),
    ("(02) 123-4567", "[PHONE]"),
    ("+82 10 1234 5678", "[PHONE]"),
    ("+82-(0)10-1234-5678", "[PHONE]"),
    ("82-10-1234-5678", "[PHONE]"),
    ("전화번호는 02-987-6543입니다", "전화번호는 [PHONE]입니다"),
    ("1588-1234", "[PHONE]"),
    ("031)123-4567", "[PHONE]"),
    ("card 4111 1111 1111 1111 exp 12/27", "card [CARD] exp 12/27"),
    ("4111-1111-1111-1111", "[CARD]"),
    ("4111111111111111", "[CARD]"),
    ("5500005555555559.", "[CARD]."),
    ("3782 822463 10005", "[CARD]"),
    ("３７８２ ８２２４６３ １０００５", "[CARD]"),
    ("4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1", "[CARD]"),
    ("no 12 4111-1111-1111-1111 and", "no 12 [CARD] and"),
    ("카드번호4111 1111 1111 1111이고", "카드번호[CARD]이고"),
]
LEFT = [
    "2 dogs and 3 cats; 4 birds, 5 fish, 6 cups, 7, 8, 9",
    "in 2019-2020, on 2019-05-12 at 12:30",
    "2024.05.12 10:20:30",
    "pi is 3.14159265358979",
    "1,234,567 stars, 10000000 people, $12,500.00",
    "41, 11, 11, 11, 11, 11, 11, 11",
    "41 11 11 11 11 11 11 11",
    "9.207316026675",
    "version 12.4.1, 1920 x 1080 px, 16:9",
    "order 20231234567",
    "4111 1111 1111 1112",
    "0000 0000 0000 0000",
    "12 34 56 78 90 12",
    "@home in the cafe, 3@5",
    "개 2마리와 고양이 3마리",
    "<image>What is it?\n1. a dog 2. a cat 3. a bird 4. a fish 5. a cow 6. a hen 7. a pig",
    "",
]


@pytest.mark.parametrize(("text", "expected"), FOUND)
def test_scrub_finds(text: str, expected: str) -> None:
    clean, found = scrub_text(text)
    assert clean == expected
    assert sum(found.values()) == 1


@pytest.mark.parametrize("text", LEFT)
def test_scrub_leaves_alone(text: str) -> None:
    assert scrub_text(text) == (text, {})


def test_scrub_counts_by_rule() -> None:
    clean, found = scrub_text("a@example.com b@example.com 010-1234-5678 4111111111111111")
    assert clean == "[EMAIL] [EMAIL] [PHONE] [CARD]"
    assert found == {"email": 2, "phone": 1, "card": 1}


def test_scrub_applies_only_named_rules() -> None:
    assert scrub_text("a@example.com 010-1234-5678", ["phone"])[0] == "a@example.com [PHONE]"


def test_unknown_rule_is_an_error_not_a_pass() -> None:
    with pytest.raises(
        ValueError, match="unknown text rule 'fone'; known: account_handle, address"
    ):
        find("x", "fone")
    with pytest.raises(ValueError, match="unknown text rule 'fone'"):
        scrub_text("no digits here", ["fone"])


personal = st.sampled_from([text for text, _ in FOUND] + LEFT)
fragments = st.one_of(
    personal,
    st.text(max_size=12),
    st.text("0123456789-. ()+@/\u200b０", max_size=24),
    st.sampled_from(["@", "+82", "010", "[EMAIL]", "call ", "a.com", "(at)", " 1234", "전화 "]),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(fragments, max_size=6).map("".join))
def test_scrubbing_twice_equals_once_and_finds_nothing(text: str) -> None:
    once, _ = scrub_text(text)
    assert scrub_text(once) == (once, {})


@settings(max_examples=150, deadline=None)
@given(
    st.text("abcdefghij 가나다,;!?\n", max_size=20),
    st.sampled_from(["4111111111111111", "kim@example.com", "010-1234-5678", "+82 2 987 6543"]),
    st.text("abcdefghij 가나다,;!?\n", max_size=20),
)
def test_personal_data_never_survives_among_words(before: str, secret: str, after: str) -> None:
    clean, found = scrub_text(f"{before} {secret} {after}")
    assert secret not in clean
    assert sum(found.values()) == 1


@settings(max_examples=100, deadline=None)
@given(
    st.integers(10**12, 10**13 - 1),
    st.sampled_from(["40", "49", "51", "55", "62", "65", "94"]),
    st.sampled_from(["", " ", "-"]),
)
def test_any_valid_card_is_found(number: int, first: str, separator: str) -> None:
    body = first + str(number)
    digits = body + luhn.calc_check_digit(body)
    groups = [digits[i : i + 4] for i in range(0, 16, 4)]
    clean, _ = scrub_text(f"pay {separator.join(groups)} now")
    assert clean == "pay [CARD] now"


def test_scrub_is_fast_on_captions_and_bounded_on_hostile_text() -> None:
    start = time.monotonic()
    for number in range(5000):
        scrub_text(f"There are {number % 7} red dogs left of the cat and 3 cups.")
    assert time.monotonic() - start < 2
    for piece in (
        "a",
        "1",
        "1-",
        "a@",
        "a.",
        "1 ",
        '"',
        "+1",
        "call ",
        "%40",
        "김철수·",
        "서울시 ",
        "12 Main ",
        "Jo, ",
        "Aa ",
        "일이",
        "one ",
    ):
        start = time.monotonic()
        scrub_text(piece * 3000)
        assert time.monotonic() - start < 5, piece
