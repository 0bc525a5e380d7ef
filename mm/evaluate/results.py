"""What a task found: every measure of every slice with its interval, as a table and as JSON."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mm.checkpoints.store import write_atomically
from mm.evaluate.intervals import Array, Estimate, around, drawn_shares, standard_errors
from mm.evaluate.metrics import Metric
from mm.evaluate.records import Record, write_records

if TYPE_CHECKING:
    from mm.evaluate.controls import Gain

ALL = "all"
_MOST_VALUES = 50  # a tag with more values than this tells samples apart, not slices
_SHARES = ("token_f1", "declined", "unread", "rouge_l")  # in `extra`: means are worth showing


def save_facts(
    facts: Mapping[str, Any], kind: str, path: str | Path, arguments: Sequence[str]
) -> None:
    """Write what a script measured, as the run's card reads it.

    Args:
        arguments: the script and its words, as `sys.argv` has them: the command that repeats it.
    """
    command = f"python scripts/{Path(arguments[0]).name} {shlex.join(arguments[1:])}"
    found = {"kind": kind, "command": command, **facts}
    data = json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(Path(path), lambda file: file.write(data.encode()))


@dataclass(frozen=True)
class Result:
    """Records of one task, and what they amount to.

    Attributes:
        measures: by name of the measure and of the slice; `score` is the task's own.
        facts: what was measured on what: model, ledger, seconds.
        gains: vision gain by slice, if controls were run.
        controls: their records, by picture shown.
    """

    task: str
    version: int
    records: tuple[Record, ...]
    measures: Mapping[str, Mapping[str, Estimate]]
    facts: Mapping[str, Any]
    gains: Mapping[str, Gain] | None = None
    controls: Mapping[str, tuple[Record, ...]] | None = None

    def table(self) -> str:
        """A line per slice: score, 95 % interval, questions, pictures; then further measures."""
        scores = self.measures["score"]
        further = {name: rows[ALL] for name, rows in self.measures.items() if name != "score"}
        width = max(map(len, [*scores, *further]))
        lines = [f"{self.task} v{self.version}"]
        lines += [f"  {name:<{width}}  {estimate}" for name, estimate in scores.items()]
        lines += ["of all"] + [f"  {name:<{width}}  {e}" for name, e in further.items()]
        if left_out := self.facts.get("left_out"):
            lines.append(f"left out: {', '.join(f'{n} {why}' for why, n in left_out.items())}")
        if self.gains:
            lines.append("vision gain: the true picture less the best control")
            for name, gain in self.gains.items():
                notes = "" if gain.looks else "  no gain to be told"
                notes += f"  LEAKS: {gain.scores['none']} without a picture" if gain.leaks else ""
                lines.append(f"  {name:<{width}}  {gain.gain}  over {gain.best_control}{notes}")
        return "\n".join(lines)

    def json(self) -> str:
        """Everything but the records."""
        found: dict[str, Any] = {
            "kind": "controls" if self.gains else "task",
            "task": self.task,
            "version": self.version,
            **self.facts,
            "measures": {
                name: {part: e.facts() for part, e in rows.items()}
                for name, rows in self.measures.items()
            },
        }
        if self.gains:
            found["vision_gain"] = {
                part: {
                    **gain.gain.facts(),
                    "best_control": gain.best_control,
                    "chance": gain.chance,
                    "looks": gain.looks,
                    "leaks": gain.leaks,
                    "scores": {kind: e.facts() for kind, e in gain.scores.items()},
                }
                for part, gain in self.gains.items()
            }
        return json.dumps(found, indent=1, ensure_ascii=False) + "\n"

    def save(self, path: str | Path) -> None:
        """Write the result as JSON, and beside it the records (`.jsonl`), of controls too."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        text = self.json().encode("utf-8")
        write_atomically(path, lambda file: file.write(text))
        write_records(self.records, path.with_suffix(".jsonl"))
        for kind, records in (self.controls or {}).items():
            write_records(records, path.with_suffix(f".{kind}.jsonl"))


def measures_of(records: Sequence[Record], metric: Metric) -> dict[str, dict[str, Estimate]]:
    """Every measure of every slice."""
    found: dict[str, dict[str, Estimate]] = {"score": {}}
    for part, own in grouped(records).items():
        for name, estimate in _measures(own, metric).items():
            found.setdefault(name, {})[part] = estimate
    return found


def estimate_of(records: Sequence[Record], bounded: bool = True) -> Estimate:
    """The mean score with its interval."""
    order = items_of(records)
    sums = _summed(records, order, lambda record: record.score)
    return _estimates({"score": sums}, _asked(records, order), {"score"} if bounded else set())[
        "score"
    ]


def grouped(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Records by slice: all; `kind.language`; and `tag=value` for tags of few values."""
    parts: dict[str, list[Record]] = {ALL: list(records)}
    values: dict[str, set[str]] = {}
    for record in records:
        for name, value in record.tags.items():
            values.setdefault(name, set()).add(value)
    named = {name for name, found in values.items() if 1 < len(found) <= _MOST_VALUES}
    named -= {"kind"} if "language" in values else set()
    slices: dict[str, list[Record]] = {}
    for record in records:
        tags = record.tags
        if "kind" in tags and "language" in tags:
            slices.setdefault(f"{tags['kind']}.{tags['language']}", []).append(record)
        for name in named & tags.keys():
            slices.setdefault(f"{name}={tags[name]}", []).append(record)
    return parts | dict(sorted(slices.items()))


def items_of(records: Iterable[Record]) -> dict[str, int]:
    """Number the pictures of records."""
    order: dict[str, int] = {}
    for record in records:
        order.setdefault(record.item, len(order))
    return order


def _measures(records: Sequence[Record], metric: Metric) -> dict[str, Estimate]:
    order = items_of(records)
    names = [name for name in records[0].extra if name != "choices"]
    sums = {"score": _summed(records, order, lambda record: record.score)}
    for name in names:
        sums[name] = _summed(records, order, lambda record, name=name: record.extra[name])
    asked = _asked(records, order)
    bounded = {*names} | ({"score"} if metric.bounded else set())
    found = _estimates(sums, asked, bounded, metric)
    return {name: e for name, e in found.items() if name not in names or name in _SHARES}


def _summed(records: Sequence[Record], order: Mapping[str, int], value: Any) -> Array:
    sums = np.zeros(len(order))
    for record in records:
        sums[order[record.item]] += value(record)
    return sums


def _asked(records: Sequence[Record], order: Mapping[str, int]) -> Array:
    return _summed(records, order, lambda record: 1.0)


def _estimates(
    sums: Mapping[str, Array], asked: Array, bounded: set[str], metric: Metric | None = None
) -> dict[str, Estimate]:
    """Estimates of means, and of what the metric makes of them."""
    names, size = list(sums), len(asked)
    drawn = drawn_shares(np.stack([sums[name] for name in names], 1), asked[:, None])
    draws = {name: drawn[:, column] for column, name in enumerate(names)}
    values = {name: np.array(column.sum()) for name, column in sums.items()}
    if metric is not None:
        derived = metric.measures(values)
        draws |= metric.measures(draws)
        bounded = bounded | derived.keys()
    means = {name: float(value) / asked.sum() for name, value in values.items()}
    if metric is not None:
        means |= {name: float(value) for name, value in derived.items()}
    found = {}
    for name, mean in means.items():
        error = float(standard_errors(draws[name][:, None], size)[0])
        low, high = (math.nan, math.nan)
        if math.isfinite(mean):
            low, high = around(mean, error, max(size - 1, 1), size, 0.95, name in bounded)
        found[name] = Estimate(mean, low, high, 1, size, round(float(asked.sum())))
    return found
