"""What a model said to each question and what that was worth: what every measure is computed from.

A task ends in a list of records. Intervals, slices, comparisons, controls and cards read records
and nothing else, so that a figure can be had again from the file without the model.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from mm.checkpoints.store import write_atomically
from mm.errors import UsageError


@dataclass(frozen=True)
class Record:
    """One question to one picture.

    Args:
        item: the picture (a hash): questions to one picture are no independent cases, so intervals
            draw pictures.
        question: tells the question apart within the task; the same in every run of the task, so
            that runs and controls are paired by it.
        tags: slices that it belongs to, such as {"language": "ko", "kind": "count"}.
        said: the model's answer; or the choice that it found likeliest.
        wanted: the accepted answers.
        score: what the task's metric gives, mostly 0..1.
        extra: further numbers, such as {"token_f1": 0.5}.
    """

    item: str
    question: str
    tags: Mapping[str, str] = field(default_factory=dict)
    said: str = ""
    wanted: tuple[str, ...] = ()
    score: float = 0.0
    extra: Mapping[str, float] = field(default_factory=dict)


def write_records(records: Iterable[Record], path: str | Path) -> None:
    """Write records as JSON lines, whole or not at all."""
    lines = [json.dumps(asdict(record), ensure_ascii=False) + "\n" for record in records]
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_atomically(Path(path), lambda file: file.write("".join(lines).encode("utf-8")))


def read_records(path: str | Path) -> Iterator[Record]:
    """Read what `write_records` wrote, record by record.

    Raises:
        UsageError: the file cannot be read, or a line is no record; the message names the line.
    """
    try:
        file = open(path, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    with file:
        for number, line in enumerate(file, 1):
            try:
                record = _record(json.loads(line))
            except (ValueError, TypeError, KeyError, AttributeError):
                raise UsageError(
                    f"{path}:{number} is no record of an evaluation: give a .jsonl that"
                    " scripts/evaluate.py wrote"
                ) from None
            yield record


def mean_score(records: Iterable[Record]) -> float:
    """Mean of the scores; NaN of none."""
    scores = [record.score for record in records]
    return math.fsum(scores) / len(scores) if scores else math.nan


def _record(value: Mapping[str, object]) -> Record:
    """Check the types, as the file may be anybody's."""
    item, question, tags = value["item"], value["question"], value["tags"]
    said, wanted, score, extra = value["said"], value["wanted"], value["score"], value["extra"]
    if not (isinstance(item, str) and isinstance(question, str) and isinstance(said, str)):
        raise ValueError
    if not (isinstance(wanted, list) and all(isinstance(text, str) for text in wanted)):
        raise ValueError
    if not (isinstance(tags, dict) and all(isinstance(tag, str) for tag in tags.values())):
        raise ValueError
    if not (isinstance(extra, dict) and isinstance(score, int | float)):
        raise ValueError
    numbers = {str(name): float(number) for name, number in extra.items()}
    return Record(item, question, tags, said, tuple(wanted), float(score), numbers)
