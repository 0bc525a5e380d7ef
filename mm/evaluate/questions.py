"""Asking a model the questions of held-out pictures.

By the metric `exact`, a question counts as right when the answer is the expected text to the
letter, after Unicode normalisation and without surrounding space and a final full stop.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from types import MappingProxyType
from typing import Any, TypeVar

import torch

from mm.data.sample import DETAILS, Sample
from mm.data.scenes.concepts import LANGUAGES
from mm.encoders import Pictures
from mm.errors import UsageError
from mm.evaluate.intervals import Proportion
from mm.generate import GenerationConfig, generate
from mm.text.chat import IMAGE_MARKER, encode_chat, stop_token_ids
from mm.text.frame import PictureFrame
from mm.text.tokenizer import Tokenizer
from mm.vlm import ImageFeatures, VisionLanguageModel

_NOT_SLICES = (DETAILS, "labels", "note")
_LONGEST_SLICE = 40
_T = TypeVar("_T")
_THINGS = re.compile(r"caption\.\w+\.(\d+)")


@dataclass(frozen=True)
class Question:
    """One question about a picture.

    Args:
        text: as the model is asked.
        answer: the expected answer.
        labels: to which slices of the result it counts.
        answers: all accepted answers, where there are several; those of people for `vqa`.
        choices: what is offered, for multiple choice.
        tags: of its record.
        id: of its record.
    """

    text: str
    answer: str
    labels: tuple[str, ...]
    answers: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    id: str = ""

    @property
    def accepted(self) -> tuple[str, ...]:
        """All accepted answers."""
        return self.answers or (self.answer,)


@dataclass(frozen=True)
class Answered:
    """A question with what the model said."""

    question: Question
    said: str

    @property
    def is_right(self) -> bool:
        """Whether the answer is exactly an accepted one."""
        return normalise(self.said) in map(normalise, self.question.accepted)

    @property
    def token_f1(self) -> float:
        """Overlap of words with the expected answer, 0..1: for reading beside exactness only."""
        said, wanted = normalise(self.said).split(), normalise(self.question.answer).split()
        common = sum(min(said.count(word), wanted.count(word)) for word in set(said))
        return 2 * common / (len(said) + len(wanted)) if common else 0.0


def normalise(text: str) -> str:
    """The form in which answers are compared."""
    return unicodedata.normalize("NFC", text).strip().removesuffix(".")


def questions_of(sample: Sample) -> list[Question]:
    """The independent questions of a sample.

    Its tag `labels` holds, for every exchange, labels joined by `+`, exchanges separated by spaces:
    `caption.en+caption.en.2` is of kind `caption`, in English, of a scene of 2 things. Its tag
    `questions` is made by `question_details`. All other short tags become tags of every question.

    Raises:
        UsageError: the tag `questions` is malformed.
    """
    texts = [text.replace(IMAGE_MARKER, "").strip() for _, text in sample.turns]
    pairs = list(zip(texts[::2], texts[1::2], strict=True))
    labels = sample.tags.get("labels", "").split() or ["all"] * len(pairs)
    common = {
        name: value
        for name, value in sample.tags.items()
        if name not in _NOT_SLICES and len(value) <= _LONGEST_SLICE
    }
    if things := _THINGS.search(sample.tags.get("labels", "")):
        common["things"] = things.group(1)
    more = _details(sample, len(pairs))
    return [
        Question(
            question,
            answer,
            tuple(label.split("+")),
            tuple(own.get("answers", ())),
            tuple(own.get("choices", ())),
            {**common, **_tags_of(label.split("+")[0]), **own.get("tags", {})},
            str(own.get("id", f"{sample.source_id[:16]}/{number}")),
        )
        for number, ((question, answer), label, own) in enumerate(
            zip(pairs, labels, more, strict=True)
        )
    ]


def joined(questions: Sequence[Question]) -> list[Question]:
    """Make one question with several accepted answers of one that is asked several times."""
    found: dict[tuple[str, tuple[str, ...]], list[Question]] = {}
    for question in questions:
        found.setdefault((question.text, question.labels), []).append(question)
    return [
        replace(same[0], answers=tuple(text for q in same for text in q.accepted))
        for same in found.values()
    ]


def _tags_of(label: str) -> dict[str, str]:
    kind, dot, language = label.partition(".")
    if dot and language in LANGUAGES:
        return {"kind": kind, "language": language}
    return {} if label == "all" else {"label": label}


def _details(sample: Sample, size: int) -> list[dict[str, Any]]:
    text = sample.tags.get(DETAILS)
    if text is None:
        return [{}] * size
    try:
        found = json.loads(text)
        if [type(entry) for entry in found] == [dict] * size:
            return list(found)
    except (ValueError, TypeError):
        pass
    raise UsageError(
        f"the tag {DETAILS} of sample {sample.source_id[:16]} is no JSON list of a mapping for each"
        f" of its {size} questions"
    )


@torch.no_grad()
def ask(
    model: VisionLanguageModel,
    tokenizer: Tokenizer,
    pictures: Pictures | None,
    questions: Sequence[Sequence[Question]],
    *,
    max_new_tokens: int = 64,
    num_beams: int = 1,
    batch_size: int = 128,
    chat: Mapping[str, Any] = MappingProxyType({}),
) -> list[list[Answered]]:
    """Answer the questions of each picture with the likeliest words.

    Args:
        pictures: preprocessed; None asks without a picture.
        questions: for each picture its questions.
        chat: of the model's config: how its chats and the pictures in them are framed.
    """
    features = _features(model, pictures)
    config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        stop_token_ids=tuple(stop_token_ids(tokenizer)),
        num_valid_tokens=tokenizer.vocab_size,
        num_beams=num_beams,
    )
    flat = [(i, question) for i, row in enumerate(questions) for question in row]
    # Answers of like length end together; a batch runs as long as its longest.
    order = sorted(range(len(flat)), key=lambda n: len(flat[n][1].answer))
    said: dict[int, str] = {}
    for start in range(0, len(flat), batch_size):
        numbers = order[start : start + batch_size]
        prompts = [prompt_of(tokenizer, flat[n][1], features, flat[n][0], chat) for n in numbers]
        rows = features.pick([flat[n][0] for n in numbers]) if features else None
        outs = generate(model, prompts, config=config, image_features=rows)
        said |= {n: tokenizer.decode(out.ids) for n, out in zip(numbers, outs, strict=True)}
    return _rows(questions, said)


def prompt_of(
    tokenizer: Tokenizer,
    question: Question,
    features: ImageFeatures | None,
    number: int,
    chat: Mapping[str, Any],
) -> list[int]:
    """Return the ids of a question's prompt; `features` holds its picture at `number`."""
    return encode_chat(
        tokenizer,
        [("user", (IMAGE_MARKER if features else "") + question.text)],
        num_image_tokens=[features.counts[number]] if features else [],
        revision=chat.get("revision"),
        thinking=chat.get("thinking", "none"),
        add_generation_prompt=True,
        frame=PictureFrame.of(chat),
    ).input_ids


def _features(model: VisionLanguageModel, pictures: Pictures | None) -> ImageFeatures | None:
    if pictures is None:
        return None
    return model.image_features(pictures.to(next(model.parameters()).device))


def _rows(questions: Sequence[Sequence[Question]], said: Mapping[int, str]) -> list[list[Answered]]:
    number, rows = 0, []
    for row in questions:
        rows.append([Answered(question, said[number + i]) for i, question in enumerate(row)])
        number += len(row)
    return rows


def ask_samples(
    model: VisionLanguageModel,
    tokenizer: Tokenizer,
    samples: Iterable[Sample],
    prepare: Callable[[Sequence[bytes]], Pictures],
    *,
    pictures_per_batch: int = 64,
    num_beams: int = 1,
    batch_size: int = 128,
    chat: Mapping[str, Any] = MappingProxyType({}),
    questions: Callable[[Sample], list[Question]] = questions_of,
) -> Iterator[Answered]:
    """Answer every question of every sample.

    Args:
        batch_size: questions at a time, of `pictures_per_batch` pictures; `chat` is as in `ask`.
        prepare: from picture bytes to what the model takes; pass one that ignores its input to see
            what the model says without looking.
    """
    settings: dict[str, Any] = {"num_beams": num_beams, "batch_size": batch_size, "chat": chat}
    for batch in in_batches(samples, pictures_per_batch):
        pictures = prepare([sample.images[0] for sample in batch])
        asked = [questions(sample) for sample in batch]
        for row in ask(model, tokenizer, pictures, asked, **settings):
            yield from row


def in_batches(stream: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """Yield what a stream holds in lists of `size`, the last one shorter."""
    rest = iter(stream)
    while batch := list(islice(rest, size)):
        yield batch


def by_label(answers: Iterable[Answered]) -> dict[str, Proportion]:
    """Share of right answers for every label, and for `label+label` pairs as they were given."""
    hits: dict[str, list[bool]] = {}
    for answered in answers:
        for label in answered.question.labels:
            hits.setdefault(label, []).append(answered.is_right)
    return {label: Proportion(sum(rights), len(rights)) for label, rights in sorted(hits.items())}
