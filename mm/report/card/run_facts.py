"""What a run's folder holds, read into one record from which everything in its card comes."""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mm.errors import UsageError
from mm.report.card.data_facts import DataFacts, data_facts

RESULTS = "results"  # of a run: what the measuring commands wrote about its model
Json = dict[str, Any]  # as a file holds it


@dataclass(frozen=True)
class Measure:
    """One number with its spread."""

    name: str
    value: float
    low: float
    high: float
    n: int
    seeds: int = 1

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Result:
    """A file of results: what kind of measurement it was, how to repeat it, and its measures."""

    name: str
    kind: str
    command: str
    measures: tuple[Measure, ...]
    plain: Json


@dataclass(frozen=True)
class RunFacts:
    """A run, as its folder tells it. What the folder lacks is empty."""

    folder: Path
    config: Json
    config_text: str
    run: Json
    status: Json
    last: Json  # the last logged value of each metric
    held_out: tuple[Measure, ...]
    results: tuple[Result, ...]
    model: Json  # the model's config.json
    parameters: Mapping[str, int]  # by part
    weights: Mapping[str, str]  # file -> SHA-256
    data: tuple[DataFacts, ...] = field(default=())

    def of_kind(self, *kinds: str) -> list[Result]:
        """The results of some kinds."""
        return [result for result in self.results if result.kind in kinds]


def read_run(folder: str | Path) -> RunFacts:
    """Read a run's folder (of `scripts/train.py`), or a model's folder alone.

    Raises:
        UsageError: it is neither.
    """
    place = Path(folder)
    model = place / "model" if (place / "model").is_dir() else place
    if not (place / "config.yaml").exists() and not (model / "config.json").exists():
        raise UsageError(f"{place} is no run of scripts/train.py and no model: name such a folder")
    text = _text(place / "config.yaml")
    try:
        config, run = yaml.safe_load(text) or {}, _json(place / "run.json")
        status, settings = _json(place / "status.json"), _json(model / "config.json")
        rows = [json.loads(line) for line in _text(place / "metrics.jsonl").splitlines()]
        answers = [json.loads(line) for line in _text(place / "held_out.jsonl").splitlines()]
        results = tuple(map(read_result, sorted((place / RESULTS).glob("*.json"))))
    except (ValueError, TypeError, yaml.YAMLError) as error:
        raise UsageError(f"{place} is damaged: {type(error).__name__}: {error}") from error
    run = run or dict(settings.get("training", {}))
    weights = sorted(model.glob("*.safetensors"))
    return RunFacts(
        folder=place,
        config=config,
        config_text=text,
        run=run,
        status=status,
        last={name: value for row in rows for name, value in row.items()},
        held_out=_held_out(answers),
        results=results,
        model=settings,
        parameters=_parameters(weights),
        weights={path.name: _file_hash(path) for path in weights},
        data=tuple(
            data_facts(name, digest, _places(config.get("data", {})))
            for name, digest in run.get("ledgers", {}).items()
        ),
    )


def read_result(path: Path) -> Result:
    """Read a file of results, whichever command wrote it.

    A measure is any mapping in it with `value`, `interval` and `n`; its name is the path of keys.
    """
    plain = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(plain, dict):
        raise ValueError(f"{path.name} holds no object")
    kind = str(plain.get("kind") or ("task" if "task" in plain else "other"))
    found = tuple(measures_of(plain))
    return Result(path.stem, kind, str(plain.get("command", "")), found, plain)


def measures_of(value: object, path: tuple[str, ...] = ()) -> Iterator[Measure]:
    """Every measure in plain data."""
    if not isinstance(value, Mapping):
        return
    interval, number = value.get("interval"), value.get("value")
    if isinstance(number, int | float) and isinstance(interval, Sequence) and len(interval) == 2:
        if all(isinstance(end, int | float) for end in interval) and math.isfinite(number):
            name = "/".join(path) or "value"
            n, seeds = int(value.get("n") or 0), int(value.get("seeds") or 1)
            low, high = interval
            yield Measure(name, number, low, high, n, seeds)
        return
    for key, inner in value.items():
        skipped = not path and key in ("measures", "exact")
        yield from measures_of(inner, path if skipped else (*path, str(key)))


def _held_out(answers: Sequence[Mapping[str, Any]]) -> tuple[Measure, ...]:
    """Share of right answers per label, with an interval over the pictures."""
    import numpy as np

    from mm.evaluate.intervals import of_items

    items = {item: index for index, item in enumerate(dict.fromkeys(a["item"] for a in answers))}
    found = []
    for label in sorted({answer["label"] for answer in answers}):
        right, asked = np.zeros((1, len(items))), np.zeros((1, len(items)))
        for answer in answers:
            if answer["label"] == label:
                right[0, items[answer["item"]]] += bool(answer["right"])
                asked[0, items[answer["item"]]] += 1
        own = asked[0] > 0
        share = of_items(right[:, own], asked[:, own], bounded=True)
        found.append(Measure(label, share.value, share.low, share.high, int(asked.sum())))
    return tuple(found)


def _places(data: object) -> dict[str, Path]:
    """Folders that a run's `data` names, by their last name."""
    if isinstance(data, Mapping):
        return {name: path for value in data.values() for name, path in _places(value).items()}
    if isinstance(data, list):
        return {name: path for value in data for name, path in _places(value).items()}
    path = Path(data) if isinstance(data, str) else None
    return {path.name: path} if path and (path / "ledger.json").is_file() else {}


def _parameters(weights: Sequence[Path]) -> dict[str, int]:
    """Numbers in the weights, by the first part of their names."""
    counts: dict[str, int] = {}
    for path in weights:
        with path.open("rb") as file:
            header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        for name, entry in header.items():
            if name != "__metadata__":
                part = name.partition(".")[0]
                counts[part] = counts.get(part, 0) + math.prod(entry["shape"])
    return counts


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _json(path: Path) -> Json:
    found = json.loads(_text(path) or "{}")
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} holds no object")
    return found
