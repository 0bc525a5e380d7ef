"""Multiple choice by likelihood: which of the offered answers the model would rather give.

B rows, T tokens of the longest prompt with its choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch

from mm.errors import UsageError
from mm.evaluate.questions import Answered, Question, prompt_of
from mm.text.tokenizer import Tokenizer
from mm.vlm import ImageFeatures, Pictures, VisionLanguageModel


@torch.no_grad()
def choose(
    model: VisionLanguageModel,
    tokenizer: Tokenizer,
    pictures: Pictures | None,
    questions: Sequence[Sequence[Question]],
    *,
    continuations: Sequence[Sequence[Sequence[str]]],
    per_token: bool = False,
    batch_size: int = 128,
    chat: Mapping[str, Any] = MappingProxyType({}),
) -> list[list[Answered]]:
    """Answer every question with its likeliest choice.

    Args:
        pictures, questions, chat: as `mm.evaluate.questions.ask`.
        continuations: of every question of every picture, the text that stands for each choice.
        per_token: compare mean log-probabilities, so that a longer choice is at no disadvantage.

    Raises:
        UsageError: a question without choices.
    """
    features = None
    if pictures is not None:
        features = model.image_features(pictures.to(next(model.parameters()).device))
    flat = [
        (i, question, list(texts))
        for i, (row, of_row) in enumerate(zip(questions, continuations, strict=True))
        for question, texts in zip(row, of_row, strict=True)
    ]
    rows: list[tuple[int, list[int], list[int]]] = []  # (picture, prompt, choice)
    for i, question, texts in flat:
        if not texts:
            raise UsageError(
                "by=likelihood needs questions with choices; ask this task by=generation"
            )
        prompt = prompt_of(tokenizer, question, features, i, chat)
        rows += [(i, prompt, tokenizer.encode(text)) for text in texts]
    values = log_likelihoods(model, features, rows, batch_size)
    if per_token:
        values = [value / max(1, len(row[2])) for value, row in zip(values, rows, strict=True)]
    found: list[list[Answered]] = [[] for _ in questions]
    start = 0
    for i, question, texts in flat:
        own = values[start : start + len(texts)]
        start += len(texts)
        best = max(range(len(own)), key=own.__getitem__)
        found[i].append(Answered(question, question.choices[best]))
    return found


@torch.no_grad()
def log_likelihoods(
    model: VisionLanguageModel,
    features: ImageFeatures | None,
    rows: Sequence[tuple[int, Sequence[int], Sequence[int]]],
    batch_size: int = 128,
) -> list[float]:
    """Log-probability of each row's continuation after its prompt.

    Args:
        rows: (number of the picture in `features`, prompt, continuation). Rows are padded on the
            right, where nothing before sees the padding.
    """
    device = next(model.parameters()).device
    # Rows of like length waste the least padding.
    order = sorted(range(len(rows)), key=lambda n: len(rows[n][1]) + len(rows[n][2]))
    found = [0.0] * len(rows)
    fill = 0 if model.image_token_id != 0 else 1
    for start in range(0, len(rows), batch_size):
        numbers = order[start : start + batch_size]
        batch = [rows[n] for n in numbers]
        texts = [[*prompt, *continuation] for _, prompt, continuation in batch]
        longest = max(map(len, texts))
        ids = torch.tensor([text + [fill] * (longest - len(text)) for text in texts], device=device)
        own = features.pick([picture for picture, _, _ in batch]) if features else None
        hidden = model.hidden(ids, image_features=own)
        for row, (n, (_, prompt, continuation)) in enumerate(zip(numbers, batch, strict=True)):
            before = slice(len(prompt) - 1, len(prompt) + len(continuation) - 1)
            scores = model.logits(hidden[row, before]).float().log_softmax(-1)
            wanted = torch.tensor(list(continuation), device=device, dtype=torch.long)
            found[n] = float(scores.gather(1, wanted[:, None]).sum())
    return found
