import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm.data.scenes.language import (
    PRESENT_SHARE,
    ask_presence,
    ask_relation,
    ask_where,
    caption,
    converse,
    corpus,
    examine,
)
from mm.data.scenes.layout import Scene, Thing
from tests.data.scenes.test_layout import sampler


def art(name: str, x: float, y: float = 0.5) -> Thing:
    return Thing("art", name, x, y, 0.2, sprite=0)


SCENE = Scene(
    (
        art("dog", 0.2, 0.2),
        art("cat", 0.4, 0.8),
        art("dog", 0.6, 0.2),
        Thing("shape", "circle", 0.8, 0.5, 0.2, colour="red"),
    ),
    "gradient",
    "blue",
)


@pytest.mark.parametrize(
    ("scene", "english", "korean"),
    [
        (
            SCENE,
            "two dogs, a cat and a red circle on a blue gradient background",
            "파란색 그러데이션 배경에 있는 개 두 마리, 고양이와 빨간색 원",
        ),
        (
            Scene((art("bear", 0.3), art("apple", 0.7)), "noisy", "orange"),
            "a bear and an apple on a noisy orange background",
            "얼룩진 주황색 배경에 있는 곰과 사과",
        ),
        (
            Scene((Thing("word", "SUN", 0.5, 0.5, 0.5),), "plain", "white"),
            'the word "SUN" on a white background',
            '흰색 배경에 있는 "SUN" 글자',
        ),
    ],
)
def test_caption_lists_things_from_left_to_right(scene: Scene, english: str, korean: str) -> None:
    assert caption(scene, "en") == english
    assert caption(scene, "ko") == korean


def test_relations_are_asked_only_where_they_are_decided() -> None:
    rng = random.Random(0)
    close = Scene((art("dog", 0.5, 0.5), art("cat", 0.58, 0.55)), "plain", "white")
    assert ask_relation(close, "en", rng, True) is None
    assert ask_where(close, "en", rng, True) is None
    apart = Scene((art("dog", 0.2, 0.5), art("cat", 0.8, 0.5)), "plain", "white")
    found = {
        (e.question, e.answer) for _ in range(40) if (e := ask_relation(apart, "en", rng, True))
    }
    assert found == {
        ("Is the dog to the left or to the right of the cat?", "left"),
        ("Is the cat to the left or to the right of the dog?", "right"),
    }


def test_repeated_things_are_never_pointed_out_by_name() -> None:
    for seed in range(60):
        for function in (ask_relation, ask_where):
            exchange = function(SCENE, "en", random.Random(seed), True)
            assert exchange is None or "the dog" not in exchange.question


def test_presence_is_true_and_as_balanced_as_stated() -> None:
    rng = random.Random(0)
    asked = [ask_presence(SCENE, "en", rng, True) for _ in range(2000)]
    for exchange in asked:
        shown = exchange.question in ("Is there a dog?", "Is there a cat?")
        assert (exchange.answer == "yes") == shown
    share = sum(e.answer == "yes" for e in asked) / len(asked)
    assert abs(share - PRESENT_SHARE) < 0.05


@given(st.integers(0, 2**32))
def test_both_languages_are_asked_the_same(seed: int) -> None:
    scene = sampler().draw(random.Random(seed))
    exchanges = examine(scene, random.Random(seed))
    kinds = [e.kind for e in exchanges]
    assert kinds[::2] == kinds[1::2]
    assert {e.language for e in exchanges[::2]} == {"en"}
    assert {e.language for e in exchanges[1::2]} == {"ko"}
    assert all(e.question and e.answer for e in exchanges)


@given(st.integers(0, 2**32))
def test_a_conversation_repeats_no_question(seed: int) -> None:
    rng = random.Random(seed)
    exchanges = converse(sampler().draw(rng), rng, 8)
    asked = [(e.language, e.question) for e in exchanges]
    assert len(set(asked)) == len(asked) <= 8
    assert [e.kind for e in exchanges[:2]] == ["caption", "caption"]


def test_the_tokenizer_corpus_holds_no_word_to_be_read() -> None:
    rng = random.Random(0)
    scenes = [sampler(word_share=1.0).draw(rng) for _ in range(50)]
    words = {t.name for s in scenes for t in s.things if t.kind == "word"}
    texts = list(corpus(scenes, rng))
    assert words and texts
    assert not any(f'"{word}"' in text for word in words for text in texts)
