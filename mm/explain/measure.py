"""How faithful each method is on a model: deletion and insertion, and a pointing game, over scenes.

Beside the methods stand planted maps, whose place in the table is known: the right place (correct),
everything but it (inverted), and noise as smooth as the methods' maps (random).

C cases, R side of a map.
"""

from __future__ import annotations

import math
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mm.encoders.pixels import to_picture
from mm.errors import UsageError
from mm.evaluate.intervals import Estimate
from mm.evaluate.questions import normalise
from mm.evaluate.statistics import interval
from mm.explain.faithfulness import curves, moved
from mm.explain.methods import Settings, available, explain
from mm.explain.places import R, peaks
from mm.explain.reading import Reading
from mm.explain.scenes import Case
from mm.model import Model

PLANTED = ("correct", "random", "inverted")
COPIES = 1  # of each map, moved elsewhere; over many cases one is enough
# What is measured of a map, by the head of its column.
COLUMNS = {
    "gain": "area between insertion and deletion, less that of the same map moved elsewhere",
    "pointing": "the largest value (share of a plateau) lies on what the answer is about",
    "inside": "share of the map's positive values on that thing",
}


@dataclass(frozen=True)
class Measured:
    """What each map was worth, method by method.

    Args:
        rows: estimates by method, language ("all" too) and column.
        chance: share of the picture that the things take: pointing blindly.
        counts: cases asked, of them answered rightly, of them measured, and their scenes.
        seconds: a case took, by method.
    """

    rows: Mapping[str, Mapping[str, Mapping[str, Estimate]]]
    chance: Estimate
    counts: Mapping[str, int]
    seconds: Mapping[str, float]

    def table(self) -> str:
        """A line for each method and language."""
        counts = self.counts
        lines = [
            f"{counts['right']} of {counts['asked']} questions were answered rightly;"
            f" {counts['measured']} of them, about {counts['scenes']} scenes, are explained below;"
            f" pointing blindly hits {self.chance.value:.3f}",
            *(f"{name}: {meaning}" for name, meaning in COLUMNS.items()),
            f"{'method':<21}{'':<5}" + "".join(f"{name:<24}" for name in COLUMNS) + "seconds",
        ]
        for method, languages in self.rows.items():
            for language, columns in languages.items():
                cells = "".join(f"{_cell(columns[name]):<24}" for name in COLUMNS)
                last = f"{self.seconds[method]:.2f}" if method in self.seconds else ""
                gain = columns["gain"]
                said = "" if gain.low > 0 else "  NOT SHOWN FAITHFUL: not told from chance"
                lines.append(f"{method:<21}{language:<5}{cells}{last:<8}{said}".rstrip())
        return "\n".join(lines)

    def facts(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        measures = {
            method: {
                language: {name: one.facts() for name, one in columns.items()}
                for language, columns in languages.items()
            }
            for method, languages in self.rows.items()
        }
        blindly = {"pointing_blindly": self.chance.facts()}
        return {
            "kind": "faithfulness",
            "measures": {**measures, **blindly},
            "columns": COLUMNS,
            "counts": dict(self.counts),
            "seconds": dict(self.seconds),
        }


def measure(
    model: Model,
    cases: Iterable[Case],
    methods: Sequence[str] = (),
    settings: Settings | None = None,
    seed: int = 0,
    budget: float = math.inf,
    step: Callable[[int, int], None] = lambda done, of: None,
) -> Measured:
    """Explain the model's right answers by each method, and hold the maps against the truth.

    Args:
        cases: questions whose answer has a place.
        methods: names; none is all whose libraries are installed.
        settings: of the methods.
        seed: of planted noise and of where maps are moved.
        budget: seconds after which no further case is begun.
        step: told the cases done and their number.

    Raises:
        UsageError: an unknown method, or no question was answered rightly.
    """
    asked = list(cases)
    if not asked:
        raise UsageError("no scene has a question with a place: take more scenes")
    answers = model.answer_many(
        [to_picture(case.image) for case in asked], [case.question for case in asked]
    )
    right = [
        case
        for case, answer in zip(asked, answers, strict=True)
        if normalise(answer.text) == normalise(case.answer)
    ]
    if not right:
        raise UsageError(
            f"none of {len(asked)} questions was answered rightly: where a model that does not know"
            " looks can't be held against a place"
        )
    num_right = len(right)
    random.Random(seed).shuffle(right)  # so that a budget ends among all scenes
    names = available() if not methods or "all" in methods else methods
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    seconds: dict[str, float] = defaultdict(float)
    began = time.perf_counter()
    for number, case in enumerate(right):
        if number > 0 and time.perf_counter() - began > budget:
            right = right[:number]
            break
        reading = reading_of(model, case.image, case.question, case.answer)
        maps = _planted(case, torch.Generator().manual_seed(seed * 1_000_003 + number))
        for method in names:
            start = time.perf_counter()
            maps[method] = explain(reading, method, settings).sum(0)
            seconds[method] += time.perf_counter() - start
        for method, values in _score(
            reading, maps, case, random.Random(f"{seed}/{number}")
        ).items():
            found[method].append(values)
        step(number + 1, len(right))
    rows = {
        method: {
            language: {
                name: _estimate(right, [one[name] for one in values], language, name != "gain")
                for name in COLUMNS
            }
            for language in ("all", *sorted({case.language for case in right}))
        }
        for method, values in found.items()
    }
    shares = [float(case.target.float().mean()) for case in right]
    scenes = len({case.scene for case in right})
    counts = {"asked": len(asked), "right": num_right, "measured": len(right), "scenes": scenes}
    each = {method: spent / len(right) for method, spent in seconds.items()}
    return Measured(rows, _estimate(right, shares, "all", True), counts, each)


def reading_of(
    model: Model, image: Tensor, question: str, answer: str, thinking: Any = None
) -> Reading:
    """Return the reading of a question's answer in words.

    Args:
        image: uint8 `[3, height, width]`, through the door.
        question: what a user typed.
        answer: what the model said, or any other text.
        thinking: as `Model.prepare`.
    """
    request = model.prepare(to_picture(image), question, thinking)
    words = model.tokenizer
    told = words.encode(answer)
    return Reading(model.vlm, image, request.input_ids, told, words.vocab_size, model.batch_size)


def _planted(case: Case, generator: torch.Generator) -> dict[str, Tensor]:
    truth = F.interpolate(case.target[None, None].float(), (R, R), mode="bilinear")[0, 0]
    noise = torch.rand(1, 1, 8, 8, generator=generator)
    smooth = F.interpolate(noise, (R, R), mode="bicubic")[0, 0]
    return dict(zip(PLANTED, (truth, smooth, -truth), strict=True))


def _score(
    reading: Reading, maps: Mapping[str, Tensor], case: Case, rng: random.Random
) -> dict[str, dict[str, float]]:
    """Return what each map is worth, by column."""
    many = [torch.cat([heat[None], moved(heat, COPIES, rng)]) for heat in maps.values()]
    areas = curves(reading, torch.cat(many)).areas.view(len(maps), 1 + COPIES)
    target = case.target.repeat_interleave(R // 16, 0).repeat_interleave(R // 16, 1)
    scores = {}
    for (method, heat), (area, *chance) in zip(maps.items(), areas.tolist(), strict=True):
        positive = heat.clamp(min=0)
        total = float(positive.sum())
        scores[method] = {
            "gain": area - sum(chance) / COPIES,
            "pointing": float(target[peaks(heat)].float().mean()),
            "inside": float((positive * target).sum()) / total if total > 0 else 0.0,
        }
    return scores


def _estimate(
    cases: Sequence[Case], values: Sequence[float], language: str, bounded: bool
) -> Estimate:
    """Return the mean over cases of a language, its interval drawn by scene."""
    own = [n for n, case in enumerate(cases) if language in ("all", case.language)]
    picked = np.array([values[n] for n in own], np.float64)
    return interval(picked, [cases[n].scene for n in own], bounded=bounded)


def _cell(one: Estimate) -> str:
    return f"{one.value:+.3f} [{one.low:+.3f}, {one.high:+.3f}]"
