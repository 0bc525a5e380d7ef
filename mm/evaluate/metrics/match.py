"""The expected word whatever its case and punctuation, as GQA's answers are compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mm.evaluate.metrics import Metric as Base
from mm.evaluate.metrics import Scored
from mm.evaluate.metrics.words import words

if TYPE_CHECKING:
    from mm.evaluate.questions import Answered


class Metric(Base):
    """1 where the words of the answer are those of an accepted one."""

    def score(self, answers: Sequence[Answered]) -> list[Scored]:
        return [
            Scored(float(words(a.said) in [words(text) for text in a.question.accepted]))
            for a in answers
        ]
