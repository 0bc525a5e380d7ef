"""Multiple choice: which of the offered answers was given, as a letter or in its words."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mm.evaluate.intervals import Array
from mm.evaluate.metrics import Metric as Base
from mm.evaluate.metrics import Scored
from mm.evaluate.metrics.words import words

if TYPE_CHECKING:
    from mm.evaluate.questions import Answered

LETTERS = string.ascii_uppercase
# "B", "(B)", "B.", "B: a cat"; or after a word that announces it: "The answer is (B)".
_FIRST = re.compile(r"^\W*([A-Z])(?:\W|$)")
_ANNOUNCED = re.compile(r"(?i:answer|option|choice)(?i: is)?\W*([A-Z])(?:\W|$)")


class Metric(Base):
    """1 where the right one was chosen; `unread` is 1 where no choice could be made out.

    `circular` is the share of questions that are right in every rotation of their choices.
    """

    def score(self, answers: Sequence[Answered]) -> list[Scored]:
        found = []
        for answered in answers:
            choices = answered.question.choices
            number = chosen(answered.said, choices)
            right = number is not None and choices[number] == answered.question.answer
            found.append(Scored(float(right), {"unread": float(number is None)}))
        return _with_rotations(answers, found)

    def measures(self, sums: Mapping[str, Array]) -> dict[str, Array]:
        if "rounds" not in sums:
            return {}
        return {"circular": sums["whole_rounds"] / sums["rounds"]}


def _with_rotations(answers: Sequence[Answered], scored: list[Scored]) -> list[Scored]:
    """Note of each question that is asked in rotations its part of a round, and of a right one."""
    rounds: dict[str, list[int]] = {}
    for number, answered in enumerate(answers):
        if "rotation" in answered.question.tags:
            rounds.setdefault(answered.question.id.rsplit("/", 1)[0], []).append(number)
    for numbers in rounds.values():
        right = float(all(scored[n].score for n in numbers))
        part = {"rounds": 1 / len(numbers), "whole_rounds": right / len(numbers)}
        for n in numbers:
            scored[n] = Scored(scored[n].score, {**scored[n].extra, **part})
    return scored


def chosen(said: str, choices: Sequence[str]) -> int | None:
    """Return the number of the choice that an answer names; None if it names none."""
    given = words(said)
    same = [number for number, text in enumerate(choices) if words(text) == given]
    if len(same) == 1:
        return same[0]
    for pattern in (_FIRST, _ANNOUNCED):
        if match := pattern.search(said.strip()):
            number = LETTERS.index(match.group(1))
            # "A dog is there" begins with an article.
            is_article = pattern is _FIRST and re.match(r"^A [a-z]", said.strip())
            if number < len(choices) and not is_article:
                return number
    held = [n for n, text in enumerate(choices) if _holds(given, words(text))]
    return held[0] if len(held) == 1 else None


def lettered(question: str, choices: Sequence[str]) -> str:
    """Write the choices below a question, a letter in front of each."""
    rows = [f"{letter}. {text}" for letter, text in zip(LETTERS, choices, strict=False)]
    return "\n".join([question, *rows])


def _holds(text: Sequence[str], part: Sequence[str]) -> bool:
    size = len(part)
    return size > 0 and any(
        list(text[start : start + size]) == list(part) for start in range(len(text) - size + 1)
    )
