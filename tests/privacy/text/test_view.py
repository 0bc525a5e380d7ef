"""The normal form of texts: what rules see, and that every place maps back."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm.privacy.text.view import BLANK, view_of


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("０１０－１２３４", "010-1234"),
        ("a\u200bb\u00adc", "abc"),
        ("x\u00a0y\u2013z", "x y-z"),
        (unicodedata.normalize("NFD", "김민수"), "김민수"),
        ("٠١٢٣", "0123"),
        ("①②", "12"),
        ("공일공-일이삼사-오육칠팔", "010-1234-5678"),
        ("공일공 일이삼사 오육칠팔로", "01012345678로"),
        ("010-일이삼사-오육칠팔", "010-1234-5678"),
        ("010-1234-5678이 번호", "010-1234-5678이 번호"),
        ("five five five, oh one four two", "555-0142"),
        ("two one two five five five oh one four two", "212-555-0142"),
        ("double five five zero one four two", "5550142"),
        ("one, two, three, four, five, six, seven", "one, two, three, four, five, six, seven"),
        ("one two three", "one two three"),
        ("O1O-1234-5678", "010-1234-5678"),
        ("[EMAIL] [PERSON-BCDFGHJK]", BLANK * 7 + " " + BLANK * 17),
        ("[email] [X1]", "[email] [X1]"),
    ],
)
def test_view_shows(text: str, seen: str) -> None:
    assert view_of(text).text == seen


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.text(max_size=40),
        st.lists(
            st.sampled_from(
                ["공", "일", "이", "one ", "two ", "-", "０", "\u200b", "ㅎ", "\u0301", "½", "["]
            ),
            max_size=24,
        ).map("".join),
    )
)
def test_every_place_of_a_view_maps_into_the_text_in_order(text: str) -> None:
    view = view_of(text)
    places = [view.original((i, i + 1)) for i in range(len(view.text))]
    for start, end in places:
        assert 0 <= start < end <= len(text)
    assert [start for start, _ in places] == sorted(start for start, _ in places)


def test_a_span_covers_hidden_characters_inside_it() -> None:
    text = "tel 010\u200b-1234-\u20605678."
    view = view_of(text)
    start = view.text.index("010")
    assert view.original((start, start + 13)) == (4, len(text) - 1)
