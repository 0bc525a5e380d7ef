"""Running one evaluation task: a model, scrubbed shards, and a table of shares with intervals."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from mm.checkpoints import native
from mm.checkpoints.published import format_of, load_vlm
from mm.data.sample import Sample
from mm.data.scenes.artwork import DECLINED_KINDS
from mm.data.scenes.concepts import LANGUAGES
from mm.data.scenes.language import CAPTION_PROMPTS, DECLINE
from mm.data.shards import ShardReader
from mm.encoders import Pictures
from mm.errors import CheckpointError, ConfigError
from mm.evaluate.intervals import Proportion
from mm.evaluate.questions import Answered, Question, ask_samples, by_label, questions_of
from mm.privacy.door import open_image
from mm.registry import make_config, unknown_name_message

_DECLINED_QUESTIONS = {
    "en": (CAPTION_PROMPTS["en"][0], "What is this?"),
    "ko": (CAPTION_PROMPTS["ko"][0], "이것은 무엇인가요?"),
}
_BLANK_GREY = 200
_FEW = {"pictures_per_batch": 4, "batch_size": 8}  # of large models, whose pictures are many tokens


@dataclass(frozen=True)
class TaskConfig:
    """A task, as a file of conf/task describes it; bump `version` when its numbers may move."""

    name: str
    version: int
    kind: str  # "questions": of the shards; "decline": ours, all to be declined
    shards: str
    split: str = ""  # for "decline": which pictures

    def __post_init__(self) -> None:
        if self.kind not in ("questions", "decline"):
            raise ConfigError(
                unknown_name_message("task.kind", self.kind, ("questions", "decline"))
            )


@dataclass(frozen=True)
class Result:
    """Shares of right answers by label, and how often the model declined."""

    task: TaskConfig
    shares: Mapping[str, Proportion]
    declined: Proportion
    token_f1: Mapping[str, float]
    facts: Mapping[str, Any]

    def table(self) -> str:
        """A line per label: share right, 95 % interval, n, and word overlap."""
        width = max(len(label) for label in [*self.shares, "(declined)"])
        lines = [f"{self.task.name} v{self.task.version}"]
        for label, share in self.shares.items():
            lines.append(f"  {label:<{width}}  {share}  token F1 {self.token_f1[label]:.3f}")
        lines.append(f"  {'(declined)':<{width}}  {self.declined}")
        return "\n".join(lines)

    def save(self, path: str | Path) -> None:
        """Write the result as JSON."""
        rows = {
            label: {
                "value": s.value,
                "interval": s.interval,
                "n": s.n,
                "token_f1": self.token_f1[label],
            }
            for label, s in self.shares.items()
        }
        declined = {
            "value": self.declined.value,
            "interval": self.declined.interval,
            "n": self.declined.n,
        }
        record = {
            "task": self.task.name,
            "version": self.task.version,
            **self.facts,
            "exact": rows,
            "declined": declined,
        }
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", "utf-8")


def evaluate(
    model_directory: str,
    task_values: Mapping[str, Any],
    *,
    device: torch.device,
    blank: bool = False,
    limit: int | None = None,
) -> Result:
    """Ask a model everything that a task asks.

    Args:
        model_directory: of mm's own model, or of a published one that sees.

    Raises:
        CheckpointError: the model cannot be read, or sees nothing.
        LedgerError: the task's shards did not go through `scripts/scrub.py`.
    """
    task: TaskConfig = make_config(TaskConfig, task_values, "task")
    loaded = _read(model_directory, device)
    model, tokenizer = loaded.model.eval(), loaded.tokenizer
    published = "format" not in loaded.config
    reader = ShardReader(task.shards)

    def prepare(images: Sequence[bytes]) -> Pictures:
        opened: list[Any] = [open_image(data) for data in images]
        if blank:
            opened = [
                torch.full((3, image.height, image.width), _BLANK_GREY, dtype=torch.uint8)
                for image in opened
            ]
        return model.encoder.preprocess(opened)

    samples: Iterator[Sample] = iter(reader)
    ask_of = questions_of
    if task.kind == "decline":
        samples = (
            s
            for s in reader
            if s.tags.get("kind") in DECLINED_KINDS and s.tags["split"] == task.split
        )
        ask_of = _declined_questions
    answers = list(
        ask_samples(
            model,
            tokenizer,
            islice(samples, limit),
            prepare,
            questions=ask_of,
            chat=loaded.config.get("chat", {}),
            **(_FEW if published else {}),
            num_beams=loaded.config.get("generation", {}).get("num_beams", 1),
        )
    )
    declines = sum(a.said.strip() in DECLINE.values() for a in answers)
    facts = {
        "model": Path(model_directory).name,
        "blank": blank,
        "ledger": reader.ledger["self_hash"],
    }
    return Result(
        task, by_label(answers), Proportion(declines, len(answers)), _token_f1(answers), facts
    )


def _read(directory: str, device: torch.device) -> native.LoadedModel:
    """Read a model that sees; raises CheckpointError."""
    kind = format_of(directory)
    if kind == "text":
        raise CheckpointError(
            f"{directory} is a text model's, but tasks show pictures: name a model that sees"
        )
    if kind == "vlm":
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        return load_vlm(directory, device, dtype)
    return native.load(directory, device=device, dtype=torch.float32)


def _declined_questions(sample: Sample) -> list[Question]:
    kind = sample.tags["kind"]
    return [
        Question(text, DECLINE[language], (f"decline.{language}", f"decline.{kind}"))
        for language in LANGUAGES
        for text in _DECLINED_QUESTIONS[language]
    ]


def _token_f1(answers: Sequence[Answered]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for answered in answers:
        for label in answered.question.labels:
            found.setdefault(label, []).append(answered.token_f1)
    return {label: sum(values) / len(values) for label, values in found.items()}
