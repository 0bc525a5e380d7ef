"""What an answer is worth: module `mm.evaluate.metrics.foo` holds the class `Metric` named `foo`.

A metric scores the answers of a whole task at once, since a caption's worth depends on how common
its words are in the others. What only sums over answers can give, as precision or BLEU, comes from
`measures`: of the sums of each number in `extra`, so that a bootstrap draws sums and not answers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mm.evaluate.intervals import Array
from mm.registry import Registry

if TYPE_CHECKING:
    from mm.evaluate.questions import Answered

REGISTRY = Registry("metric", "mm.evaluate.metrics", "Metric", exclude=("words",))


@dataclass(frozen=True)
class Scored:
    """The worth of one answer, and further numbers about it."""

    score: float
    extra: Mapping[str, float] = field(default_factory=dict)


class Metric(ABC):
    """Scores answers.

    Attributes:
        bounded: whether scores lie in 0..1.
        joined: whether one question asked several times in a row is one with several answers.
    """

    bounded = True
    joined = False

    @abstractmethod
    def score(self, answers: Sequence[Answered]) -> list[Scored]:
        """Score the answers of a task, in order."""

    def measures(self, sums: Mapping[str, Array]) -> dict[str, Array]:
        """Further measures of sums (or means) over answers.

        Args:
            sums: by name in `extra`, each of any shape; all of one shape.
        """
        return {}


def names() -> list[str]:
    """List the known metrics."""
    return REGISTRY.names()


def build(name: str) -> Metric:
    """Make the metric of this name."""
    kind: Any = REGISTRY.get(name)
    metric: Metric = kind()
    return metric
