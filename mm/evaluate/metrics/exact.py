"""The expected text to the letter, after Unicode normalisation, without a final full stop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mm.evaluate.metrics import Metric as Base
from mm.evaluate.metrics import Scored

if TYPE_CHECKING:
    from mm.evaluate.questions import Answered


class Metric(Base):
    """1 where the answer is an accepted one; `token_f1` is for reading beside it only."""

    def score(self, answers: Sequence[Answered]) -> list[Scored]:
        return [Scored(float(a.is_right), {"token_f1": a.token_f1}) for a in answers]
