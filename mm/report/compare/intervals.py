"""Intervals of a mean over seeds and items, and of the difference of two.

S seeds, I items, R bootstrap draws.

Seeds and held-out items are two samples, and either alone understates what would change in a
repetition. The standard error of each is found by its own bootstrap, and the two are added. A
percentile interval of three seeds can't be wider than the seeds themselves and holds the truth
three times in four, so the interval is the estimate +- t standard errors, with Satterthwaite's
degrees of freedom.

Ref: Owen 2007, The pigeonhole bootstrap; Hesterberg 2015, What teachers should know about the
bootstrap, on small samples; Satterthwaite 1946.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

DRAWS = 2000
Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval; `seeds` of 1 means that it knows nothing of other seeds."""

    value: float
    low: float
    high: float
    seeds: int
    items: int  # 0: the measure is one number per run

    @property
    def excludes_zero(self) -> bool:
        """Whether a difference is one, as far as several seeds can tell."""
        return self.seeds > 1 and (self.low > 0 or self.high < 0)


def of_seeds(values: Array, level: float = 0.95) -> Estimate:
    """Interval of a measure that is one number per seed; infinite from one seed.

    Args:
        values: `[S]`.
    """
    error = _bootstrap_error(values[:, None], np.ones((1, 1)), over_seeds=True)
    return _estimate(float(values.mean()), error, 0.0, len(values), 0, level)


def of_items(right: Array, asked: Array, level: float = 0.95) -> Estimate:
    """Interval of a share over seeds and items; from one seed, over items alone.

    Args:
        right: `[S, I]`, right answers of every seed to every item. Of a difference: those of one
            variant less those of the other.
        asked: `[S or 1, I]`, the number of answers.
    """
    value = float(right.mean(0).sum() / asked.mean(0).sum())
    seeds, items = right.shape
    seed_error = _bootstrap_error(right, asked, over_seeds=True)
    item_error = _bootstrap_error(right, asked, over_seeds=False)
    return _estimate(value, seed_error, item_error, seeds, items, level)


def t_quantile(level: float, freedom: float) -> float:
    """How many standard errors hold `level` of Student's distribution around its middle."""
    freedom = min(max(freedom, 1.0), 1e4)
    # With x = sqrt(freedom) tan(angle), the density is a power of the cosine.
    angle = np.linspace(0.0, math.pi / 2, 200_001)
    density = np.cos(angle) ** (freedom - 1)
    below = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return math.sqrt(freedom) * math.tan(float(np.interp(level, below / below[-1], angle)))


def _bootstrap_error(right: Array, asked: Array, over_seeds: bool) -> float:
    """Standard error of the share when seeds, or items, are drawn again; unbiased for few."""
    right, asked = (
        right.mean(int(over_seeds)),
        np.broadcast_to(asked, right.shape).mean(int(over_seeds)),
    )
    size = len(right)
    if size < 2:
        return 0.0
    # The same draws whatever is compared: a table does not change when a row is added.
    drawn = np.random.default_rng(0).integers(size, size=(DRAWS, size))
    shares = right[drawn].sum(1) / asked[drawn].sum(1)
    return float(shares.std()) * math.sqrt(size / (size - 1))


def _estimate(
    value: float, seed_error: float, item_error: float, seeds: int, items: int, level: float
) -> Estimate:
    if seeds < 2 and not items:
        return Estimate(value, -math.inf, math.inf, seeds, items)
    variance = seed_error**2 + item_error**2
    spread = 0.0
    if variance > 0:
        parts = [(seed_error, seeds), (item_error, items)]
        below = sum(error**4 / (size - 1) for error, size in parts if size > 1)
        spread = t_quantile(level, variance**2 / below) * math.sqrt(variance)
    return Estimate(value, value - spread, value + spread, seeds, items)
