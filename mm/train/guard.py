"""Stops a run before a number that is not finite reaches the weights, and says what it was on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mm.errors import NotFiniteError
from mm.train.run import RunFolder

FILE = "not_finite.json"


class Guard:
    """Keeps what a forward pass changes, so that a step can be given up as if never begun."""

    def __init__(self, modules: nn.Module, folder: RunFolder) -> None:
        self.modules, self.folder = modules, folder
        self._before: list[Tensor] = []

    def before(self) -> None:
        """Note the statistics as they are before a step: they are small, if there are any."""
        self._before = [buffer.clone() for buffer in self.modules.buffers()]

    def stop(
        self,
        losses: Tensor,
        norm: Tensor,
        batches: Sequence[Any],  # Any: what the feed makes; `sources` where it knows them
        step: int,
        optimizer: Optimizer,
        cursor: Mapping[str, Any],
    ) -> NoReturn:
        """Save the state before the step, and the hashes of the samples that it was on.

        Raises:
            NotFiniteError: always.
        """
        for buffer, kept in zip(self.modules.buffers(), self._before, strict=True):
            buffer.copy_(kept)
        saved = self.folder.save(step, self.modules, optimizer, cursor)
        mine = [(batch.step, tuple(getattr(batch, "sources", ()))) for batch in batches]
        taken = [entry for share in self.folder.world.gather(mine) for entry in share]
        samples = sorted({name for _, sources in taken for name in sources})
        loss, _, _ = losses.tolist()
        record = {
            "step": step + 1,
            "loss": repr(loss),
            "gradient_norm": repr(float(norm)),
            "batches": [number for number, _ in taken],
            "samples": samples,
        }
        self.folder.write(FILE, json.dumps(record, indent=2) + "\n")
        what = (
            f"the loss is {loss}"
            if not torch.isfinite(losses).all()
            else (f"the gradient's norm is {float(norm)}")
        )
        on = f"; its samples' hashes are in {self.folder.path / FILE}" if samples else ""
        raise NotFiniteError(
            f"{what} at step {step + 1}{on}: lower recipe.learning_rate or leave those samples out;"
            f" the state before the step is in {saved}"
        )
