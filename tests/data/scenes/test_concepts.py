import pytest

from mm.data.scenes.concepts import (
    article,
    concept_by_name,
    concepts,
    has_final_consonant,
    particle,
    plural,
)


def test_concepts_have_unique_names_in_both_languages() -> None:
    table = concepts()
    assert len({c.english for c in table}) == len(table) == len(concept_by_name())
    # Korean has a few homonyms (양 is a sheep and a quantity), but none in the table.
    assert len({c.korean for c in table}) == len(table)
    assert [c.index for c in table] == list(range(len(table)))


@pytest.mark.parametrize(
    ("noun", "expected"),
    [("apple", "an"), ("dog", "a"), ("hourglass", "an"), ("unicorn", "a"), ("ear of corn", "an")],
)
def test_article_follows_the_sound(noun: str, expected: str) -> None:
    assert article(noun) == expected


@pytest.mark.parametrize(
    ("noun", "expected"),
    [
        ("dog", "dogs"),
        ("box of fries", "boxes of fries"),
        ("pair of scissors", "pairs of scissors"),
        ("loaf of bread", "loaves of bread"),
        ("bowl with spoon", "bowls with spoon"),
        ("butterfly", "butterflies"),
        ("key", "keys"),
        ("snowman", "snowmen"),
        ("red circle", "red circles"),
    ],
)
def test_plural_inflects_the_head(noun: str, expected: str) -> None:
    assert plural(noun) == expected


@pytest.mark.parametrize(
    ("word", "closed"), [("개", False), ("곰", True), ("원", True), ("SUN", True), ("SKY", False)]
)
def test_final_consonant_decides_the_particle(word: str, closed: bool) -> None:
    assert has_final_consonant(word) is closed
    assert particle(word, "이", "가") == word + ("이" if closed else "가")
