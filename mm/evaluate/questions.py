"""Asking a model the questions of held-out pictures, and scoring what it says.

A question counts as right when the answer is the expected text to the letter, after Unicode
normalisation and without surrounding space and a final full stop.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch

from mm.data.sample import Sample
from mm.encoders import Pictures
from mm.evaluate.intervals import Proportion
from mm.generate import GenerationConfig, generate
from mm.text.chat import IMAGE_MARKER, encode_chat, stop_token_ids
from mm.text.frame import PictureFrame
from mm.text.tokenizer import Tokenizer
from mm.vlm import VisionLanguageModel


@dataclass(frozen=True)
class Question:
    """One question about a picture; `labels` say to which slices of the result it counts."""

    text: str
    answer: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Answered:
    """A question with what the model said."""

    question: Question
    said: str

    @property
    def is_right(self) -> bool:
        """Whether the answer is exactly the expected one."""
        return normalise(self.said) == normalise(self.question.answer)

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
    """The independent questions of a sample; its tags name their labels, in order.

    `labels` holds, for every exchange, labels joined by `+`, exchanges separated by spaces; other
    tags named `slice` are labels of all of them.
    """
    texts = [text.replace(IMAGE_MARKER, "").strip() for _, text in sample.turns]
    pairs = list(zip(texts[::2], texts[1::2], strict=True))
    labels = sample.tags.get("labels", "").split() or ["all"] * len(pairs)
    return [
        Question(question, answer, tuple(label.split("+")))
        for (question, answer), label in zip(pairs, labels, strict=True)
    ]


@torch.no_grad()
def ask(
    model: VisionLanguageModel,
    tokenizer: Tokenizer,
    pictures: Pictures,
    questions: Sequence[Sequence[Question]],
    *,
    max_new_tokens: int = 64,
    num_beams: int = 1,
    batch_size: int = 128,
    chat: Mapping[str, Any] = MappingProxyType({}),
) -> list[list[Answered]]:
    """Answer the questions of each picture with the likeliest words.

    Args:
        pictures: preprocessed.
        questions: for each picture its questions.
        chat: of the model's config: how its chats and the pictures in them are framed.
    """
    device = next(model.parameters()).device
    features = model.image_features(pictures.to(device))
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
        prompts = [
            encode_chat(
                tokenizer,
                [("user", IMAGE_MARKER + flat[n][1].text)],
                num_image_tokens=[features.counts[flat[n][0]]],
                revision=chat.get("revision"),
                thinking=chat.get("thinking", "none"),
                add_generation_prompt=True,
                frame=PictureFrame.of(chat),
            ).input_ids
            for n in numbers
        ]
        rows = features.pick([flat[n][0] for n in numbers])
        outs = generate(model, prompts, config=config, image_features=rows)
        said |= {n: tokenizer.decode(out.ids) for n, out in zip(numbers, outs, strict=True)}
    answers: list[list[Answered]] = [[] for _ in questions]
    for n, (i, question) in enumerate(flat):
        answers[i].append(Answered(question, said[n]))
    return answers


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
    batch: list[Sample] = []

    def flush() -> Iterator[Answered]:
        pictures = prepare([sample.images[0] for sample in batch])
        asked = [questions(sample) for sample in batch]
        settings: dict[str, Any] = {"num_beams": num_beams, "batch_size": batch_size, "chat": chat}
        for row in ask(model, tokenizer, pictures, asked, **settings):
            yield from row
        batch.clear()

    for sample in samples:
        batch.append(sample)
        if len(batch) == pictures_per_batch:
            yield from flush()
    if batch:
        yield from flush()


def by_label(answers: Iterable[Answered]) -> dict[str, Proportion]:
    """Share of right answers for every label, and for `label+label` pairs as they were given."""
    hits: dict[str, list[bool]] = {}
    for answered in answers:
        for label in answered.question.labels:
            hits.setdefault(label, []).append(answered.is_right)
    return {label: Proportion(sum(rights), len(rights)) for label, rights in sorted(hits.items())}
