"""How sure a number is."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Proportion:
    """A share of `n` cases with its 95 % interval."""

    hits: int
    n: int

    @property
    def value(self) -> float:
        """The share itself; NaN of no cases."""
        return self.hits / self.n if self.n else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's score interval, which keeps its coverage near 0 and 1.

        Ref: Wilson 1927; Brown, Cai and DasGupta 2001, section 3.1.1.
        """
        if not self.n:
            return (0.0, 1.0)
        z = 1.959964
        centre = (self.hits + z * z / 2) / (self.n + z * z)
        spread = (
            z * math.sqrt(self.hits * (self.n - self.hits) / self.n + z * z / 4) / (self.n + z * z)
        )
        return (max(0.0, centre - spread), min(1.0, centre + spread))

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:.3f} [{low:.3f}, {high:.3f}] n={self.n}"
