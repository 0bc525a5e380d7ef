"""Looking through training data for what an evaluation set holds, and the score without it.

Memory grows with the evaluation set alone: training samples pass by, a batch at a time.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from mm.data.sample import Sample
from mm.errors import UsageError
from mm.evaluate.contamination.pictures import SIDE, PictureIndex, thumbnail
from mm.evaluate.contamination.texts import TextIndex
from mm.evaluate.intervals import Proportion
from mm.evaluate.records import Record
from mm.evaluate.slices import Slices, slices

KINDS = ("same picture", "picture alike", "13 words in a row", "text alike")
TAG = "in training"
_BATCH = 256


@dataclass(frozen=True)
class Contamination:
    """Which evaluation items (by `source_id`) are in the training data, by how they were found."""

    items: Mapping[str, frozenset[str]]
    evaluation: int  # items
    training: int  # samples looked through
    plain: int  # evaluation pictures with nothing to be found by
    short: int  # texts of the evaluation set that are too short to prove anything
    per_s: float

    @property
    def touched(self) -> frozenset[str]:
        """Items that were found in any way."""
        return frozenset[str]().union(*self.items.values())

    def facts(self) -> dict[str, Any]:
        """As plain data, for JSON and the run's card."""
        found = {**self.items, "any": self.touched}
        shares = {name: Proportion(len(items), self.evaluation) for name, items in found.items()}
        return {
            "found": {
                name: {"value": share.value, "interval": share.interval, "n": share.n}
                for name, share in shares.items()
            },
            "training": self.training,
            "plain": self.plain,
            "short": self.short,
            "per_s": self.per_s,
            "items": sorted(self.touched),
        }

    def table(self) -> str:
        """As text."""
        lines = [f"{self.evaluation:,} evaluation items, {self.training:,} training samples"]
        for name, items in {**self.items, "any": self.touched}.items():
            lines.append(f"  {name:<18} {Proportion(len(items), self.evaluation)}")
        lines.append(f"not searchable: {self.plain} plain pictures, {self.short} short texts")
        return "\n".join([*lines, f"{self.per_s:.0f} training samples/s"])


def find(evaluation: Iterable[Sample], training: Iterable[Sample]) -> Contamination:
    """Search training samples for the pictures and texts of evaluation samples.

    Raises:
        UsageError: there is nothing to search for.
    """
    names: list[str] = []
    owners: list[int] = []  # of each thumbnail
    thumbnails, exact, texts, short = [], dict[str, set[int]](), TextIndex(), 0
    for owner, sample in enumerate(evaluation):
        names.append(sample.source_id)
        for data in sample.images:
            thumbnails.append(thumbnail(data))
            owners.append(owner)
        for key in _exact_keys(sample):
            exact.setdefault(key, set()).add(owner)
        short += sum(not texts.add(text, owner) for _, text in sample.turns)
    if not names:
        raise UsageError("the evaluation set is empty: there is nothing to search for")
    empty = np.zeros((0, SIDE, SIDE, 3), np.uint8)
    index = PictureIndex(np.stack(thumbnails) if thumbnails else empty)
    found: dict[str, set[int]] = {kind: set() for kind in KINDS}
    began, count, stream = time.perf_counter(), 0, iter(training)
    while batch := list(islice(stream, _BATCH)):
        count += len(batch)
        for sample in batch:
            for key in _exact_keys(sample):
                found[KINDS[0]] |= exact.get(key, set())
            for _, text in sample.turns:
                same, near = texts.search(text)
                found[KINDS[2]] |= same
                found[KINDS[3]] |= near
        seen = [thumbnail(data) for sample in batch for data in sample.images]
        if seen and owners:
            matches = index.search(np.stack(seen))
            found[KINDS[1]] |= {owners[match.searched_for] for match in matches}
    seconds = time.perf_counter() - began
    items = {kind: frozenset(names[owner] for owner in found[kind]) for kind in KINDS}
    plain = int(index.is_plain.sum())
    return Contamination(items, len(names), count, plain, short, count / max(seconds, 1e-9))


def clean_and_touched(records: Iterable[Record], touched: frozenset[str]) -> Slices:
    """The score of items that are in the training data and of those that are not.

    Raises:
        UsageError: no records.
    """
    tagged = [
        replace(record, tags={TAG: "yes" if record.item in touched else "no"}) for record in records
    ]
    return slices(tagged, [TAG] if tagged else None)


def _exact_keys(sample: Sample) -> set[str]:
    """Hashes of the encoded pictures, and of the raw files that they were made from."""
    return {hashlib.sha256(data).hexdigest() for data in sample.images} | set(sample.origins)
