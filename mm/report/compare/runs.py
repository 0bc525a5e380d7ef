"""Reads finished runs from their folders and groups those that differ by their seed alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mm.errors import UsageError
from mm.registry import unknown_name_message
from mm.train.sweep import STATUS, fingerprint, read_status

ITEMS = "held_out.jsonl"  # of a run: a line per held-out question
ALL_ITEMS = "held_out"  # the measure that is the share of all of them that are right


@dataclass(frozen=True)
class Run:
    """One finished run.

    `rights` is per held-out item (a picture with its questions): label -> (right, asked).
    """

    folder: Path
    seed: int
    overrides: tuple[str, ...]
    group: str  # hash of its configuration without the seed
    metrics: dict[str, float]
    rights: tuple[dict[str, tuple[int, int]], ...]
    seconds: float
    on_gpu: bool
    tokens: float | None
    peak_memory_bytes: int | None


@dataclass(frozen=True)
class Variant:
    """Runs of one configuration, in the order of their seeds."""

    name: str
    runs: tuple[Run, ...]

    def values(self, metric: str) -> list[float]:
        """The measure of each run."""
        return [value_of(run, metric) for run in self.runs]


@dataclass
class Found:
    """What a set of folders holds."""

    variants: list[Variant] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)  # "folder (state)"


def collect(paths: Sequence[str | Path]) -> Found:
    """Read runs and sweeps.

    Raises:
        UsageError: a path is neither, or no run is finished.
    """
    found, runs = Found(), []
    for path in paths:
        folders = _folders(Path(path))
        for folder in folders:
            status = read_status(folder)
            if status.get("state") == "done":
                runs.append(_read(folder, status))
            else:
                found.unfinished.append(f"{folder} ({status.get('state', 'unreadable')})")
    if not runs:
        raise UsageError(
            f"none of {len(found.unfinished)} runs is finished: {found.unfinished[0]}; the command"
            " that started them goes on with them"
        )
    groups: dict[str, dict[int, Run]] = {}
    for run in runs:
        before = groups.setdefault(run.group, {}).setdefault(run.seed, run)
        if before.folder.resolve() != run.folder.resolve():
            raise UsageError(
                f"{before.folder} and {run.folder} are the same configuration and seed: name one"
            )
    found.variants = _named([tuple(by[s] for s in sorted(by)) for by in groups.values()])
    return found


def value_of(run: Run, metric: str) -> float:
    """A run's measure: the share of right held-out answers, or what was logged last.

    Raises:
        UsageError: it has no such measure.
    """
    if metric == ALL_ITEMS and run.rights:
        counts = [count for item in run.rights for count in item.values()]
        return sum(right for right, _ in counts) / sum(asked for _, asked in counts)
    if metric not in run.metrics:
        known = (*run.metrics, *([ALL_ITEMS] if run.rights else []))
        raise UsageError(f"{run.folder}: " + unknown_name_message("metric", metric, known))
    return float(run.metrics[metric])


def _folders(path: Path) -> list[Path]:
    if (path / STATUS).exists():
        return [path]
    folders = sorted(found.parent for found in path.glob(f"*/{STATUS}"))
    if not folders:
        raise UsageError(
            f"{path} is neither a run nor a sweep: name folders that scripts/train.py wrote"
        )
    return folders


def _read(folder: Path, status: dict[str, Any]) -> Run:
    try:
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        facts = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        seed = int(config["recipe"].pop("seed"))
        rights = _rights(folder / ITEMS)
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise UsageError(f"{folder} is damaged: {type(error).__name__}: {error}") from error
    metrics = {k: v for k, v in status["metrics"].items() if isinstance(v, int | float)}
    return Run(
        folder,
        seed,
        tuple(word for word in status["overrides"] if not word.startswith("recipe.seed=")),
        fingerprint(config),
        metrics,
        rights,
        float(status["seconds"]),
        str(facts.get("device_used", "")).startswith("cuda"),
        metrics.get("tokens"),
        status.get("peak_memory_bytes"),
    )


def _rights(path: Path) -> tuple[dict[str, tuple[int, int]], ...]:
    if not path.exists():
        return ()
    items: dict[int, dict[str, tuple[int, int]]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        answer = json.loads(line)
        item = items.setdefault(answer["item"], {})
        right, asked = item.get(answer["label"], (0, 0))
        item[answer["label"]] = (right + bool(answer["right"]), asked + 1)
    return tuple(items[index] for index in sorted(items))


def _named(groups: list[tuple[Run, ...]]) -> list[Variant]:
    """Name each group by the overrides that not all groups have."""
    shared = set.intersection(*(set(runs[0].overrides) for runs in groups))
    names = []
    for runs in groups:
        own = [word.lstrip("+") for word in runs[0].overrides if word not in shared]
        own = [word for word in own if not word.startswith(("output=", "name=", "logger"))]
        names.append(" ".join(own) or (runs[0].folder.name if len(groups) > 1 else "all"))
    for index, name in enumerate(names):
        if names.count(name) > 1:  # what differs is no override, as a default that has changed
            names[index] = f"{name} {groups[index][0].group[:8]}"
    return [Variant(name, runs) for name, runs in zip(names, groups, strict=True)]
