"""Running one evaluation task: a model, pictures with questions, and what the answers are worth.

The same function answers for `scripts/evaluate.py` and for the measure during training, so that
both give the same figures.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch

from mm.data import sources
from mm.data.sample import Sample
from mm.data.scenes.artwork import DECLINED_KINDS
from mm.data.scenes.concepts import LANGUAGES
from mm.data.scenes.language import CAPTION_PROMPTS, DECLINE
from mm.data.shards import ShardReader
from mm.errors import ConfigError, UsageError
from mm.evaluate import metrics
from mm.evaluate.controls import CONTROLS, Shown, show, vision_gain
from mm.evaluate.likelihood import choose
from mm.evaluate.metrics.choice import LETTERS, lettered
from mm.evaluate.questions import Answered, Question, ask, in_batches, joined, questions_of
from mm.evaluate.records import Record
from mm.evaluate.results import Result, measures_of
from mm.evaluate.subject import Subject, read_subject
from mm.privacy.door import open_image
from mm.privacy.errors import DoorError
from mm.registry import make_config, unknown_name_message

_DECLINED_QUESTIONS = {
    "en": (CAPTION_PROMPTS["en"][0], "What is this?"),
    "ko": (CAPTION_PROMPTS["ko"][0], "이것은 무엇인가요?"),
}


@dataclass(frozen=True)
class SourceConfig:
    """Files in a published format, as the reader of `mm.data.sources` takes them."""

    name: str
    path: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)  # the reader's own

    def samples(self) -> Iterable[Sample]:
        """Open the files."""
        if not self.path:
            raise UsageError(
                f"task.source.path is not set: name the {self.name} files that you have"
            )
        return sources.build(self.name, self.path, **self.options)


@dataclass(frozen=True)
class TaskConfig:
    """A task, as a file of conf/task describes it; bump `version` when its numbers may move.

    Attributes:
        kind: "questions" of the data; "decline": ours, all to be declined.
        shards: scrubbed data; or `source`, the published files, whose pictures pass the door here.
        split: for "decline": which pictures.
        metric: of `mm.evaluate.metrics`.
        by: "generation"; or the "likelihood" of each of the question's choices.
        letters: offer choices as lettered lines below the question, to be named by their letter.
        instruction: a line below every question.
        num_beams: 0 is the model's own.
    """

    name: str
    version: int
    kind: Literal["questions", "decline"] = "questions"
    shards: str = ""
    source: SourceConfig | None = None
    split: str = ""
    metric: str = "exact"
    by: Literal["generation", "likelihood"] = "generation"
    letters: bool = True
    per_token: bool = False
    instruction: str = ""
    max_new_tokens: int = 64
    num_beams: int = 0

    def __post_init__(self) -> None:
        if self.metric not in metrics.names():
            raise ConfigError(unknown_name_message("task.metric", self.metric, metrics.names()))
        if bool(self.shards) == (self.source is not None):
            raise ConfigError("a task reads task.shards or task.source: set one of them")
        if self.by == "likelihood" and self.metric != "choice":
            raise ConfigError(
                f"task.by=likelihood weighs choices, and task.metric={self.metric} has none: use"
                " task.metric=choice"
            )


@dataclass(frozen=True)
class Answers:
    """What one run of a task gave."""

    records: tuple[Record, ...]
    left_out: Mapping[str, int]  # samples by the reason why they could not be shown


def evaluate(
    model_directory: str,
    task_values: Mapping[str, Any],
    *,
    device: torch.device,
    picture: Shown = "true",
    controls: bool = False,
    limit: int | None = None,
    command: str = "",
) -> Result:
    """Ask a model everything that a task asks.

    Args:
        model_directory: of mm's own model, or of a published one that sees; or a run's folder.
        picture: what is shown; `controls` asks with the true picture and with all controls.
        limit: of samples.
        command: what repeats this; noted in the result.

    Raises:
        CheckpointError: the model cannot be read, or sees nothing.
        LedgerError: the task's shards did not go through `scripts/scrub.py`.
        UsageError: the task's files cannot be read.
    """
    task: TaskConfig = make_config(TaskConfig, task_values, "task")
    subject, data = read_subject(model_directory, device), TaskData(task)
    shown: tuple[Shown, ...] = ("true", *CONTROLS) if controls else (picture,)
    started, answers = time.perf_counter(), {}
    for kind in shown:
        answers[kind] = run_task(subject, data, kind, limit)
    metric, main = metrics.build(task.metric), answers[shown[0]]
    if not main.records:
        raise UsageError(f"task {task.name} asks nothing: its data hold no question")
    runs: dict[str, tuple[Record, ...]] = {kind: found.records for kind, found in answers.items()}
    facts = {
        "command": command,
        "model": Path(model_directory).name,
        "picture": shown[0],
        "metric": task.metric,
        "by": task.by,
        **data.facts,
        "samples": limit,
        "left_out": dict(main.left_out),
        "seconds": round(time.perf_counter() - started, 1),
        "device": device.type,
    }
    return Result(
        task.name,
        task.version,
        main.records,
        measures_of(main.records, metric),
        facts,
        vision_gain(runs, metric.bounded) if controls else None,
        {kind: found for kind, found in runs.items() if kind != "true"} if controls else None,
    )


class TaskData:
    """The samples of a task, and their questions as it asks them."""

    def __init__(self, task: TaskConfig) -> None:
        self.task = task
        self.metric = metrics.build(task.metric)
        self._reader = ShardReader(task.shards) if task.shards else None

    @property
    def facts(self) -> dict[str, Any]:
        """Where the samples come from."""
        if self._reader is not None:
            return {"ledger": self._reader.ledger["self_hash"]}
        assert self.task.source is not None  # for the type checker
        return {"source": self.task.source.name}

    def samples(self) -> Iterator[Sample]:
        """Read the samples in their fixed order."""
        if self._reader is None:
            assert self.task.source is not None
            return iter(self.task.source.samples())
        if self.task.kind == "questions":
            return iter(self._reader)
        return (
            sample
            for sample in self._reader
            if sample.tags.get("kind") in DECLINED_KINDS and sample.tags["split"] == self.task.split
        )

    def questions(self, sample: Sample) -> list[Question]:
        """The questions of a sample, worded as the task wants them."""
        if self.task.kind == "decline":
            return _declined_questions(sample)
        questions = questions_of(sample)
        if self.metric.joined:
            questions = joined(questions)
        return [dataclasses.replace(q, text=self._worded(q)) for q in questions]

    def _worded(self, question: Question) -> str:
        text = question.text
        if question.choices and self.task.letters:
            text = lettered(text, question.choices)
        return f"{text}\n{self.task.instruction}" if self.task.instruction else text

    def continuations(self, question: Question) -> Sequence[str]:
        """The texts that stand for a question's choices."""
        return LETTERS[: len(question.choices)] if self.task.letters else question.choices


def run_task(
    subject: Subject, data: TaskData, picture: Shown = "true", limit: int | None = None
) -> Answers:
    """Ask a model a task's questions.

    Args:
        picture: what is shown in place of each picture.
        limit: of samples.
    """
    left_out: Counter[str] = Counter()
    stream = show(picture, _opened(islice(data.samples(), limit), left_out))
    asked: list[tuple[Sample, Answered]] = []
    for batch in in_batches(stream, subject.pictures_per_batch):
        rows = _answers(subject, data, batch)
        asked += [
            (sample, answered)
            for (sample, _), row in zip(batch, rows, strict=True)
            for answered in row
        ]
    scored = data.metric.score([answered for _, answered in asked])
    declines = set(DECLINE.values())
    records = tuple(
        Record(
            sample.source_id,
            answered.question.id,
            answered.question.tags,
            answered.said,
            answered.question.accepted,
            worth.score,
            {
                **worth.extra,
                "declined": float(answered.said.strip() in declines),
                **({"choices": float(n)} if (n := len(answered.question.choices)) else {}),
            },
        )
        for (sample, answered), worth in zip(asked, scored, strict=True)
    )
    return Answers(records, dict(left_out))


def _opened(samples: Iterable[Sample], left_out: Counter[str]) -> Iterator[tuple[Sample, Any]]:
    """Open each sample's picture; count those that cannot be shown, by reason."""
    for sample in samples:
        reason = sample.problem
        if not reason and len(sample.images) != 1:
            reason = "no-picture" if not sample.images else "several-pictures"
        if not reason:
            try:
                yield sample, open_image(sample.images[0])
                continue
            except DoorError as error:
                reason = error.reason
        left_out[reason] += 1


def _answers(
    subject: Subject, data: TaskData, batch: Sequence[tuple[Sample, Any]]
) -> list[list[Answered]]:
    model, task = subject.model, data.task
    questions = [data.questions(sample) for sample, _ in batch]
    shown = [image for _, image in batch]
    pictures = None if shown[0] is None else model.encoder.preprocess(shown)
    settings: dict[str, Any] = {"batch_size": subject.batch_size, "chat": subject.chat}
    if task.by == "likelihood":
        texts = [[data.continuations(question) for question in row] for row in questions]
        return choose(
            model, subject.tokenizer, pictures, questions,
            continuations=texts, per_token=task.per_token, **settings,
        )  # fmt: skip
    return ask(
        model, subject.tokenizer, pictures, questions,
        max_new_tokens=task.max_new_tokens, num_beams=task.num_beams or subject.num_beams,
        **settings,
    )  # fmt: skip


def _declined_questions(sample: Sample) -> list[Question]:
    kind = sample.tags["kind"]
    return [
        Question(
            text,
            DECLINE[language],
            (f"decline.{language}", f"decline.{kind}"),
            tags={"language": language, "kind": "decline", "picture": kind},
            id=f"{sample.source_id[:16]}/{language}{number}",
        )
        for language in LANGUAGES
        for number, text in enumerate(_DECLINED_QUESTIONS[language])
    ]
