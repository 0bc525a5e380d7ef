"""What records say, with its uncertainty: a score, a paired difference, and what could be seen.

I pictures with their questions, R draws. Pictures are the cases, as in `mm.evaluate.intervals`.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mm.errors import UsageError
from mm.evaluate.intervals import Array, Estimate, Proportion, of_items, t_quantile
from mm.evaluate.records import Record

FLIPS = 9999
_AT_ONCE = 2_000_000


def interval(
    values: Sequence[float] | Array,
    clusters: Sequence[Hashable],
    level: float = 0.95,
    bounded: bool = False,
) -> Estimate:
    """The mean of values that hang together within their clusters.

    Args:
        values: one per question; of a paired comparison, differences.
        clusters: for each value which picture it belongs to.
        bounded: the mean is a share, whose interval stays in 0..1.
    """
    sums, counts = _by_cluster(values, clusters)
    return of_items(sums[None], counts[None], level, bounded)


def score(*runs: Iterable[Record], level: float = 0.95) -> Estimate:
    """Mean score of one run, or of runs that differ by their seed.

    Raises:
        UsageError: no records, or the runs were not asked the same questions.
    """
    tables = [{(r.item, r.question): r.score for r in run} for run in runs]
    if not tables or not tables[0]:
        raise UsageError("there are no records to take a mean of")
    if any(table.keys() != tables[0].keys() for table in tables):
        raise UsageError(
            "the runs were not asked the same questions: give records of one task and one limit"
        )
    clusters = [item for item, _ in tables[0]]
    rows = [_by_cluster([table[key] for key in tables[0]], clusters) for table in tables]
    bounded = all(0 <= value <= 1 for table in tables for value in table.values())
    return of_items(np.stack([row[0] for row in rows]), rows[0][1][None], level, bounded)


@dataclass(frozen=True)
class Paired:
    """How much better one run is than another on the questions that both were asked."""

    difference: Estimate
    p: float  # of no difference, from flipped signs
    changed: Proportion  # answers that are worded otherwise
    left_out: int  # questions that only one of them was asked


def paired(ours: Iterable[Record], theirs: Iterable[Record], level: float = 0.95) -> Paired:
    """Compare two runs question by question.

    Were there no difference, either's answers to a picture could be the other's: `p` is how often
    swapping them picture by picture gives a difference as large, which holds for few pictures too.

    Raises:
        UsageError: they have no question in common.

    Ref: Edgington and Onghena 2007, Randomization tests; Phipson and Smyth 2010 on the added one.
    """
    one = {(r.item, r.question): r for r in ours}
    two = {(r.item, r.question): r for r in theirs}
    both = [key for key in one if key in two]
    if not both:
        raise UsageError(
            "the two runs have no question in common: give records of the same task on the same set"
        )
    differences = [one[key].score - two[key].score for key in both]
    clusters = [item for item, _ in both]
    changed = sum(one[key].said != two[key].said for key in both)
    return Paired(
        interval(differences, clusters, level),
        flipped_p(_by_cluster(differences, clusters)[0]),
        Proportion(changed, len(both)),
        len(one) + len(two) - 2 * len(both),
    )


def flipped_p(sums: Array, flips: int = FLIPS) -> float:
    """Share of sign flips whose total is as far from zero as that of `sums` `[I]`."""
    sums = sums[sums != 0]
    seen = abs(sums.sum()) - 1e-9
    rng = np.random.default_rng(0)
    as_far = 0
    for start in range(0, flips, step := max(1, _AT_ONCE // max(len(sums), 1))):
        rows = min(step, flips - start)
        signs = rng.integers(2, size=(rows, len(sums)), dtype=np.int8) * 2.0 - 1
        as_far += int((np.abs(signs @ sums) >= seen).sum())
    return (as_far + 1) / (flips + 1)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """p-values of several comparisons such that any false one at all is rare.

    Ref: Holm 1979.
    """
    ordered = sorted(p_values, key=lambda name: p_values[name])
    adjusted, least = {}, 0.0
    for rank, name in enumerate(ordered):
        least = max(least, min(1.0, (len(ordered) - rank) * p_values[name]))
        adjusted[name] = least
    return {name: adjusted[name] for name in p_values}


def benjamini_hochberg(p_values: Mapping[str, float]) -> dict[str, float]:
    """p-values of many comparisons such that false ones are a small share of those taken as true.

    Ref: Benjamini and Hochberg 1995.
    """
    ordered = sorted(p_values, key=lambda name: p_values[name])
    adjusted, least = {}, 1.0
    for rank in range(len(ordered), 0, -1):
        least = min(least, p_values[ordered[rank - 1]] * len(ordered) / rank)
        adjusted[ordered[rank - 1]] = least
    return {name: adjusted[name] for name in p_values}


@dataclass(frozen=True)
class Power:
    """What a set of questions can show: the smallest difference that is mostly seen."""

    smallest: float  # seen in `power` of all repetitions
    power: float
    items: int
    is_paired: bool  # else of two models whose answers have nothing to do with each other

    def items_for(self, difference: float) -> int:
        """How many pictures would be needed to see a difference."""
        return math.ceil(self.items * (self.smallest / abs(difference)) ** 2)


def power_of(estimate: Estimate, power: float = 0.8, is_paired: bool = True) -> Power:
    """The smallest difference that the pictures of an estimate can show, tested at 5 %.

    Args:
        estimate: an unbounded 95 % interval: of a paired difference, or, with `is_paired=False`, of
            one run's mean, which is all that is known before there is a second run. Two runs
            mostly agree on what is hard, so that the second way asks for more than is needed.
    """
    freedom = max(estimate.items, 2) - 1
    error = (estimate.high - estimate.low) / 2 / t_quantile(0.95, freedom)
    error *= 1 if is_paired else math.sqrt(2)
    # Half of what lies outside of 60 % is 20 %, by which the estimate may fall short.
    reach = t_quantile(0.95, freedom) + t_quantile(2 * power - 1, freedom)
    return Power(reach * error, power, estimate.items, is_paired)


def _by_cluster(
    values: Sequence[float] | Array, clusters: Sequence[Hashable]
) -> tuple[Array, Array]:
    """Sum and number of the values of each cluster, in the order of first appearance."""
    places: dict[Hashable, int] = {}
    rows = [places.setdefault(cluster, len(places)) for cluster in clusters]
    sums = np.bincount(rows, np.asarray(values, np.float64), len(places)).astype(np.float64)
    return sums, np.bincount(rows, minlength=len(places)).astype(np.float64)
