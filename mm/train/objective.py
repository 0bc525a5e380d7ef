"""What training minimises: cross-entropy on answer tokens, and the auxiliary patch loss.

L labelled tokens, D width, V vocabulary, N patches.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHUNK = 16_384  # labelled tokens whose logits exist at once; fewer of a large vocabulary
_LOGITS = 2**29  # numbers in a chunk of a large vocabulary


def chunk_of(vocab_size: int) -> int:
    """How many labelled tokens' logits exist at once."""
    return max(256, min(CHUNK, _LOGITS // vocab_size // 256 * 256))


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, labels: Tensor, chunk: int | None = None
) -> Tensor:
    """Mean cross-entropy of `hidden @ weight.T` against labels, without the full logits.

    Args:
        hidden: `[L, D]`, of labelled tokens only.
        weight: `[V, D]`, the head.
        labels: int64 `[L]`.
        chunk: labelled tokens at a time; by default as many as `chunk_of` says.
    """
    chunk = chunk or chunk_of(weight.shape[0])
    if len(labels) > chunk or len(labels) * weight.shape[0] > _LOGITS // 4:
        total: Tensor = _Chunks.apply(hidden, weight, labels, chunk)
    else:
        total = F.cross_entropy(F.linear(hidden, weight).float(), labels, reduction="sum")
    return total / max(len(labels), 1)


class _Chunks(torch.autograd.Function):
    """The summed loss, chunk by chunk; a chunk's gradients are taken while its logits are there.

    So nothing is computed twice, as it would be if logits were made again going backward. Ref: the
    idea is that of "Liger Kernel" (arXiv 2410.10989), section 3.2.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor, chunk: int) -> Tensor:
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        learns_hidden, learns_weight = ctx.needs_input_grad[:2]
        pieces = -(-len(labels) // chunk)
        with torch.autocast(device, enabled=False):
            of_hidden = torch.empty_like(hidden) if learns_hidden else None
            of_weight = torch.zeros_like(weight) if learns_weight else None
            head = weight.to(dtype or weight.dtype)
            total = hidden.new_zeros((), dtype=torch.float32)
            step = _on_gpu() if hidden.is_cuda else loss_and_gradient
            for places in torch.arange(len(labels)).tensor_split(pieces):
                at = slice(int(places[0]), int(places[-1]) + 1)  # of nearly one size
                part = hidden[at].to(head.dtype)
                loss, gradient = step(part @ head.T, labels[at])
                total += loss
                if of_hidden is not None:
                    of_hidden[at] = gradient @ head
                if of_weight is not None:
                    of_weight += gradient.T @ part
        ctx.save_for_backward(of_hidden, of_weight)
        return total

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        scaled = (None if g is None else g * upstream.to(g.dtype) for g in ctx.saved_tensors)
        return (*scaled, None, None)


def loss_and_gradient(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Summed cross-entropy of logits `[L, V]`, and its gradient in their dtype."""
    wide = logits.float()
    log_sum = wide.logsumexp(dim=-1, keepdim=True)
    loss = (log_sum - wide.gather(1, labels[:, None])).sum()
    is_label = torch.arange(logits.shape[1], device=logits.device) == labels[:, None]
    return loss, ((wide - log_sum).exp() - is_label.float()).to(logits.dtype)


@functools.cache
def _on_gpu() -> Any:
    """`loss_and_gradient` in two passes over the logits instead of ten."""
    return torch.compile(loss_and_gradient, dynamic=True)


class PatchClassifier(nn.Module):
    """Says what every patch shows: an auxiliary head that teaches the encoder, then is dropped.

    Args:
        hidden_size: width of the encoder's tokens.
        num_classes: values of each label. The first is what the patch shows, its last value the
            ground; the others are facts about that thing and are left out (-100) on the ground.
        cells: labels per side of the picture; patches are averaged down to them.
    """

    def __init__(self, hidden_size: int, num_classes: Sequence[int], cells: int = 16) -> None:
        super().__init__()
        self.cells = cells
        self.num_classes = tuple(num_classes)
        self.norm = nn.LayerNorm(hidden_size)
        self.head = nn.Linear(hidden_size, sum(num_classes))

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator) -> None:
        """Draw the head from `generator`."""
        drawn = torch.empty(self.head.weight.shape, device=generator.device)
        self.head.weight.copy_(drawn.normal_(0.0, 0.02, generator=generator))
        self.head.bias.zero_()

    def forward(self, tokens: Tensor, grid: tuple[int, int], labels: Tensor) -> Tensor:
        """Sum of the labels' mean losses over the cells.

        The ground counts a tenth, as most cells show it.

        Args:
            tokens: `[B, N, D]` in the order of the `(h, w)` grid.
            labels: int64 `[B, labels, cells, cells]`.
        """
        x = tokens.unflatten(1, grid)
        if grid != (self.cells, self.cells):
            x = F.adaptive_avg_pool2d(x.permute(0, 3, 1, 2), self.cells).permute(0, 2, 3, 1)
        logits = self.head(self.norm(x)).flatten(0, 2).float()
        what, *facts = logits.split(self.num_classes, dim=1)
        weight = torch.ones(what.shape[1], device=logits.device)
        weight[-1] = 0.1
        loss = F.cross_entropy(what, labels[:, 0].flatten(), weight=weight)
        for index, fact in enumerate(facts, 1):
            wanted = labels[:, index].flatten()
            # A sum over the labelled cells, as a mean over none is not a number.
            total = F.cross_entropy(fact, wanted, reduction="sum")
            loss = loss + total / (wanted >= 0).sum().clamp_min(1)
        return loss
