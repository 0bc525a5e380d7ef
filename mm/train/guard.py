"""Stops a run before a number that is not finite reaches the weights, and says what it was on.

To look at a number of a GPU the host has to wait for it. Where the optimiser can leave a step out
by a flag on the device (fused AdamW), the flag goes up with the first bad step and stays: that step
and all later ones leave weights and moments as they are until the host looks, when it logs or saves
anyway. Elsewhere it looks at every step.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mm.errors import NotFiniteError
from mm.train.run import RunFolder

FILE = "not_finite.json"


@dataclass(frozen=True)
class _Taken:
    """A step that was not looked at yet: what it was on, and what it gave."""

    step: int
    batches: list[tuple[int, tuple[str, ...]]]  # number, and hashes of samples where known
    cursor: Mapping[str, Any]  # where the data stood before it
    losses: Tensor
    norm: Tensor


class Guard:
    """Keeps what a forward pass changes, so that a step can be given up as if never begun."""

    def __init__(self, modules: nn.Module, folder: RunFolder, optimizer: Optimizer) -> None:
        self.modules, self.folder, self.optimizer = modules, folder, optimizer
        self._before: list[Tensor] = []
        self._taken: list[_Taken] = []
        self._bad = torch.zeros((), device=next(modules.parameters()).device)
        fused = all(group.get("fused") for group in optimizer.param_groups)
        self.waits = not fused or folder.world.size > 1
        if not self.waits:
            optimizer.found_inf = self._bad  # type: ignore[attr-defined]  # as GradScaler sets it

    def before(self) -> None:
        """Note the statistics as they are before a step: they are small, if there are any."""
        now = [buffer.clone() for buffer in self.modules.buffers()]
        if self._before and not self.waits:  # after a bad step, those from before it
            now = [torch.where(self._bad > 0, k, b) for k, b in zip(self._before, now, strict=True)]
        self._before = now

    def after(
        self,
        losses: Tensor,
        norm: Tensor,
        batches: Sequence[Any],  # Any: what the feed makes; `sources` where it knows them
        step: int,
        cursor: Mapping[str, Any],
    ) -> None:
        """Note what a step gave, before the optimiser takes it.

        Raises:
            NotFiniteError: it is not finite, and the host looks at every step.
        """
        on = [(batch.step, tuple(getattr(batch, "sources", ()))) for batch in batches]
        self._taken.append(_Taken(step, on, cursor, losses, norm))
        finite = torch.isfinite(losses.sum() + norm)
        torch.maximum(self._bad, (~finite).to(self._bad.dtype), out=self._bad)
        if self.waits:
            self.look()

    def look(self) -> None:
        """Wait for the device, and stop if a step since the last look was not finite.

        Raises:
            NotFiniteError: one was not.
        """
        if self._bad.item():
            self._stop(next(t for t in self._taken if not torch.isfinite(t.losses.sum() + t.norm)))
        self._taken.clear()

    def _stop(self, bad: _Taken) -> NoReturn:
        """Save the state before the step, and the hashes of the samples that it was on."""
        world = self.folder.world
        for buffer, kept in zip(self.modules.buffers(), self._before, strict=True):
            buffer.copy_(kept)
        cursor = world.share(bad.cursor, -1)
        saved = self.folder.save(bad.step, self.modules, self.optimizer, cursor)
        taken = [entry for share in world.gather(bad.batches) for entry in share]
        samples = sorted({name for _, sources in taken for name in sources})
        loss, norm = bad.losses.tolist()[0], float(bad.norm)
        record = {
            "step": bad.step + 1,
            "loss": repr(loss),
            "gradient_norm": repr(norm),
            "batches": [number for number, _ in taken],
            "samples": samples,
        }
        self.folder.write(FILE, json.dumps(record, indent=2) + "\n")
        what = f"the gradient's norm is {norm}"
        if not torch.isfinite(bad.losses).all():
            what = f"the loss is {loss}"
        on = f"; its samples' hashes are in {self.folder.path / FILE}" if samples else ""
        raise NotFiniteError(
            f"{what} at step {bad.step + 1}{on}: lower recipe.learning_rate or leave those samples"
            f" out; the state before the step is in {saved}"
        )
