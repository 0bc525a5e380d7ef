"""Which parts learn during which steps, and how fast."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from torch import nn

from mm.train.optimizer import TrainOptimizer
from mm.train.recipe import PARTS, RecipeConfig, Stage
from mm.train.schedule import learning_rate_at


class Stages:
    """Follows a recipe's stages over the steps of a run.

    Args:
        modules: what is trained: `model` with its parts, and auxiliary heads beside it, which
            always learn at the common rate.
    """

    def __init__(self, modules: nn.ModuleDict, recipe: RecipeConfig) -> None:
        self.modules = modules
        self.recipe = recipe
        self.stages = recipe.all_stages()
        self.ends = list(accumulate(stage.steps for stage in self.stages))
        self._trainable = {
            part: [p for p in self._part(part).parameters() if p.requires_grad] for part in PARTS
        }

    def _part(self, part: str) -> nn.Module:
        module: nn.Module = getattr(self.modules["model"], part)
        return module

    def at(self, step: int) -> tuple[Stage, int]:
        """The stage in which `step` lies, and its step within it."""
        index = min(bisect_right(self.ends, step), len(self.stages) - 1)
        return self.stages[index], step - self.ends[index] + self.stages[index].steps

    def is_start(self, step: int) -> bool:
        """Whether a stage begins at `step`."""
        return step == 0 or step in self.ends[:-1]

    def ever_trained(self) -> set[str]:
        """Parts that learn in any stage."""
        return {part for stage in self.stages for part in stage.train}

    def enter(self, stage: Stage) -> None:
        """Let the stage's parts learn; freeze the weights and the statistics of the others.

        A frozen part is in evaluation mode: a batch norm neither uses nor gathers the batch's
        statistics, and nothing is dropped out.
        """
        self.modules.train()
        for part in PARTS:
            learns = part in stage.train
            self._part(part).train(learns)
            for parameter in self._trainable[part]:
                parameter.requires_grad_(learns)
                if not learns:
                    parameter.grad = None

    def set_rates(self, optimizer: TrainOptimizer, step: int) -> float:
        """Give every parameter group its learning rate at `step`; return the common one."""
        stage, within = self.at(step)
        for group in optimizer.param_groups:
            group["lr"] = self._rate(stage, within, group["part"])
        return self._rate(stage, within, "")

    def peak(self, stage: Stage, part: str) -> float:
        """The highest learning rate of a part in a stage: the most particular that is given."""
        common = self.recipe.learning_rate if stage.learning_rate is None else stage.learning_rate
        if part not in PARTS:
            return common
        own: float | None = getattr(stage.learning_rates, part)
        if own is None and stage.learning_rate is None:
            own = getattr(self.recipe.learning_rates, part)
        return common if own is None else own

    def _rate(self, stage: Stage, step: int, part: str) -> float:
        recipe = self.recipe
        warmup = recipe.warmup_steps if stage.warmup_steps is None else stage.warmup_steps
        return learning_rate_at(
            step,
            stage.steps,
            self.peak(stage, part),
            warmup,
            recipe.decay_share,
            recipe.schedule,
            recipe.final_share,
        )

    def table(self) -> str:
        """What is frozen and what is trained, stage after stage, with counts of parameters."""
        rows = [("stage", "steps", "part", "parameters", "trained", "learning rate")]
        first = 1
        for stage, last in zip(self.stages, self.ends, strict=True):
            for part in PARTS:
                total = sum(p.numel() for p in self._part(part).parameters())
                learns = part in stage.train
                trained = sum(p.numel() for p in self._trainable[part]) if learns else 0
                rate = f"{self.peak(stage, part):g}" if trained else "frozen"
                head = (stage.name, f"{first}-{last}") if part == PARTS[0] else ("", "")
                rows.append((*head, part, f"{total:,}", f"{trained:,}", rate))
            first = last + 1
        return _aligned(rows, right=(3, 4))


def _aligned(rows: Sequence[Sequence[str]], right: Sequence[int]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
