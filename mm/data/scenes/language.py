"""What is said about a scene: captions, questions and answers in English and Korean.

Every question has one right answer that the scene alone decides. Of several wordings the first is
the canonical one, which evaluation uses; training draws among all.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from mm.data.scenes.concepts import (
    COLOURS,
    LANGUAGES,
    SHAPES,
    article,
    concept_by_name,
    concepts,
    particle,
    plural,
)
from mm.data.scenes.layout import RELATION_MARGIN, Scene, Thing

DECLINE = {"en": "I can't tell", "ko": "잘 모르겠어요"}
CAPTION_PROMPTS = {
    "en": (
        "Describe the picture.",
        "Describe the image.",
        "What do you see?",
        "Caption this picture.",
    ),
    "ko": (
        "그림을 설명해 주세요.",
        "이미지를 설명해 주세요.",
        "무엇이 보이나요?",
        "이 그림을 묘사해 주세요.",
    ),
}
_NUMBERS = {
    "en": ("zero", "one", "two", "three", "four"),
    "ko": ("영", "한", "두", "세", "네"),
}
_GROUNDS = {
    "en": {
        "plain": "{} background",
        "gradient": "{} gradient background",
        "noisy": "noisy {} background",
    },
    "ko": {"plain": "{} 배경", "gradient": "{} 그러데이션 배경", "noisy": "얼룩진 {} 배경"},
}
_YES_NO = {"en": ("yes", "no"), "ko": ("네", "아니요")}
_DIRECTIONS = {
    "left": ("to the left of", "왼쪽"),
    "right": ("to the right of", "오른쪽"),
    "above": ("above", "위"),
    "below": ("below", "아래"),
}
# Share of presence questions whose answer is yes. Above a half on purpose: on artwork that a model
# is unsure of, a balanced diet ends in "no" too readily.
PRESENT_SHARE = 0.6


@dataclass(frozen=True)
class Exchange:
    """A question about one picture and its answer. `kind` groups exchanges for evaluation."""

    kind: str
    language: str
    question: str
    answer: str


# --- Names --------------------------------------------------------------------------------------


def thing_name(thing: Thing, language: str) -> str:
    """`dog`, `red circle`, `word "SUN"`; in Korean 개, 빨간색 원, "SUN" 글자."""
    english = language == "en"
    if thing.kind == "art":
        return concept_by_name()[thing.name].name(language)
    if thing.kind == "shape":
        colour = thing.colour if english else COLOURS[thing.colour][0]
        return f"{colour} {thing.name if english else SHAPES[thing.name]}"
    return f'word "{thing.name}"' if english else f'"{thing.name}" 글자'


def _counter(thing: Thing) -> str:
    """The Korean counting word: 마리 for animals, 대 for vehicles, 개 for the rest."""
    if thing.kind == "art":
        category = concept_by_name()[thing.name].category_english
        return {"animal": "마리", "vehicle": "대"}.get(category, "개")
    return "개"


def _counted(thing: Thing, count: int, language: str) -> str:
    name = thing_name(thing, language)
    if language == "ko":
        return name if count == 1 else f"{name} {_NUMBERS['ko'][count]} {_counter(thing)}"
    if count > 1:
        return f"{_NUMBERS['en'][count]} {plural(name)}"
    return f"the {name}" if thing.kind == "word" else f"{article(name)} {name}"


def _groups(scene: Scene) -> list[tuple[Thing, int]]:
    """Things that are counted together, in the order of their leftmost member."""
    counts: dict[tuple[str, str, str], int] = {}
    for thing in scene.things:
        counts[thing.key] = counts.get(thing.key, 0) + 1
    first: dict[tuple[str, str, str], Thing] = {}
    for thing in scene.things:
        first.setdefault(thing.key, thing)
    return [(thing, counts[key]) for key, thing in first.items()]


def _unique(scene: Scene) -> list[Thing]:
    """Things that their name alone points out. Words are left to the reading questions."""
    return [thing for thing, count in _groups(scene) if count == 1 and thing.kind != "word"]


def caption(scene: Scene, language: str) -> str:
    """Every thing from left to right, then the ground."""
    phrases = [_counted(thing, count, language) for thing, count in _groups(scene)]
    colour = scene.ground_colour if language == "en" else COLOURS[scene.ground_colour][0]
    ground = _GROUNDS[language][scene.ground].format(colour)
    if language == "en":
        listed = (
            phrases[-1] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"
        )
        return f"{listed} on {article(ground)} {ground}"
    if len(phrases) > 1:
        phrases[-2:] = [f"{particle(phrases[-2], '과', '와')} {phrases[-1]}"]
    return f"{ground}에 있는 {', '.join(phrases)}"


# --- Questions: each returns an Exchange, or None where the scene has no such question -----------


def ask_caption(scene: Scene, language: str, rng: random.Random, canonical: bool) -> Exchange:
    question = _pick(CAPTION_PROMPTS[language], rng, canonical)
    return Exchange("caption", language, question, caption(scene, language))


def ask_name(scene: Scene, language: str, rng: random.Random, canonical: bool) -> Exchange | None:
    if len(scene.things) != 1 or scene.things[0].kind != "art":
        return None
    wordings = {
        "en": (
            "What is this?",
            "What is in the picture?",
            "What is shown here?",
            "Name the object.",
        ),
        "ko": (
            "이것은 무엇인가요?",
            "그림에 무엇이 있나요?",
            "무엇을 그린 그림인가요?",
            "이게 뭐예요?",
        ),
    }
    answer = thing_name(scene.things[0], language)
    return Exchange("name", language, _pick(wordings[language], rng, canonical), answer)


def ask_category(
    scene: Scene, language: str, rng: random.Random, canonical: bool
) -> Exchange | None:
    arts = [t for t in scene.things if t.kind == "art"]
    if not arts or len({t.name for t in arts}) > 1 or len(arts) < len(scene.things):
        return None
    wordings = {
        "en": ("What kind of thing is this?", "What kind of thing is in the picture?"),
        "ko": ("이것은 어떤 종류인가요?", "그림에 있는 것은 어떤 종류인가요?"),
    }
    answer = concept_by_name()[arts[0].name].category(language)
    return Exchange("category", language, _pick(wordings[language], rng, canonical), answer)


def ask_presence(scene: Scene, language: str, rng: random.Random, canonical: bool) -> Exchange:
    """Is there a ...? Half of the absent things are of a category that the scene shows."""
    shown = {t.name for t in scene.things if t.kind == "art"}
    yes, no = _YES_NO[language]
    if shown and rng.random() < PRESENT_SHARE:
        concept, answer = concept_by_name()[rng.choice(sorted(shown))], yes
    else:
        answer = no
        near = sorted({concept_by_name()[name].category_english for name in shown})
        pool = [c for c in concepts() if c.category_english in near] if rng.random() < 0.5 else []
        pool = [c for c in pool or concepts() if c.english not in shown]
        concept = rng.choice(pool)
    name = concept.name(language)
    if language == "en":
        noun = f"{article(name)} {name}"
        wordings: tuple[str, ...] = (
            f"Is there {noun}?",
            f"Is there {noun} in the picture?",
            f"Do you see {noun}?",
        )
    else:
        subject = particle(name, "이", "가")
        wordings = (f"{subject} 있나요?", f"그림에 {subject} 있나요?", f"{subject} 보이나요?")
    kind = "presence_yes" if answer == yes else "presence_no"
    return Exchange(kind, language, _pick(wordings, rng, canonical), answer)


def ask_count(scene: Scene, language: str, rng: random.Random, canonical: bool) -> Exchange | None:
    groups = [(t, n) for t, n in _groups(scene) if t.kind != "word"]
    if not groups:
        return None
    repeated = [group for group in groups if group[1] > 1]
    thing, count = rng.choice(repeated if repeated and rng.random() < 0.6 else groups)
    name = thing_name(thing, language)
    if language == "en":
        many = plural(name)
        question = _pick((f"How many {many} are there?", f"Count the {many}."), rng, canonical)
        return Exchange("count", language, question, _NUMBERS["en"][count])
    question = _pick(
        (f"{particle(name, '이', '가')} 몇 {_counter(thing)} 있나요?",), rng, canonical
    )
    return Exchange("count", language, question, f"{_NUMBERS['ko'][count]} {_counter(thing)}")


def ask_total(scene: Scene, language: str, rng: random.Random, canonical: bool) -> Exchange:
    wordings = {
        "en": ("How many things are there?", "How many objects are in the picture?"),
        "ko": ("모두 몇 개 있나요?", "그림에 물건이 몇 개 있나요?"),
    }
    number = _NUMBERS[language][len(scene.things)]
    answer = number if language == "en" else f"{number} 개"
    return Exchange("count", language, _pick(wordings[language], rng, canonical), answer)


def _decided(a: Thing, b: Thing) -> list[str]:
    """The directions in which `a` lies from `b` beyond doubt."""
    found = []
    if abs(a.x - b.x) >= RELATION_MARGIN:
        found.append("left" if a.x < b.x else "right")
    if abs(a.y - b.y) >= RELATION_MARGIN:
        found.append("above" if a.y < b.y else "below")
    return found


def ask_relation(
    scene: Scene, language: str, rng: random.Random, canonical: bool
) -> Exchange | None:
    """Left or right, above or below: of two things that are both named in the question."""
    unique = _unique(scene)
    if len(unique) < 2:
        return None
    a, b = rng.sample(unique, 2)
    directions = _decided(a, b)
    if not directions:
        return None
    direction = rng.choice(directions)
    first, second = thing_name(a, language), thing_name(b, language)
    sideways = direction in ("left", "right")
    if language == "en":
        options = "to the left or to the right of" if sideways else "above or below"
        return Exchange("relation", language, f"Is the {first} {options} the {second}?", direction)
    options = "왼쪽과 오른쪽 중" if sideways else "위와 아래 중"
    question = f"{particle(first, '은', '는')} {second}의 {options} 어디에 있나요?"
    return Exchange("relation", language, question, _DIRECTIONS[direction][1])


def ask_where(scene: Scene, language: str, rng: random.Random, canonical: bool) -> Exchange | None:
    """What stands in a direction of a thing; only where exactly one does and none is in doubt."""
    unique = _unique(scene)
    rng.shuffle(unique)
    for anchor in unique:
        others = [t for t in scene.things if t is not anchor]
        for direction in rng.sample(tuple(_DIRECTIONS), 4):
            axis = "x" if direction in ("left", "right") else "y"
            sign = 1 if direction in ("right", "below") else -1
            offsets = [sign * (getattr(t, axis) - getattr(anchor, axis)) for t in others]
            hits = [
                t for t, offset in zip(others, offsets, strict=True) if offset >= RELATION_MARGIN
            ]
            doubtful = any(0 < offset < RELATION_MARGIN for offset in offsets)
            if len(hits) != 1 or doubtful or hits[0].kind == "word":
                continue
            name, answer = thing_name(anchor, language), thing_name(hits[0], language)
            if language == "en":
                question = f"What is {_DIRECTIONS[direction][0]} the {name}?"
            else:
                question = f"{name}의 {_DIRECTIONS[direction][1]}에는 무엇이 있나요?"
            return Exchange("where", language, question, answer)
    return None


def ask_ground(scene: Scene, language: str, rng: random.Random, canonical: bool) -> Exchange:
    wordings = {
        "en": ("What color is the background?", "What colour is the background?"),
        "ko": ("배경은 무슨 색인가요?", "배경색은 무엇인가요?"),
    }
    colour = scene.ground_colour if language == "en" else COLOURS[scene.ground_colour][0]
    return Exchange("ground", language, _pick(wordings[language], rng, canonical), colour)


def ask_colour(scene: Scene, language: str, rng: random.Random, canonical: bool) -> Exchange | None:
    shapes = [t for t in scene.things if t.kind == "shape"]
    single = [t for t in shapes if sum(o.name == t.name for o in shapes) == 1]
    if not single:
        return None
    thing = rng.choice(single)
    if language == "en":
        wordings: tuple[str, ...] = (
            f"What color is the {thing.name}?",
            f"What colour is the {thing.name}?",
        )
        return Exchange("colour", language, _pick(wordings, rng, canonical), thing.colour)
    question = f"{particle(SHAPES[thing.name], '은', '는')} 무슨 색인가요?"
    return Exchange("colour", language, question, COLOURS[thing.colour][0])


def ask_shape(scene: Scene, language: str, rng: random.Random, canonical: bool) -> Exchange | None:
    shapes = [t for t in scene.things if t.kind == "shape"]
    if len(shapes) != 1:
        return None
    if language == "en":
        wordings: tuple[str, ...] = ("What shape is in the picture?", "Which shape do you see?")
        return Exchange("shape", language, _pick(wordings, rng, canonical), shapes[0].name)
    wordings = ("그림에 있는 도형은 무엇인가요?", "어떤 도형이 보이나요?")
    return Exchange("shape", language, _pick(wordings, rng, canonical), SHAPES[shapes[0].name])


def ask_reading(
    scene: Scene, language: str, rng: random.Random, canonical: bool
) -> Exchange | None:
    words = [t for t in scene.things if t.kind == "word"]
    if not words:
        return None
    wordings = {
        "en": ("What does the text say?", "Read the word.", "What word is written?"),
        "ko": ("뭐라고 쓰여 있나요?", "글자를 읽어 주세요.", "무슨 글자인가요?"),
    }
    return Exchange("reading", language, _pick(wordings[language], rng, canonical), words[0].name)


Question = Callable[[Scene, str, random.Random, bool], "Exchange | None"]
# Questions with their weight in training.
QUESTIONS: tuple[tuple[Question, float], ...] = (
    (ask_name, 2.0),
    (ask_category, 0.6),
    (ask_presence, 2.0),
    (ask_count, 1.2),
    (ask_total, 0.4),
    (ask_relation, 2.0),
    (ask_where, 2.0),
    (ask_ground, 0.3),
    (ask_colour, 0.6),
    (ask_shape, 0.4),
    (ask_reading, 1.6),
)


def converse(scene: Scene, rng: random.Random, count: int) -> list[Exchange]:
    """`count` exchanges for training: a caption in each language, then questions, none twice."""
    exchanges = [ask_caption(scene, language, rng, False) for language in LANGUAGES]
    seen = {(e.language, e.question) for e in exchanges}
    functions = [function for function, _ in QUESTIONS]
    weights = [weight for _, weight in QUESTIONS]
    for _ in range(4 * count):
        if len(exchanges) >= count:
            break
        question = rng.choices(functions, weights)[0]
        exchange = question(scene, rng.choice(LANGUAGES), rng, False)
        if exchange and (exchange.language, exchange.question) not in seen:
            seen.add((exchange.language, exchange.question))
            exchanges.append(exchange)
    return exchanges


def examine(scene: Scene, rng: random.Random) -> list[Exchange]:
    """Every kind of question that the scene allows, in canonical wording, in each language."""
    exchanges: list[Exchange] = []
    for function in (ask_caption, *(function for function, _ in QUESTIONS)):
        seed = rng.random()
        for language in LANGUAGES:
            exchange = function(scene, language, random.Random(seed), True)
            if exchange:
                exchanges.append(exchange)
    return exchanges


def corpus(scenes: Iterable[Scene], rng: random.Random) -> Iterable[str]:
    """Text to train a tokenizer on, without the words to be read, which are to be spelled."""
    for scene in scenes:
        for exchange in converse(scene, rng, 12):
            for text in (exchange.question, exchange.answer):
                for thing in scene.things:
                    if thing.kind == "word":
                        text = text.replace(thing.name, "")
                yield text


def _pick(wordings: Sequence[str], rng: random.Random, canonical: bool) -> str:
    return wordings[0] if canonical else rng.choice(wordings)
