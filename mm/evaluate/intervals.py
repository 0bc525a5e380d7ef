"""How sure a number is: intervals over seeds and over items whose answers hang together.

S seeds, I items (pictures with their questions), C columns, F sums, R bootstrap draws.

Questions about one picture stand or fall together, so that what is drawn again is the picture with
all its questions. Seeds and items are two samples, and either alone understates what would change
in a repetition: the standard error of each is found by its own bootstrap, and the two are added.
A percentile interval of three seeds can't be wider than the seeds themselves and holds the truth
three times in four, so an interval is built on the standard error and Student's t, with
Satterthwaite's degrees of freedom. A share near 0 or 1 is no symmetric thing: its interval is
Wilson's, of as many independent cases as would have the same standard error.

Ref: Owen 2007, The pigeonhole bootstrap; Hesterberg 2015, What teachers should know about the
bootstrap, on small samples; Satterthwaite 1946; Korn and Graubard 1998 on effective sample sizes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

DRAWS = 2000
_AT_ONCE = 2_000_000  # numbers drawn at a time, which bounds the memory
Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Proportion:
    """A share of `n` independent cases with its 95 % interval."""

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
        return wilson(self.value, self.n, 1.959964) if self.n else (0.0, 1.0)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:.3f} [{low:.3f}, {high:.3f}] n={self.n}"


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval; `seeds` of 1 means that it knows nothing of other seeds."""

    value: float
    low: float
    high: float
    seeds: int
    items: int  # 0: the measure is one number per run
    n: int = 0  # answers of one seed; 0: not known

    @property
    def excludes_zero(self) -> bool:
        """Whether a difference is one, as far as several seeds can tell."""
        return self.seeds > 1 and self.is_off_zero

    @property
    def is_off_zero(self) -> bool:
        """Whether zero is outside of the interval, for these seeds."""
        return self.low > 0 or self.high < 0

    def facts(self) -> dict[str, Any]:
        """As plain data, for JSON; what is not finite is null."""
        value, low, high = (
            x if math.isfinite(x) else None for x in (self.value, self.low, self.high)
        )
        counts = {"n": self.n, "items": self.items, "seeds": self.seeds}
        return {"value": value, "interval": [low, high], **counts}

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] n={self.n} items={self.items}"


def of_seeds(values: Array, level: float = 0.95) -> Estimate:
    """Interval of a measure that is one number per seed; infinite from one seed.

    Args:
        values: `[S]`.
    """
    error = _error_of_share(values, np.ones(len(values)))
    return _estimate(float(values.mean()), error, 0.0, len(values), 0, level)


def of_items(right: Array, asked: Array, level: float = 0.95, bounded: bool = False) -> Estimate:
    """Interval of a share over seeds and items; from one seed, over items alone.

    Args:
        right: `[S, I]`, right answers (or scores) of every seed to every item. Of a difference:
            those of one variant less those of the other.
        asked: `[S or 1, I]`, the number of answers.
        bounded: the share lies in 0..1, and its interval shall too.
    """
    value = float(right.mean(0).sum() / asked.mean(0).sum())
    seeds, items = right.shape
    asked = np.broadcast_to(asked, right.shape)
    seed_error = _error_of_share(right.mean(1), asked.mean(1))
    item_error = _error_of_share(right.mean(0), asked.mean(0))
    n = round(float(asked.sum()) / seeds)
    return _estimate(value, seed_error, item_error, seeds, items, level, n, bounded)


def of_statistic(
    sums: Array, statistic: Callable[[Array], Array], level: float = 0.95, bounded: bool = False
) -> Estimate:
    """Interval of anything that is computed from sums over the items, such as F1 or a ratio.

    Args:
        sums: `[I, F]`, what each item adds to each of the sums.
        statistic: from sums `[..., F]` to values `[...]`; NaN where it is not defined.
        bounded: the value lies in 0..1.
    """
    items = len(sums)
    value = float(statistic(sums.sum(0)))
    error = standard_errors(statistic(drawn_sums(sums))[:, None], items)[0] if items > 1 else 0.0
    return _estimate(value, 0.0, float(error), 1, items, level, bounded=bounded)


def drawn_sums(sums: Array, draws: int = DRAWS) -> Array:
    """Sums over the items when items are drawn again: `[I, F]` -> `[R, F]`.

    The draws are the same whatever is measured: a table does not change when a row is added to it.
    """
    size = len(sums)
    rng = np.random.default_rng(0)
    found = []
    for start in range(0, draws, step := max(1, _AT_ONCE // size)):
        rows = min(step, draws - start)
        drawn = rng.integers(size, size=(rows, size)) + np.arange(rows)[:, None] * size
        times = np.bincount(drawn.ravel(), minlength=rows * size).reshape(rows, size)
        found.append(times.astype(np.float64) @ sums)
    return np.concatenate(found)


def drawn_shares(right: Array, asked: Array) -> Array:
    """Shares of each column when items are drawn again, NaN where no answer was drawn.

    Args:
        right: `[I, C]`, sums of scores.
        asked: `[I, C]`, numbers of answers.

    Returns:
        `[R, C]`.
    """
    both = drawn_sums(np.concatenate([right, asked], 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        shares: Array = both[:, : right.shape[1]] / both[:, right.shape[1] :]
    return shares


def standard_errors(shares: Array, size: int) -> Array:
    """Standard error `[C]` of drawn shares, unbiased for few rows.

    Args:
        shares: `[R, C]`, of `drawn_shares`.
        size: number of rows that were drawn from.
    """
    held = np.isfinite(shares)
    mean = np.where(held, shares, 0).sum(0) / np.maximum(held.sum(0), 1)
    squares = np.where(held, shares - mean, 0) ** 2
    spread = np.sqrt(squares.sum(0) / np.maximum(held.sum(0), 1))
    errors: Array = spread * math.sqrt(size / (size - 1)) if size > 1 else spread
    return errors


@functools.cache
def t_quantile(level: float, freedom: float) -> float:
    """How many standard errors hold `level` of Student's distribution around its middle."""
    freedom = min(max(freedom, 1.0), 1e4)
    # With x = sqrt(freedom) tan(angle), the density is a power of the cosine.
    angle = np.linspace(0.0, math.pi / 2, 20_001)
    density = np.cos(angle) ** (freedom - 1)
    below = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return math.sqrt(freedom) * math.tan(float(np.interp(level, below / below[-1], angle)))


def wilson(share: float, n: float, z: float) -> tuple[float, float]:
    """Wilson's score interval of a share of `n` cases, `z` standard errors wide."""
    centre = (share * n + z * z / 2) / (n + z * z)
    spread = z * math.sqrt(share * (1 - share) * n + z * z / 4) / (n + z * z)
    return (max(0.0, centre - spread), min(1.0, centre + spread))


def around(
    value: float, error: float, freedom: float, cases: int, level: float, bounded: bool
) -> tuple[float, float]:
    """The interval of a value with a known standard error.

    Args:
        freedom: degrees of freedom of the standard error.
        cases: how many independent cases a share of exactly 0 or 1 is thought to have.
        bounded: the value is a share.
    """
    t = t_quantile(level, freedom)
    if not bounded:
        return value - t * error, value + t * error
    value = min(max(value, 0.0), 1.0)
    spread = value * (1 - value)
    return wilson(value, spread / error**2 if spread and error else cases, t)


def _error_of_share(right: Array, asked: Array) -> float:
    if len(right) < 2:
        return 0.0
    return float(standard_errors(drawn_shares(right[:, None], asked[:, None]), len(right))[0])


def _estimate(
    value: float,
    seed_error: float,
    item_error: float,
    seeds: int,
    items: int,
    level: float,
    n: int = 0,
    bounded: bool = False,
) -> Estimate:
    if seeds < 2 and not items:
        return Estimate(value, -math.inf, math.inf, seeds, items, n)
    variance = seed_error**2 + item_error**2
    parts = [(seed_error, seeds), (item_error, items)]
    below = sum(error**4 / (size - 1) for error, size in parts if size > 1)
    freedom = variance**2 / below if below else max(items, seeds) - 1
    cases = items or seeds
    low, high = around(value, math.sqrt(variance), freedom, cases, level, bounded)
    return Estimate(value, low, high, seeds, items, n)
