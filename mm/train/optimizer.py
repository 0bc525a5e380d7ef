"""AdamW's parameter groups and the learning rate over time."""

from __future__ import annotations

from torch import nn
from torch.optim import AdamW


def build_adamw(
    modules: nn.Module, learning_rate: float, weight_decay: float, betas: tuple[float, float]
) -> AdamW:
    """AdamW that decays matrices only: not norms, biases, embeddings or other vectors."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in modules.named_parameters():
        if not parameter.requires_grad:
            continue
        is_matrix = parameter.ndim >= 2 and "embed" not in name
        (decayed if is_matrix else plain).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    fused = all(parameter.is_cuda for parameter in decayed)
    return AdamW(groups, lr=learning_rate, betas=betas, eps=1e-8, fused=fused)


def learning_rate_at(step: int, steps: int, peak: float, warmup: int, decay_share: float) -> float:
    """Linear warm-up, a plateau, then linear decay to zero over the last `decay_share`."""
    if step < warmup:
        return peak * (step + 1) / warmup
    decay_steps = max(1, round(steps * decay_share))
    return peak * min(1.0, max(0.0, (steps - step) / decay_steps))
