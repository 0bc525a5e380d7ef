"""Generation: read the prompts, then a token a step for a whole batch, until every row has ended.

Each row draws from its own generator and keeps its own limit, so that neither its place in the
batch nor its neighbours change what it says. On a GPU the host waits once a token, and while it
reads one the next is already on its way.

B rows, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from mm.errors import NotFiniteError
from mm.sampling import Chooser, GenerationConfig, sampling_probs
from mm.steps import GPU, Prompts, budgets, check_length, start
from mm.text.tokenizer import StreamDecoder, Tokenizer
from mm.vlm import ImageFeatures, Pictures, VisionLanguageModel

__all__ = [
    "FinishReason",
    "Generated",
    "GenerationConfig",
    "TextStream",
    "check_length",
    "generate",
    "sampling_probs",
    "stream",
    "stream_text",
]

FinishReason = Literal["stop", "length"]
_T = TypeVar("_T")


@dataclass
class Generated:
    """What one row said.

    Args:
        ids: the tokens, without the stop token; the last one completes a stop string if any does.
        token_probs: the probability that the model itself gave each of them (before temperature,
            penalty and the cuts, over the valid ids).
        stop_prob: the same for the stop token; None if the row ended without one.
        finish_reason: "stop", or "length" when the tokens ran out.
        text: the ids as text, which ends in front of a stop string; None without a tokenizer.
    """

    ids: list[int] = field(default_factory=list)
    token_probs: list[float] = field(default_factory=list)
    stop_prob: float | None = None
    finish_reason: FinishReason = "length"
    text: str | None = None


class TextStream:
    """Text of tokens that come one by one: whole characters, and nothing of a stop string.

    What may become a stop string is held back until it is told apart. Which stop string counts
    does not depend on how the text falls into tokens: the first to be complete.

    Args:
        tokenizer: of the tokens.
        stop_strings: texts that end the text, and are not part of it.
    """

    def __init__(self, tokenizer: Tokenizer, stop_strings: Sequence[str] = ()) -> None:
        self._decoder = StreamDecoder(tokenizer)
        self._stops = tuple(stop_strings)
        self._held = ""
        self.text = ""  # all that was given out
        self.stopped = False

    def push(self, token: int) -> str:
        """Text that is certain now that this token has come; '' in the middle of a letter."""
        return self._release(self._decoder.push(token), final=False)

    def flush(self) -> str:
        """What was held back, once no more tokens come."""
        return self._release(self._decoder.flush(), final=True)

    def _release(self, new: str, final: bool) -> str:
        if self.stopped:
            return ""
        held = self._held + new
        found = [(held.find(stop) + len(stop), -len(stop)) for stop in self._stops if stop in held]
        if found:
            end, minus_length = min(found)
            self.stopped, keep = True, len(held) - end - minus_length
        else:
            keep = 0 if final else max((_overlap(held, stop) for stop in self._stops), default=0)
        part, self._held = held[: len(held) - keep], held[len(held) - keep :]
        self.text += part
        return part


def _overlap(text: str, stop: str) -> int:
    """How many letters at the end of `text` may be the beginning of `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)


@dataclass(frozen=True)
class _News:
    """What a step adds to one row: a token, and text that is certain now."""

    token: int | None = None
    text: str = ""


class _Row:
    """One row's result on its way."""

    def __init__(self, limit: int, config: GenerationConfig, tokenizer: Tokenizer | None) -> None:
        self.limit = limit
        self.stops = config.stop_token_ids
        self.result = Generated()
        self.text = None if tokenizer is None else TextStream(tokenizer, config.stop_strings)
        self.running = True

    def add(self, token: int, prob: float) -> _News:
        """Note the next token. Raises NotFiniteError if the model's numbers are not finite."""
        result = self.result
        if math.isnan(prob):
            raise NotFiniteError.in_logits()
        if token in self.stops:
            result.stop_prob, result.finish_reason = prob, "stop"
            return _News(None, self._end())
        result.ids.append(token)
        result.token_probs.append(prob)
        text = "" if self.text is None else self.text.push(token)
        if self.text is not None and self.text.stopped:
            result.finish_reason = "stop"
            return _News(token, text + self._end())
        if len(result.ids) == self.limit:
            return _News(token, text + self._end())
        return _News(token, text)

    def _end(self) -> str:
        self.running = False
        if self.text is None:
            return ""
        rest = self.text.flush()
        self.result.text = self.text.text
        return rest


def _sent(*tensors: Tensor) -> Callable[[], Iterator[Any]]:
    """Start copying a step's results to the host; the function returned waits and reads them."""
    copies = [tensor.to("cpu", non_blocking=True) for tensor in tensors]
    arrived = torch.cuda.Event() if tensors[0].is_cuda else None
    if arrived is not None:
        arrived.record(torch.cuda.current_stream(tensors[0].device))

    def read() -> Iterator[Any]:
        if arrived is not None:
            arrived.synchronize()
        return zip(*(copy.tolist() for copy in copies), strict=True)

    return read


def _decode(
    model: VisionLanguageModel,
    prompts: Prompts,
    pictures: Pictures | None,
    image_features: ImageFeatures | None,
    config: GenerationConfig,
    seeds: Sequence[int],
    tokenizer: Tokenizer | None,
) -> Generator[list[_News], None, list[Generated]]:
    """Yield each step's news of all rows; return what they said."""
    if config.stop_strings and tokenizer is None:
        raise ValueError("stop_strings are looked for in text: give the tokenizer too")
    limits = budgets(model, prompts, config)
    rows = [_Row(limit, config, tokenizer) for limit in limits]
    steps = max(limits)
    logits, step, _ = start(model, prompts, pictures, image_features, config, steps)
    choose = Chooser(config, prompts, seeds, steps, logits.shape[-1], logits.device)
    for number in range(1, steps + 1):
        tokens, probs = choose(logits)
        read = _sent(tokens, probs)
        # A GPU computes the next step while the host looks at this one; if it was the last, that
        # is one step too many. Elsewhere nothing runs meanwhile, so look first.
        ahead = logits.device.type == GPU and number < steps
        if ahead:
            logits = step(tokens)
        yield [
            row.add(token, prob) if row.running else _News()
            for row, (token, prob) in zip(rows, read(), strict=True)
        ]
        if not any(row.running for row in rows):
            break
        if not ahead:
            logits = step(tokens)
    return [row.result for row in rows]


def generate(
    model: VisionLanguageModel,
    input_ids: Prompts,
    pictures: Pictures | None = None,
    config: GenerationConfig | None = None,
    seeds: Sequence[int] | None = None,
    image_features: ImageFeatures | None = None,
    tokenizer: Tokenizer | None = None,
) -> list[Generated]:
    """Continue a batch of prompts.

    Args:
        model: in evaluation mode, on its device.
        input_ids: one prompt a row, of any lengths, image placeholders included.
        pictures: all rows', in the order of their placeholders.
        config: default: greedy.
        seeds: one a row; default: `config.seed` for every row, which gives a row what it would
            say alone, whatever stands beside it.
        image_features: instead of `pictures`, from `model.image_features`: for many questions
            about one picture, which then is encoded once.
        tokenizer: gives the results their text; needed for `config.stop_strings`.

    Raises:
        UsageError: a prompt that is empty or longer than the model reads, or an engine that was
            asked for and does not apply.
        NotFiniteError: the model's numbers overflow or are damaged.
        ValueError: placeholders and pictures differ in number.
    """
    config = config or GenerationConfig()
    if not input_ids:
        return []
    if seeds is None:
        seeds = [config.seed] * len(input_ids)
    if len(seeds) != len(input_ids):
        raise ValueError(f"{len(seeds)} seeds for {len(input_ids)} prompts: give one a row")
    if config.num_beams > 1:
        from mm.beam import beam_search

        results = beam_search(model, input_ids, pictures, image_features, config)
        for result in results:
            result.text = None if tokenizer is None else tokenizer.decode(result.ids)
        return results
    run = _decode(model, input_ids, pictures, image_features, config, seeds, tokenizer)
    while True:
        try:
            next(run)
        except StopIteration as end:
            finished: list[Generated] = end.value
            return finished


def stream(
    model: VisionLanguageModel,
    input_ids: Sequence[int],
    pictures: Pictures | None = None,
    config: GenerationConfig | None = None,
    tokenizer: Tokenizer | None = None,
) -> Generator[int, None, Generated]:
    """Yield the tokens of one prompt's answer as they come; `return` what `generate` gives."""
    config = config or GenerationConfig()
    run = _decode(model, [input_ids], pictures, None, config, [config.seed], tokenizer)
    result = yield from _each(run, lambda news: news.token)
    return result


def stream_text(
    model: VisionLanguageModel,
    input_ids: Sequence[int],
    pictures: Pictures | None = None,
    config: GenerationConfig | None = None,
    *,
    tokenizer: Tokenizer,
) -> Generator[str, None, Generated]:
    """Yield the text of one prompt's answer in parts that are never taken back.

    No part holds half a character or any of a stop string; joined they are the `text` of the
    result, which is returned.
    """
    config = config or GenerationConfig()
    run = _decode(model, [input_ids], pictures, None, config, [config.seed], tokenizer)
    result = yield from _each(run, lambda news: news.text or None)
    return result


def _each(
    run: Generator[list[_News], None, list[Generated]], look: Callable[[_News], _T | None]
) -> Generator[_T, None, Generated]:
    """Yield what `look` finds in the news of a single row; return its result."""
    while True:
        try:
            (news,) = next(run)
        except StopIteration as end:
            result: Generated = end.value[0]
            return result
        found = look(news)
        if found is not None:
            yield found
