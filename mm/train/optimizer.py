"""Parameter groups: by part, as parts may learn at rates of their own, and by what is decayed."""

from __future__ import annotations

from torch import nn
from torch.optim import AdamW

from mm.train.recipe import PARTS

TrainOptimizer = AdamW


def part_of(name: str) -> str:
    """The part that a parameter `model.PART....` belongs to; "" for those of auxiliary heads."""
    words = name.split(".")
    return next((word for word in words[:2] if word in PARTS), "")


def build_adamw(
    modules: nn.Module, learning_rate: float, weight_decay: float, betas: tuple[float, float]
) -> AdamW:
    """AdamW that decays matrices only: not norms, biases, embeddings or other vectors.

    Each part has two groups, named by `part`; the auxiliary heads' part is "".
    """
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in modules.named_parameters():
        if parameter.requires_grad:
            is_matrix = parameter.ndim >= 2 and "embed" not in name
            groups.setdefault((part_of(name), is_matrix), []).append(parameter)
    ordered = sorted(groups.items(), key=lambda item: not item[0][1])  # matrices first
    described = [
        {"params": found, "weight_decay": weight_decay if is_matrix else 0.0, "part": part}
        for (part, is_matrix), found in ordered
    ]
    fused = all(parameter.is_cuda for found in groups.values() for parameter in found)
    return AdamW(described, lr=learning_rate, betas=betas, eps=1e-8, fused=fused)
