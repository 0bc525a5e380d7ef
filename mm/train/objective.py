"""What training minimises: cross-entropy on answer tokens, and the auxiliary patch loss.

L labelled tokens, D width, V vocabulary, N patches.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

CHUNK = 16_384  # labelled tokens whose logits exist at once


def _chunk_loss(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    logits = F.linear(hidden, weight).float()
    return F.cross_entropy(logits, labels, reduction="sum")


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, labels: Tensor, chunk: int = CHUNK
) -> Tensor:
    """Mean cross-entropy of `hidden @ weight.T` against labels, without the full logits.

    Args:
        hidden: `[L, D]`, of labelled tokens only.
        weight: `[V, D]`, the head.
        labels: int64 `[L]`.
        chunk: labelled tokens at a time; logits of a chunk are computed again in the backward pass.
    """
    total = hidden.new_zeros((), dtype=torch.float32)
    for start in range(0, len(labels), chunk):
        part = hidden[start : start + chunk], weight, labels[start : start + chunk]
        if len(labels) > chunk:
            total = total + checkpoint(_chunk_loss, *part, use_reentrant=False)
        else:
            total = total + _chunk_loss(*part)
    return total / max(len(labels), 1)


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
