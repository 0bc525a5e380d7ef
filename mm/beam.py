"""Beam search: the likeliest whole answer, where greedy decoding takes the likeliest next token.

A caption that begins "a key" cannot become "two keys" any more when the second key is noticed;
several beginnings are kept until one answer is likelier than any that is still unfinished.
Scores are plain sums of log probabilities, without a bonus for length: they only fall as an answer
grows, so the search may stop as soon as the best finished answer leads.

B rows, W beams of a row, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mm.errors import NotFiniteError
from mm.generate import Generated
from mm.sampling import GenerationConfig
from mm.steps import Batch, budgets, prefill, step
from mm.vlm import ImageFeatures, Pictures, VisionLanguageModel


@dataclass
class _Beam:
    """One beginning of an answer."""

    score: float = 0.0
    ids: list[int] = field(default_factory=list)
    probs: list[float] = field(default_factory=list)


@dataclass
class _Row:
    """The search for one prompt, of at most `budget` tokens."""

    budget: int
    beams: list[_Beam] = field(default_factory=lambda: [_Beam()])
    best: _Beam | None = None  # the best finished answer
    stop_prob: float = 0.0

    @property
    def done(self) -> bool:
        """Whether no unfinished answer can still overtake, or the tokens have run out."""
        leads = self.best is not None and self.best.score >= self.beams[0].score
        return leads or len(self.beams[0].ids) == self.budget


def beam_search(
    model: VisionLanguageModel,
    prompts: Sequence[Sequence[int]],
    pictures: Pictures | None,
    image_features: ImageFeatures | None,
    config: GenerationConfig,
) -> list[Generated]:
    """The likeliest answer to each prompt that `config.num_beams` beams find.

    Args and errors are those of `mm.generate.generate`.
    """
    B, W = len(prompts), config.num_beams
    limits = budgets(model, prompts, config)
    longest = max(map(len, prompts)) + max(limits)
    chunk = config.prefill_chunk
    logits, batch = prefill(model, prompts, pictures, image_features, longest, chunk)
    rows = [_Row(limit) for limit in limits]
    # All beams of a row start from its prompt; the first step tells them apart.
    _reorder(batch, torch.arange(B, device=logits.device).repeat_interleave(W))
    logits = logits.repeat_interleave(W, 0)
    while True:
        log_probs = _valid(logits, config).log_softmax(-1).unflatten(0, (B, W))
        # A beam can give W + (number of stops) candidates that matter.
        top = log_probs.topk(min(W + len(config.stop_token_ids), log_probs.shape[-1]), dim=-1)
        values, tokens = top.values.tolist(), top.indices.tolist()
        if any(math.isnan(found[0][0]) for found in values):
            raise NotFiniteError.in_logits()
        parents, chosen = [], []
        for b, row in enumerate(rows):
            if not row.done:
                kept = _extend(row, values[b], tokens[b], config)
                row.beams = [beam for _, beam in kept]
                origin = [w for w, _ in kept]
            else:
                origin = list(range(len(row.beams)))
            # Rows that are done, or have fewer beams, are computed along and not read.
            origin += [0] * (W - len(origin))
            parents += [b * W + w for w in origin]
            chosen += [beam.ids[-1] if beam.ids else 0 for beam in row.beams]
            chosen += [0] * (W - len(row.beams))
        if all(row.done for row in rows):
            return [_result(row) for row in rows]
        _reorder(batch, torch.tensor(parents, device=logits.device))
        logits = step(model, torch.tensor(chosen, device=logits.device), batch)


def _extend(
    row: _Row, values: list[list[float]], tokens: list[list[int]], config: GenerationConfig
) -> list[tuple[int, _Beam]]:
    """The best continuations, each with the beam it comes from; notes finished answers."""
    found: list[tuple[float, int, int, float]] = []
    for w, beam in enumerate(row.beams):
        for value, token in zip(values[w], tokens[w], strict=True):
            found.append((beam.score + value, w, token, value))
    found.sort(key=lambda candidate: -candidate[0])
    kept: list[tuple[int, _Beam]] = []
    for score, w, token, value in found:
        beam = row.beams[w]
        prob = math.exp(value)
        if token in config.stop_token_ids:
            if row.best is None or score > row.best.score:
                row.best, row.stop_prob = _Beam(score, beam.ids, beam.probs), prob
        elif len(kept) < config.num_beams:
            kept.append((w, _Beam(score, [*beam.ids, token], [*beam.probs, prob])))
    return kept


def _result(row: _Row) -> Generated:
    if row.best is not None:
        return Generated(row.best.ids, row.best.probs, row.stop_prob, "stop")
    return Generated(row.beams[0].ids, row.beams[0].probs, None, "length")


def _valid(logits: Tensor, config: GenerationConfig) -> Tensor:
    logits = logits.float()
    if config.num_valid_tokens is not None:
        logits[:, config.num_valid_tokens :] = -torch.inf
    return logits


def _reorder(batch: Batch, rows: Tensor) -> None:
    """Make the batch's rows those of the given numbers, with what each has cached."""
    batch.cache.reorder(rows)
    batch.next_position = batch.next_position[rows]
    if batch.valid is not None:
        batch.valid = batch.valid[rows]
