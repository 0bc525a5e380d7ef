"""The learning rate over time."""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["wsd", "cosine"]


def learning_rate_at(
    step: int,
    steps: int,
    peak: float,
    warmup: int,
    decay_share: float,
    schedule: Schedule = "wsd",
    final_share: float = 0.0,
) -> float:
    """Linear warm-up to `peak`, then down to `final_share` of it at the end.

    Args:
        schedule: "wsd" (warm-up, stable, decay) stays at the peak and decays linearly over the last
            `decay_share` of the steps; "cosine" follows half a wave from the end of the warm-up.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    if schedule == "cosine":
        done = (step - warmup) / max(1, steps - warmup)
        left = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    else:
        decay_steps = max(1, round(steps * decay_share))
        left = min(1.0, max(0.0, (steps - step) / decay_steps))
    return peak * (final_share + (1 - final_share) * left if final_share else left)
