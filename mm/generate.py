"""Generation: prefill once, then one token a step for a whole batch, greedy or sampled.

Prompts of different lengths are padded on the left and masked, so that every row reads what it
would read alone; each row draws from its own generator, so that neither its place in the batch nor
its neighbours change what it says. Order of the sampling rules as in transformers: repetition
penalty, temperature, top-k, top-p, min-p.

B rows, T prompt tokens, S cached + new tokens, V vocabulary.
"""

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from mm.decoder.cache import KVCache
from mm.errors import ConfigError, UsageError
from mm.vlm import VisionLanguageModel

FinishReason = Literal["stop", "length"]
Prompts = Sequence[Sequence[int]]


@dataclass(frozen=True)
class GenerationConfig:
    """How to choose tokens and when to end.

    Args:
        max_new_tokens: at most so many tokens a row.
        temperature: 0 takes the likeliest token; 1 samples from the model's own distribution.
        top_k: sample among the k likeliest tokens; 0 is all.
        top_p: sample among the likeliest tokens that together reach this probability.
        min_p: leave out tokens less likely than this share of the likeliest one.
        repetition_penalty: above 1, make tokens of the prompt and the answer less likely.
        seed: of every row's generator, unless `generate` is given one seed a row.
        stop_token_ids: a row ends at any of these; the token itself is not part of the answer.
        num_valid_tokens: ids from here on are padding rows of the head and are never chosen.
        num_beams: above 1, search for the likeliest whole answer (`mm.beam`); needs temperature 0
            and no penalty. `stream` can't look ahead and is greedy.
    """

    max_new_tokens: int = 64
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0
    stop_token_ids: tuple[int, ...] = ()
    num_valid_tokens: int | None = None
    num_beams: int = 1

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
        ):
            if not good:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be {wanted}")
        if self.num_beams > 1 and (self.temperature > 0 or self.repetition_penalty != 1):
            raise ConfigError(
                f"num_beams is {self.num_beams}, which looks for the likeliest answer: set"
                " temperature to 0 and repetition_penalty to 1, or num_beams to 1"
            )


@dataclass
class Generated:
    """What one row said.

    Args:
        ids: the tokens, without the stop token.
        token_probs: the probability that the model itself gave each of them (before temperature,
            penalty and the cuts, over the valid ids).
        stop_prob: the same for the stop token; None if the row ended without one.
        finish_reason: "stop", or "length" when the tokens ran out.
    """

    ids: list[int] = field(default_factory=list)
    token_probs: list[float] = field(default_factory=list)
    stop_prob: float | None = None
    finish_reason: FinishReason = "length"


def sampling_probs(logits: Tensor, config: GenerationConfig) -> Tensor:
    """The distribution that sampling draws from: float32 `[B, V]`, rows sum to 1.

    Args:
        logits: float32 `[B, V]`; -inf is never drawn.
        config: `temperature` above 0.
    """
    order = (logits / config.temperature).sort(dim=-1, descending=True, stable=True)
    scores = order.values
    if config.top_k:
        scores[:, config.top_k :] = -torch.inf
    probs = scores.softmax(-1)
    if config.top_p < 1:
        # Keep a token while those before it are short of top_p: the one that crosses it stays.
        probs = probs.masked_fill(probs.cumsum(-1) - probs >= config.top_p, 0.0)
    if config.min_p > 0:
        probs = probs.masked_fill(probs < config.min_p * probs[:, :1], 0.0)
    probs = probs / probs.sum(-1, keepdim=True)
    return torch.zeros_like(probs).scatter(-1, order.indices, probs)


class _Chooser:
    """Chooses the next token of each row, and says how likely the model found it."""

    def __init__(self, config: GenerationConfig, seeds: Sequence[int]) -> None:
        self.config = config
        # Draws are made on the CPU, so that a seed means the same on every device.
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.seen: Tensor | None = None  # bool [B, V], only for the repetition penalty

    def start(self, prompts: Prompts, vocab_size: int, device: torch.device) -> None:
        if self.config.repetition_penalty != 1:
            self.seen = torch.zeros(len(prompts), vocab_size, dtype=torch.bool, device=device)
            for row, prompt in zip(self.seen, prompts, strict=True):
                row[torch.tensor(prompt, device=device)] = True

    def __call__(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Map logits `[B, V]` to tokens `[B]` and their probabilities `[B]`."""
        logits = logits.float()
        if self.config.num_valid_tokens is not None:
            logits[:, self.config.num_valid_tokens :] = -torch.inf
        scores = logits
        if self.seen is not None:
            penalty = self.config.repetition_penalty
            weaker = torch.where(scores > 0, scores / penalty, scores * penalty)
            scores = torch.where(self.seen, weaker, scores)
        if self.config.temperature == 0:
            tokens = scores.argmax(-1)
        else:
            # Invert the cumulative distribution, in float64 so that no token's share is lost.
            cumulative = sampling_probs(scores, self.config).double().cumsum(-1)
            draws = torch.cat([torch.rand(1, generator=g) for g in self.generators])
            target = draws.to(cumulative.device, torch.float64)[:, None] * cumulative[:, -1:]
            tokens = torch.searchsorted(cumulative, target, right=True)[:, 0]
        if self.seen is not None:
            self.seen.scatter_(1, tokens[:, None], True)
        return tokens, logits.softmax(-1).gather(1, tokens[:, None])[:, 0]


@dataclass
class Batch:
    """A padded batch on its way: which cached tokens are real, and where each row stands."""

    cache: KVCache
    valid: Tensor | None  # bool [B, S at most], False at padding; None without padding
    next_position: Tensor  # [B, 1]


@torch.no_grad()
def prefill(
    model: VisionLanguageModel,
    prompts: Prompts,
    pixel_values: Tensor | None,
    image_features: Tensor | None,
    max_length: int,
) -> tuple[Tensor, Batch]:
    """Read the prompts; return the last token's logits `[B, V]` and the batch."""
    weight = model.decoder.model.embed_tokens.weight
    device, dtype = weight.device, weight.dtype
    if torch.is_autocast_enabled(device.type):
        dtype = torch.get_autocast_dtype(device.type)
    if pixel_values is not None:
        pixel_values = pixel_values.to(device)
    longest = max(map(len, prompts))
    # Which token pads does not matter, as nothing attends to it; 0 is no placeholder of an image.
    fill = 0 if model.image_token_id != 0 else 1
    rows = [[fill] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    num_padded = torch.tensor([longest - len(prompt) for prompt in prompts], device=device)[:, None]
    positions = (torch.arange(longest, device=device) - num_padded).clamp(min=0)
    cache = KVCache(model.decoder.config, len(prompts), max_length, device, dtype)
    valid = mask = None
    if bool(num_padded.any()):
        valid = torch.arange(max_length, device=device) >= num_padded
        causal = torch.ones(longest, longest, dtype=torch.bool, device=device).tril()
        mask = causal & valid[:, None, None, :longest]
    hidden = model.hidden(
        torch.tensor(rows, device=device),
        pixel_values=pixel_values,
        image_features=image_features,
        position_ids=positions,
        attention_mask=mask,
        cache=cache,
    )
    return model.logits(hidden[:, -1]), Batch(cache, valid, positions[:, -1:] + 1)


@torch.no_grad()
def step(model: VisionLanguageModel, tokens: Tensor, batch: Batch) -> Tensor:
    """Read one new token a row `[B]`; return its logits `[B, V]`."""
    mask = None
    if batch.valid is not None:
        mask = batch.valid[:, None, None, : batch.cache.length + 1]
    hidden = model.hidden(
        tokens[:, None],
        position_ids=batch.next_position,
        attention_mask=mask,
        cache=batch.cache,
        check=False,  # a generated placeholder is a token like any other
    )
    batch.next_position = batch.next_position + 1
    return model.logits(hidden[:, -1])


def check_length(model: VisionLanguageModel, prompt: Sequence[int]) -> None:
    """Raise UsageError unless the model can read this prompt and say at least one token."""
    limit = model.decoder.config.max_position_embeddings
    if not 0 < len(prompt) < limit:
        raise UsageError(
            f"the prompt takes {len(prompt)} tokens, pictures included; this model reads "
            f"1 to {limit - 1}: shorten the text"
        )


def budgets(model: VisionLanguageModel, prompts: Prompts, config: GenerationConfig) -> list[int]:
    """How many tokens each row may say; raises UsageError as `check_length`.

    Each row has its own limit, so that a long neighbour does not cut it short.
    """
    for prompt in prompts:
        check_length(model, prompt)
    limit = model.decoder.config.max_position_embeddings
    return [min(config.max_new_tokens, limit - len(prompt)) for prompt in prompts]


def _decode(
    model: VisionLanguageModel,
    prompts: Prompts,
    pixel_values: Tensor | None,
    image_features: Tensor | None,
    config: GenerationConfig,
    seeds: Sequence[int],
) -> Generator[list[int | None], None, list[Generated]]:
    """Yield each step's new token a row (None: the row has ended); return what all rows said."""
    limits = budgets(model, prompts, config)
    results = [Generated() for _ in prompts]
    running = set(range(len(prompts)))
    choose = _Chooser(config, seeds)
    longest = max(map(len, prompts))
    logits, batch = prefill(model, prompts, pixel_values, image_features, longest + max(limits))
    choose.start(prompts, logits.shape[-1], logits.device)
    while True:
        tokens, probs = choose(logits)
        new: list[int | None] = [None] * len(prompts)
        for row, (token, prob) in enumerate(zip(tokens.tolist(), probs.tolist(), strict=True)):
            if row not in running:
                continue
            result = results[row]
            if token in config.stop_token_ids:
                result.stop_prob, result.finish_reason = prob, "stop"
                running.remove(row)
                continue
            result.ids.append(token)
            result.token_probs.append(prob)
            new[row] = token
            if len(result.ids) == limits[row]:
                running.remove(row)
        yield new
        if not running:
            return results
        logits = step(model, tokens, batch)


def generate(
    model: VisionLanguageModel,
    input_ids: Prompts,
    pixel_values: Tensor | None = None,
    config: GenerationConfig | None = None,
    seeds: Sequence[int] | None = None,
    image_features: Tensor | None = None,
) -> list[Generated]:
    """Continue a batch of prompts.

    Args:
        model: in evaluation mode, on its device.
        input_ids: one prompt a row, of any lengths, image placeholders included.
        pixel_values: `[K, 3, S, S]`, all rows' pictures in the order of their placeholders.
        config: default: greedy.
        seeds: one a row; default: `config.seed` for every row, which gives a row what it would
            say alone, whatever stands beside it.
        image_features: `[K, M, D]` instead of `pixel_values`, from `model.image_tokens`: for many
            questions about one picture, which then is encoded once.

    Raises:
        UsageError: a prompt that is empty or longer than the model reads.
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

        return beam_search(model, input_ids, pixel_values, image_features, config)
    run = _decode(model, input_ids, pixel_values, image_features, config, seeds)
    while True:
        try:
            next(run)
        except StopIteration as end:
            results: list[Generated] = end.value
            return results


def stream(
    model: VisionLanguageModel,
    input_ids: Sequence[int],
    pixel_values: Tensor | None = None,
    config: GenerationConfig | None = None,
) -> Generator[int, None, Generated]:
    """Yield the tokens of one prompt's answer as they come; `return` what `generate` gives."""
    config = config or GenerationConfig()
    run = _decode(model, [input_ids], pixel_values, None, config, [config.seed])
    while True:
        try:
            (token,) = next(run)
        except StopIteration as end:
            result: Generated = end.value[0]
            return result
        if token is not None:
            yield token
