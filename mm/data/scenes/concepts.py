"""What a scene may show: named things, plain shapes and colours, in English and Korean."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

LANGUAGES = ("en", "ko")

# Colour names with the sRGB value they are drawn around. The first eight are easy-VQA's.
COLOURS: dict[str, tuple[str, tuple[int, int, int]]] = {
    "red": ("빨간색", (225, 35, 35)),
    "blue": ("파란색", (40, 70, 220)),
    "green": ("초록색", (35, 150, 50)),
    "yellow": ("노란색", (250, 220, 40)),
    "black": ("검은색", (15, 15, 15)),
    "gray": ("회색", (128, 128, 128)),
    "brown": ("갈색", (125, 75, 35)),
    "teal": ("청록색", (0, 135, 135)),
    "white": ("흰색", (250, 250, 250)),
    "orange": ("주황색", (250, 135, 20)),
    "purple": ("보라색", (125, 50, 175)),
    "pink": ("분홍색", (250, 155, 195)),
}

SHAPES: dict[str, str] = {
    "circle": "원",
    "rectangle": "사각형",
    "triangle": "삼각형",
    "diamond": "마름모",
    "hexagon": "육각형",
}

# "an" follows the sound, not the letter; these are the names where they differ.
_ARTICLE_EXCEPTIONS = {"unicorn": "a", "hourglass": "an"}

_IRREGULAR_PLURALS = {
    "mouse": "mice",
    "computer mouse": "computer mice",
    "die": "dice",
    "wolf": "wolves",
    "scarf": "scarves",
    "maple leaf": "maple leaves",
    "loaf of bread": "loaves of bread",
    "sheep": "sheep",
    "fish": "fish",
    "deer": "deer",
    "shrimp": "shrimp",
    "squid": "squid",
    "sushi": "sushi",
    "tomato": "tomatoes",
    "potato": "potatoes",
    "mango": "mangoes",
    "volcano": "volcanoes",
    "tornado": "tornadoes",
    "snowman": "snowmen",
    "bow and arrow": "bows and arrows",
}


@dataclass(frozen=True)
class Concept:
    """One thing that artwork depicts; `index` is its row in `concepts.tsv`."""

    index: int
    english: str
    korean: str
    category_english: str
    category_korean: str
    glyphs: tuple[str, ...]

    def name(self, language: str) -> str:
        """The bare name, without article or particle."""
        return self.english if language == "en" else self.korean

    def category(self, language: str) -> str:
        """The name of the kind of thing this is."""
        return self.category_english if language == "en" else self.category_korean


@functools.cache
def concepts() -> tuple[Concept, ...]:
    """Every concept, in the order of the table (the order is part of a checkpoint's meaning)."""
    rows = (Path(__file__).parent / "concepts.tsv").read_text(encoding="utf-8").splitlines()
    table: list[Concept] = []
    for row in rows:
        if not row or row.startswith("#"):
            continue
        english, korean, category_en, category_ko, glyphs = row.split("\t")
        table.append(
            Concept(len(table), english, korean, category_en, category_ko, tuple(glyphs.split()))
        )
    return tuple(table)


@functools.cache
def concept_by_name() -> dict[str, Concept]:
    """Concepts by their English name, which is unique."""
    return {concept.english: concept for concept in concepts()}


def article(noun: str) -> str:
    """`a` or `an`, as the noun sounds."""
    first = noun.split()[0]
    return _ARTICLE_EXCEPTIONS.get(first, "an" if noun[0].lower() in "aeiou" else "a")


def plural(noun: str) -> str:
    """The English plural of a name; of `cup of tea` the head is inflected."""
    if noun in _IRREGULAR_PLURALS:
        return _IRREGULAR_PLURALS[noun]
    for joint in (" of ", " with "):
        if joint in noun:
            head, tail = noun.split(joint, 1)
            return plural(head) + joint + tail
    if noun.endswith(("s", "x", "z", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"


def has_final_consonant(word: str) -> bool:
    """Whether a Korean word ends in a closed syllable, which decides its particle."""
    last = word[-1]
    if "가" <= last <= "힣":
        return (ord(last) - ord("가")) % 28 != 0
    # Latin letters and digits as they are read aloud in Korean: 엘, 엠, 엔, 알 close the syllable.
    return last.upper() in "LMNR013678"


def particle(word: str, closed: str, open_: str) -> str:
    """The word and the particle that fits its end: `particle("개", "이", "가")` is 개가."""
    return word + (closed if has_final_consonant(word) else open_)
