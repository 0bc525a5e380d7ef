"""Yes or no, as POPE reads answers: whether a model sees what is not there.

Ref: Li et al. 2023, "Evaluating Object Hallucination in Large Vision-Language Models"; the values
are those of its `evaluate.py`. Beyond it, Korean answers are read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mm.evaluate.intervals import Array
from mm.evaluate.metrics import Metric as Base
from mm.evaluate.metrics import Scored

if TYPE_CHECKING:
    from mm.evaluate.questions import Answered

_NO = frozenset(("No", "no", "not"))
_KOREAN_NO = ("아니", "없")
_OUTCOMES = {(True, True): "tp", (True, False): "fp", (False, False): "tn", (False, True): "fn"}


class Metric(Base):
    """1 where yes and no are told apart; precision, recall and F1 are of "yes"."""

    def score(self, answers: Sequence[Answered]) -> list[Scored]:
        return [_scored(says_yes(a.said), says_yes(a.question.answer)) for a in answers]

    def measures(self, sums: Mapping[str, Array]) -> dict[str, Array]:
        tp, fp, tn, fn = (sums[name] for name in ("tp", "fp", "tn", "fn"))
        with np.errstate(invalid="ignore", divide="ignore"):
            return {
                "precision": tp / (tp + fp),
                "recall": tp / (tp + fn),
                "f1": 2 * tp / (2 * tp + fp + fn),
                "yes_ratio": (tp + fp) / (tp + fp + tn + fn),
                "hallucination": fp / (fp + tn),  # of absent things, the share that is "seen"
            }


def says_yes(text: str) -> bool:
    """Whether an answer's first sentence has no word of denial in it."""
    sentence = text.split(".")[0].replace(",", "")
    denied = any(word in _NO for word in sentence.split(" "))
    return not denied and not any(stem in sentence for stem in _KOREAN_NO)


def _scored(said: bool, wanted: bool) -> Scored:
    counts = dict.fromkeys(_OUTCOMES.values(), 0.0)
    counts[_OUTCOMES[said, wanted]] = 1.0
    return Scored(float(said == wanted), counts)
