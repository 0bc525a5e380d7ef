"""Is it looking? The same questions with another picture, or none, and what the true one adds.

*Vision gain* is the score with the true picture less that of the best control. Its interval draws
pictures with all their questions, and takes the best control anew in every draw, so that picking
the best of four is no advantage.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from mm.data.sample import Sample
from mm.errors import UsageError
from mm.evaluate.intervals import Estimate, around, drawn_shares, standard_errors
from mm.evaluate.records import Record
from mm.evaluate.results import estimate_of, grouped, items_of

Shown = Literal["true", "blank", "noise", "other", "none"]
CONTROLS: tuple[Shown, ...] = ("blank", "noise", "other", "none")
_BLANK_GREY = 200
_KNOWN_BLIND = ("kind", "language", "label")  # tags that the wording of a question gives away


def show(kind: Shown, samples: Iterable[tuple[Sample, Any]]) -> Iterator[tuple[Sample, Any]]:
    """Yield every sample with what is shown in place of its picture, of the picture's size.

    Args:
        kind: the picture itself; an even grey; noise, drawn from the sample's id; another sample's
            picture: the one before, for the first one the second; or nothing, which is None.
        samples: with their pictures, which have `height` and `width`, in a fixed order.
    """
    if kind == "other":
        yield from _others(iter(samples))
        return
    for sample, picture in samples:
        if kind == "true":
            yield sample, picture
        elif kind == "none":
            yield sample, None
        else:
            yield sample, _blank(picture) if kind == "blank" else _noise(picture, sample.source_id)


def _others(stream: Iterator[tuple[Sample, Any]]) -> Iterator[tuple[Sample, Any]]:
    start = list(islice(stream, 2))
    if len(start) < 2:
        raise UsageError("another sample's picture needs two samples at least: raise limit")
    (first, first_picture), (second, before) = start
    yield from ((first, before), (second, first_picture))
    for sample, picture in stream:
        yield sample, before
        before = picture


def _blank(picture: Any) -> Tensor:
    return torch.full((3, picture.height, picture.width), _BLANK_GREY, dtype=torch.uint8)


def _noise(picture: Any, identity: str) -> Tensor:
    seed = int.from_bytes(hashlib.sha256(identity.encode()).digest()[:6], "big")
    size = (3, picture.height, picture.width)
    return torch.randint(
        256, size, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


@dataclass(frozen=True)
class Gain:
    """What the true picture adds in one slice.

    Attributes:
        scores: by picture shown.
        best_control: the control with the highest score.
        gain: true less best control.
        chance: what the commonest answer to questions of its kind would score, or a blind choice.
        leaks: the score without a picture is above chance, beyond its interval: questions or their
            order give answers away.
    """

    scores: Mapping[str, Estimate]
    best_control: str
    gain: Estimate
    chance: float
    leaks: bool

    @property
    def looks(self) -> bool:
        """Whether the picture helps, beyond the interval."""
        return bool(self.gain.low > 0)


def vision_gain(runs: Mapping[str, Sequence[Record]], bounded: bool = True) -> dict[str, Gain]:
    """Compare a task's records with the true picture and with controls, slice by slice.

    Args:
        runs: records by picture shown: `true` and at least one control.

    Raises:
        UsageError: there is nothing to compare, or the runs asked different questions.
    """
    controls = [kind for kind in runs if kind != "true"]
    if "true" not in runs or not controls:
        raise UsageError("vision gain compares the true picture with controls: run both")
    asked = {kind: {(r.item, r.question) for r in records} for kind, records in runs.items()}
    if differing := [kind for kind in controls if asked[kind] != asked["true"]]:
        raise UsageError(
            f"the control {differing[0]!r} asked other questions than the run with true pictures:"
            " run both with the same task and limit"
        )
    slices = {kind: grouped(records) for kind, records in runs.items()}
    return {
        name: _gain({kind: slices[kind][name] for kind in ("true", *controls)}, bounded)
        for name in slices["true"]
    }


def _gain(runs: Mapping[str, Sequence[Record]], bounded: bool) -> Gain:
    kinds = list(runs)
    order = items_of(runs["true"])
    sums = np.zeros((len(order), len(kinds)))
    asked = np.zeros((len(order), 1))
    for column, kind in enumerate(kinds):
        for record in runs[kind]:
            sums[order[record.item], column] += record.score
            asked[order[record.item]] += column == 0
    drawn = drawn_shares(sums, asked)
    gains = drawn[:, 0] - drawn[:, 1:].max(1)
    error = float(standard_errors(gains[:, None], len(order))[0])
    shares = sums.sum(0) / asked.sum()
    best = int(shares[1:].argmax()) + 1
    value = float(shares[0] - shares[best])
    low, high = around(value, error, max(len(order) - 1, 1), len(order), 0.95, False)
    if bounded:
        low, high = max(low, -1.0), min(high, 1.0)
    n = len(runs["true"])
    scores = {kind: estimate_of(runs[kind], bounded) for kind in kinds}
    chance = _chance(runs["true"])
    leaks = "none" in scores and bool(scores["none"].low > chance)
    return Gain(scores, kinds[best], Estimate(value, low, high, 1, len(order), n), chance, leaks)


def _chance(records: Sequence[Record]) -> float:
    """What can be had blind, on average over questions.

    The larger of a blind choice among those offered, and of giving the answer that is accepted most
    often among questions of the same kind, language and label.
    """
    alike: dict[tuple[str, ...], list[Record]] = {}
    for record in records:
        alike.setdefault(tuple(record.tags.get(tag, "") for tag in _KNOWN_BLIND), []).append(record)
    best = 0.0
    for own in alike.values():
        blind = sum(1 / record.extra["choices"] for record in own if record.extra.get("choices"))
        answers = Counter(answer for record in own for answer in set(record.wanted))
        best += max(blind, max(answers.values(), default=0))
    return best / len(records)
