"""Scores on what was trained on beside scores on what was held out, and which gaps are no chance.

Two sets of pictures are two samples, drawn apart, so that a gap is as unsure as both scores
together: its interval is made of theirs, which keeps their shape near 0 and 1. As with slices, the
intervals of everything that is read hold together 95 times in 100 (Bonferroni).

Ref: Newcombe 1998, Interval estimation for the difference between independent proportions, method
10; Zou and Donner 2008 on any two estimates.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mm.errors import UsageError
from mm.evaluate.intervals import Estimate
from mm.evaluate.records import Record
from mm.evaluate.statistics import interval
from mm.registry import unknown_name_message

OVERALL = "overall"


@dataclass(frozen=True)
class GapRow:
    """A slice in both sets; the gap is the trained score less the held-out one."""

    name: str  # "tag=value", or "overall"
    trained: Estimate
    held_out: Estimate
    gap: Estimate
    is_small: bool  # of too few pictures in either set to be read

    @property
    def verdict(self) -> str:
        """What the interval allows to say."""
        if self.is_small:
            return "too few"
        if not self.gap.is_off_zero:
            return "≈"
        return "better trained on" if self.gap.value > 0 else "better held out"


@dataclass(frozen=True)
class TrainingGap:
    """Everything, the whole sets first."""

    rows: tuple[GapRow, ...]
    one_sided: tuple[str, ...]  # slices of only one of the sets, which the whole scores still hold
    shared: int  # held-out pictures named as a trained one: from two sources, or not held out
    min_items: int

    @property
    def flagged(self) -> tuple[str, ...]:
        """Slices that are better on what was trained on by more than chance."""
        return tuple(row.name for row in self.rows if row.verdict == "better trained on")

    def facts(self) -> dict[str, Any]:
        """As plain data, for JSON and the run's card."""
        return {
            "flagged": list(self.flagged),
            "one_sided": list(self.one_sided),
            "shared": self.shared,
            "min_items": self.min_items,
            "gap": {
                row.name: {
                    "trained": row.trained.facts(),
                    "held_out": row.held_out.facts(),
                    "verdict": row.verdict,
                    **({} if row.is_small else {"gap": row.gap.facts()}),
                }
                for row in self.rows
            },
        }


def training_gap(
    trained: Iterable[Record],
    held_out: Iterable[Record],
    tags: Sequence[str] | None = None,
    min_items: int = 30,
) -> TrainingGap:
    """Compare the scores of one model on two sets, slice by slice.

    Args:
        tags: names of tags; default: all that have two values or more.
        min_items: slices of fewer pictures, in either set, are counted but not read.

    Raises:
        UsageError: a set is empty, neither has a tag that was asked for, or all of the held-out
            one was trained on.
    """
    both = list(trained), list(held_out)
    if not all(both):
        raise UsageError("there are no records of one of the sets: its score cannot be compared")
    asked = [{(r.item, r.question, r.wanted) for r in records} for records in both]
    if asked[1] <= asked[0]:
        raise UsageError(
            "everything that was held out is among what was trained on: give records of two sets"
        )
    shared = {record.item for record in both[0]} & {record.item for record in both[1]}
    slices = [_by_slice(records) for records in both]
    known = sorted({tag for tag, _ in slices[0]} | {tag for tag, _ in slices[1]})
    for tag in tags or ():
        if tag not in known:
            raise UsageError(unknown_name_message("tag", tag, known))
    found = sorted(slices[0].keys() | slices[1].keys())
    values = [tag for tag, _ in found]
    found = [key for key in found if (key[0] in tags if tags else values.count(key[0]) > 1)]
    pairs = {OVERALL: both} | {
        f"{tag}={value}": (slices[0][tag, value], slices[1][tag, value])
        for tag, value in found
        if all((tag, value) in one for one in slices)
    }
    small = {
        name: min(len({record.item for record in records}) for records in pair) < min_items
        for name, pair in pairs.items()
    }
    level = 1 - 0.05 / max(1, len(pairs) - sum(small.values()))
    bounded = all(0 <= record.score <= 1 for records in both for record in records)
    rows = []
    for name, (ours, theirs) in pairs.items():
        one, two = _score(ours, level, bounded), _score(theirs, level, bounded)
        rows.append(GapRow(name, one, two, difference(one, two), small[name]))
    one_sided = tuple(name for name in map("=".join, found) if name not in pairs)
    return TrainingGap(tuple(rows), one_sided, len(shared), min_items)


def difference(one: Estimate, two: Estimate) -> Estimate:
    """One estimate less another of other items, at the level of both."""
    below = math.hypot(one.value - one.low, two.high - two.value)
    above = math.hypot(one.high - one.value, two.value - two.low)
    value = one.value - two.value
    items, n = min(one.items, two.items), min(one.n, two.n)
    return Estimate(value, value - below, value + above, 1, items, n)


def _by_slice(records: Iterable[Record]) -> dict[tuple[str, str], list[Record]]:
    found: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        for pair in record.tags.items():
            found.setdefault(pair, []).append(record)
    return found


def _score(records: Sequence[Record], level: float, bounded: bool) -> Estimate:
    scores = [record.score for record in records]
    return interval(scores, [record.item for record in records], level, bounded)
