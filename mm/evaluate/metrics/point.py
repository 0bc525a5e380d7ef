"""Pointing: whether the named point lies on the thing that was asked for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mm.evaluate.metrics import Metric as Base
from mm.evaluate.metrics import Scored

if TYPE_CHECKING:
    from mm.evaluate.questions import Answered

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
# <point x="..." y="...">
_MARKED = re.compile(
    r"x\d*\s*=\s*\"?([\d.]+)\"?\s+y\d*\s*=\s*\"?([\d.]+)"
)  # <point x="..." y="...">


class Metric(Base):
    """1 where the first point of the answer lies in an accepted box; `unread`: no point was given.

    Boxes are four numbers, left, top, right and bottom; points two, of the same measure: the task
    says which, as parts of 1, per cent, thousandths or pixels.
    """

    def score(self, answers: Sequence[Answered]) -> list[Scored]:
        return [_scored(point_of(a.said), a.question.accepted) for a in answers]


def point_of(text: str) -> tuple[float, float] | None:
    """Return the first point (or the middle of the first box) that a text names."""
    if marked := _MARKED.search(text):
        return float(marked.group(1)), float(marked.group(2))
    # Names of the form point_2d hold no coordinate.
    numbers = [float(n) for n in _NUMBER.findall(re.sub(r"[A-Za-z_]+\d+\w*", " ", text))]
    if len(numbers) == 4:
        return (numbers[0] + numbers[2]) / 2, (numbers[1] + numbers[3]) / 2
    return (numbers[0], numbers[1]) if len(numbers) >= 2 else None


def _scored(point: tuple[float, float] | None, boxes: Sequence[str]) -> Scored:
    if point is None:
        return Scored(0.0, {"unread": 1.0})
    x, y = point
    for box in boxes:
        left, top, right, bottom = (float(n) for n in _NUMBER.findall(box))
        if left <= x <= right and top <= y <= bottom:
            return Scored(1.0, {"unread": 0.0})
    return Scored(0.0, {"unread": 0.0})
