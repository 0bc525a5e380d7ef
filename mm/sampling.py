"""How the next token is chosen: settings, the distribution they make of logits, and the choice.

Rules and their order are those of transformers: repetition penalty, temperature, top-k, top-p,
min-p. Nothing here waits for the device.

B rows, V vocabulary, C candidates of a row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from mm.errors import ConfigError

Decode = Literal["auto", "eager", "compiled", "fused"]
MAX_TIES = 64  # with the k-th likeliest token that are still told apart


@dataclass(frozen=True)
class GenerationConfig:
    """How to choose tokens and when to end.

    Args:
        max_new_tokens: at most so many tokens a row.
        temperature: 0 takes the likeliest token; 1 samples from the model's own distribution.
        top_k: sample among the k likeliest tokens (and what ties with the k-th); 0 is all.
        top_p: sample among the likeliest tokens that together reach this probability.
        min_p: leave out tokens less likely than this share of the likeliest one.
        repetition_penalty: above 1, make tokens of the prompt and the answer less likely.
        seed: of every row's generator, unless `generate` is given one seed a row.
        stop_token_ids: a row ends at any of these; the token itself is not part of the answer.
        stop_strings: a row ends where its text has any of these, which is not part of the text.
        num_valid_tokens: ids from here on are padding rows of the head and are never chosen.
        num_beams: above 1, search for the likeliest whole answer (`mm.beam`); needs temperature 0,
            no penalty and no stop strings. `stream` can't look ahead and is greedy.
        prefill_chunk: read prompts in pieces of at most so many tokens, which bounds the memory
            that long ones take; None reads them whole. The answer is the same.
        decode: how tokens after the prompt are computed: "eager" is the readable PyTorch,
            "compiled" the same compiled over a static cache, "fused" the kernels for one row on a
            GPU; "auto" is eager on a CPU and for short answers, else the fastest that applies.
    """

    max_new_tokens: int = 64
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0
    stop_token_ids: tuple[int, ...] = ()
    stop_strings: tuple[str, ...] = ()
    num_valid_tokens: int | None = None
    num_beams: int = 1
    prefill_chunk: int | None = None
    decode: Decode = "auto"

    def __post_init__(self) -> None:
        for name, good, wanted in (
            ("max_new_tokens", self.max_new_tokens >= 1, "at least 1"),
            ("temperature", 0 <= self.temperature < math.inf, "0 or more"),
            ("top_k", self.top_k >= 0, "0 (all) or more"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("min_p", 0 <= self.min_p <= 1, "between 0 and 1"),
            ("repetition_penalty", 0 < self.repetition_penalty < math.inf, "above 0"),
            ("num_beams", self.num_beams >= 1, "at least 1"),
            ("seed", 0 <= self.seed < 2**63, "between 0 and 2**63 - 1"),
            ("stop_strings", all(self.stop_strings), "texts that are not empty"),
            ("prefill_chunk", self.prefill_chunk is None or self.prefill_chunk >= 1, "at least 1"),
            ("decode", self.decode in get_args(Decode), f"one of {', '.join(get_args(Decode))}"),
        ):
            if not good:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be {wanted}")
        if self.num_beams > 1 and not self.is_plain:
            raise ConfigError(
                f"num_beams is {self.num_beams}, which looks for the likeliest answer: set"
                " temperature to 0, repetition_penalty to 1 and no stop_strings, or num_beams to 1"
            )

    @property
    def is_plain(self) -> bool:
        """Whether the model's own likeliest answer is asked for, so that beams may search it."""
        return self.temperature == 0 and self.repetition_penalty == 1 and not self.stop_strings


def _candidates(scores: Tensor, config: GenerationConfig) -> tuple[Tensor, Tensor]:
    """Probabilities and ids, `[B, C]` each, of the tokens that may be drawn (C may be V)."""
    scores = scores / config.temperature
    V = scores.shape[-1]
    if 0 < config.top_k < V:
        # A few more than k, as bfloat16 logits often tie, and which of them `topk` takes may
        # depend on the batch.
        scores, ids = scores.topk(min(V, config.top_k + MAX_TIES), dim=-1)
        scores = scores.masked_fill(scores < scores[:, config.top_k - 1, None], -torch.inf)
    elif config.top_p < 1:
        scores, ids = scores.sort(dim=-1, descending=True, stable=True)
    else:
        ids = torch.arange(V, device=scores.device).expand_as(scores)
    probs = scores.softmax(-1)
    if config.top_p < 1:
        # Keep a token while those before it are short of top_p: the one that crosses it stays.
        probs = probs.masked_fill(probs.cumsum(-1) - probs >= config.top_p, 0.0)
    if config.min_p > 0:
        probs = probs.masked_fill(probs < config.min_p * probs.amax(-1, keepdim=True), 0.0)
    return probs / probs.sum(-1, keepdim=True), ids


def sampling_probs(logits: Tensor, config: GenerationConfig) -> Tensor:
    """The distribution that sampling draws from: float32 `[B, V]`, rows sum to 1.

    Args:
        logits: float32 `[B, V]`; -inf is never drawn.
        config: `temperature` above 0.
    """
    probs, ids = _candidates(logits, config)
    return torch.zeros_like(logits).scatter(-1, ids, probs)


def penalised(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Logits `[B, V]` with those of tokens `seen` (bool `[B, V]`) made weaker."""
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def greedy(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The likeliest token of each row, `[B]`, and its probability, `[B]`."""
    logits = logits.float()
    tokens = logits.argmax(-1, keepdim=True)
    highest = logits.gather(-1, tokens)
    return tokens[:, 0], 1 / (logits - highest).exp().sum(-1)


class Chooser:
    """Chooses each row's next token, and says how likely the model itself found it.

    Args:
        config: how.
        prompts: their tokens count for the repetition penalty.
        seeds: one a row.
        max_steps: calls at most.
        vocab_size: V.
        device: of the logits.
    """

    def __init__(
        self,
        config: GenerationConfig,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        max_steps: int,
        vocab_size: int,
        device: torch.device,
    ) -> None:
        self.config = config
        self.num_valid = min(config.num_valid_tokens or vocab_size, vocab_size)
        self.calls = 0
        self.seen: Tensor | None = None
        self.draws: Tensor | None = None
        if config.repetition_penalty != 1:
            seen = torch.zeros(len(prompts), vocab_size, dtype=torch.bool)
            for row, prompt in zip(seen, prompts, strict=True):
                row[torch.tensor(prompt)] = True
            self.seen = seen[:, : self.num_valid].to(device)
        if config.temperature > 0:
            # All draws at once, on the CPU: a seed means the same on every device and in every
            # batch, and no step waits for the host.
            rows = [
                torch.rand(max_steps, generator=torch.Generator().manual_seed(seed))
                for seed in seeds
            ]
            self.draws = torch.stack(rows).double().to(device)

    def __call__(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Map logits `[B, V]` to tokens `[B]` and their probabilities `[B]`, NaN if any logit is.

        The probabilities are the model's: before penalty, temperature and the cuts, over the
        valid ids.
        """
        logits = logits[:, : self.num_valid]
        self.calls += 1
        if self.seen is None and self.draws is None:
            return greedy(logits)
        logits = scores = logits.float()
        if self.seen is not None:
            scores = penalised(scores, self.seen, self.config.repetition_penalty)
        if self.draws is None:
            tokens = scores.argmax(-1, keepdim=True)
        else:
            tokens = self._draw(scores, self.draws[:, self.calls - 1, None])
        if self.seen is not None:
            self.seen.scatter_(1, tokens, True)
        return tokens[:, 0], logits.softmax(-1).gather(1, tokens)[:, 0]

    def _draw(self, scores: Tensor, draw: Tensor) -> Tensor:
        """Invert the cumulative distribution at `draw` `[B, 1]`; returns tokens `[B, 1]`.

        In order of ids, so that it doesn't matter how candidates were found, and in float64 so
        that no token's share is lost.
        """
        probs, ids = _candidates(scores, self.config)
        ids, order = ids.sort(dim=-1)
        cumulative = probs.gather(-1, order).double().cumsum(-1)
        place = torch.searchsorted(cumulative, draw * cumulative[:, -1:], right=True)
        # The clamp is for NaN, which is told later: until then the id has to exist.
        return ids.gather(-1, place.clamp(max=ids.shape[-1] - 1))
