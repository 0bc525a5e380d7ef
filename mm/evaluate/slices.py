"""Scores by slice: which kinds of question, language or thing a model is worse at, and how surely.

I pictures, C slices, R draws.

Whoever looks at twenty slices finds a bad one by chance. So slices of few pictures are counted but
not read, and the intervals of all others hold together 95 times in 100 (Bonferroni: slices overlap
and share pictures, and it asks nothing about that). A slice is compared with the rest of its tag on
the same draws of pictures, as the same picture may be asked in both.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mm.errors import UsageError
from mm.evaluate.intervals import Array, Estimate, around, drawn_shares, standard_errors
from mm.evaluate.records import Record
from mm.evaluate.statistics import score
from mm.registry import unknown_name_message

LANGUAGE = "language"


@dataclass(frozen=True)
class Slice:
    """Records whose tag has a value."""

    tag: str
    value: str
    score: Estimate
    to_rest: Estimate | None  # less the score of the tag's other values; None: there are none
    is_small: bool  # of too few pictures to be read

    @property
    def verdict(self) -> str:
        """What the interval allows to say."""
        if self.is_small:
            return "too few"
        if self.to_rest is None or not self.to_rest.is_off_zero:
            return "≈"
        return "lower" if self.to_rest.value < 0 else "higher"


@dataclass(frozen=True)
class Gap:
    """Best less worst of a tag's slices that can be read."""

    tag: str
    best: str
    worst: str
    difference: Estimate  # holds for whichever two were best and worst


@dataclass(frozen=True)
class SideBySide:
    """One slice in two languages; the difference is the second's less the first's."""

    name: str
    languages: tuple[str, str]
    scores: tuple[Estimate, Estimate]
    difference: Estimate
    is_small: bool


@dataclass(frozen=True)
class Slices:
    """Everything, in the order of tags and of falling scores."""

    overall: Estimate
    rows: tuple[Slice, ...]
    gaps: tuple[Gap, ...]
    languages: tuple[SideBySide, ...]
    min_items: int

    @property
    def worst(self) -> Slice | None:
        """The lowest score that can be read."""
        readable = [row for row in self.rows if not row.is_small]
        return min(readable, key=lambda row: row.score.value) if readable else None

    def facts(self) -> dict[str, Any]:
        """As plain data, for JSON and the run's card."""
        by_tag: dict[str, dict[str, Any]] = {}
        for row in self.rows:
            by_tag.setdefault(row.tag, {})[row.value] = {
                **row.score.facts(),
                "verdict": row.verdict,
                **({"to_rest": row.to_rest.facts()} if row.to_rest and not row.is_small else {}),
            }
        return {
            "overall": self.overall.facts(),
            "min_items": self.min_items,
            "worst": f"{self.worst.tag}={self.worst.value}" if self.worst else None,
            "slices": by_tag,
            "gaps": {
                gap.tag: {"best": gap.best, "worst": gap.worst, **gap.difference.facts()}
                for gap in self.gaps
            },
            "languages": {
                row.name: {
                    **{language: score.facts() for language, score in _zip(row)},
                    "difference": row.difference.facts(),
                }
                for row in self.languages
            },
        }


def slices(
    records: Iterable[Record], tags: Sequence[str] | None = None, min_items: int = 30
) -> Slices:
    """Score every slice.

    Args:
        tags: names of tags; default: all that have two values or more.
        min_items: slices of fewer pictures are counted but not read.

    Raises:
        UsageError: no records, or none that has a tag that was asked for.
    """
    table = _Table(list(records))
    known = sorted({tag for record in table.records for tag in record.tags})
    for tag in tags or ():
        if tag not in known:
            raise UsageError(unknown_name_message("tag", tag, known))
    values = {tag: table.values(tag) for tag in tags or known}
    values = {tag: found for tag, found in values.items() if tags or len(found) > 1}
    others = [{tag: value} for tag in values if tag != LANGUAGE for value in values[tag]]
    languages = _two_languages(table)
    overall = score(table.records)
    table.draw(
        [{tag: value} for tag, found in values.items() for value in found],
        [{**name, LANGUAGE: word} for name in [{}, *others] for word in languages],
    )
    readable = sum(n >= min_items for found in values.values() for n in found.values())
    level = 1 - 0.05 / max(readable, 1)
    rows: list[Slice] = []
    gaps: list[Gap] = []
    for tag, found in values.items():
        of_tag = [_slice(table, tag, value, min_items, level) for value in found]
        rows += sorted(of_tag, key=lambda row: -row.score.value)
        gaps += _gap(table, tag, [row for row in of_tag if not row.is_small])
    both = _side_by_side(table, [{}, *others], languages, min_items)
    return Slices(overall, tuple(rows), tuple(gaps), tuple(both), min_items)


class _Table:
    """Records by picture, and what draws of pictures say about choices of records."""

    def __init__(self, records: list[Record]) -> None:
        self.records = records
        places: dict[str, int] = {}
        self.items = np.array([places.setdefault(r.item, len(places)) for r in records], np.int64)
        self.scores = np.array([record.score for record in records], np.float64)
        self.bounded = bool(records) and 0 <= self.scores.min() <= self.scores.max() <= 1
        self.columns: dict[frozenset[tuple[str, str]], int] = {}

    def values(self, tag: str) -> dict[str, int]:
        """Values of a tag with the number of pictures that have them."""
        items: dict[str, set[int]] = {}
        for record, item in zip(self.records, self.items.tolist(), strict=True):
            if tag in record.tags:
                items.setdefault(record.tags[tag], set()).add(item)
        return {value: len(found) for value, found in sorted(items.items())}

    def draw(self, rested: list[dict[str, str]], further: list[dict[str, str]]) -> None:
        """Draw pictures once for every choice by tags, and for the rests of the `rested` ones."""
        right: list[Array] = []
        asked: list[Array] = []

        def add(chosen: Array) -> None:
            asked.append(np.bincount(self.items, chosen).astype(np.float64))
            right.append(np.bincount(self.items, chosen * self.scores).astype(np.float64))

        for name in [*rested, *further]:
            wanted = name.items()
            chosen = np.array([wanted <= r.tags.items() for r in self.records], np.float64)
            self.columns[frozenset(wanted)] = len(asked)
            add(chosen)
            if name in rested:
                has_tag = np.array([name.keys() <= r.tags.keys() for r in self.records])
                self.columns[frozenset(wanted) | {("", "rest")}] = len(asked)
                add(has_tag - chosen)
        if not asked:
            return
        self.right, self.asked = np.stack(right, 1), np.stack(asked, 1)
        self.drawn = drawn_shares(self.right, self.asked)

    def estimate(self, name: Mapping[str, str], level: float) -> Estimate:
        """The score of a choice."""
        column = self.columns[frozenset(name.items())]
        asked = self.asked[:, column]
        value = float(self.right[:, column].sum() / asked.sum()) if asked.any() else math.nan
        return self._around(value, self.drawn[:, column], asked, level, self.bounded)

    def difference(
        self, one: Mapping[str, str], other: Mapping[str, str], level: float
    ) -> Estimate | None:
        """The score of one choice less that of another, or None if one of them is empty."""
        first, second = (self.columns[frozenset(name.items())] for name in (one, other))
        columns = [first, second]
        asked, right = self.asked[:, columns], self.right[:, columns]
        if not asked.any(0).all():
            return None
        values = right.sum(0) / asked.sum(0)
        fewer = asked[:, int(np.argmin((asked > 0).sum(0)))]
        drawn = self.drawn[:, first] - self.drawn[:, second]
        return self._around(float(values[0] - values[1]), drawn, fewer, level, False)

    def _around(
        self, value: float, drawn: Array, asked: Array, level: float, bounded: bool
    ) -> Estimate:
        items = int((asked > 0).sum())
        error = float(standard_errors(drawn[:, None], len(self.asked))[0])
        low, high = around(value, error, items - 1, items, level, bounded)
        return Estimate(value, low, high, 1, items, int(asked.sum()))


def _slice(table: _Table, tag: str, value: str, min_items: int, level: float) -> Slice:
    name = {tag: value}
    found = table.estimate(name, level)
    to_rest = table.difference(name, {**name, "": "rest"}, level)
    return Slice(tag, value, found, to_rest, found.items < min_items)


def _gap(table: _Table, tag: str, readable: list[Slice]) -> list[Gap]:
    if len(readable) < 2:
        return []
    ordered = sorted(readable, key=lambda row: row.score.value)
    worst, best = ordered[0].value, ordered[-1].value
    pairs = math.comb(len(readable), 2)  # any two might have been best and worst
    difference = table.difference({tag: best}, {tag: worst}, 1 - 0.05 / pairs)
    assert difference is not None
    return [Gap(tag, best, worst, difference)]


def _two_languages(table: _Table) -> tuple[str, ...]:
    """The two languages of most pictures, English before Korean; none if there is but one."""
    counts = sorted(table.values(LANGUAGE).items(), key=lambda pair: -pair[1])[:2]
    return tuple(sorted(name for name, _ in counts)) if len(counts) == 2 else ()


def _side_by_side(
    table: _Table, names: list[dict[str, str]], languages: tuple[str, ...], min_items: int
) -> Iterator[SideBySide]:
    if not languages:
        return
    first, second = languages
    pairs = [({**name, LANGUAGE: first}, {**name, LANGUAGE: second}, name) for name in names]
    pairs = [pair for pair in pairs if table.difference(pair[1], pair[0], 0.95) is not None]
    level = 1 - 0.05 / max(len(pairs), 1)
    for one, two, name in pairs:
        scores = table.estimate(one, level), table.estimate(two, level)
        difference = table.difference(two, one, level)
        assert difference is not None
        label = " ".join(f"{tag}={value}" for tag, value in name.items()) or "all"
        is_small = difference.items < min_items
        yield SideBySide(label, (first, second), scores, difference, is_small)


def _zip(row: SideBySide) -> Iterable[tuple[str, Estimate]]:
    return zip(row.languages, row.scores, strict=True)
