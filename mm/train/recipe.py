"""How a model is trained, as `recipe` of a configuration says it; checked when composed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mm.errors import ConfigError
from mm.registry import unknown_name_message

PARTS = ("encoder", "projector", "decoder")
# Weights are float32 in all. bf16: products in bfloat16 (autocast). bf16_residual: what the
# decoder's layers add up is bfloat16, too, which saves memory and its traffic.
PRECISIONS = ("fp32", "bf16", "bf16_residual")
LOGGED = ("loss", "patch_loss", "balance_loss")  # what is known without an evaluation


@dataclass(frozen=True)
class PartRates:
    """Peak learning rates of the parts; None: the common one."""

    encoder: float | None = None
    projector: float | None = None
    decoder: float | None = None

    def __post_init__(self) -> None:
        for part in PARTS:
            rate = getattr(self, part)
            if rate is not None and not rate > 0:
                raise ConfigError(
                    f"recipe.learning_rates.{part} is {rate}; it must be above 0: a part that is"
                    " not to learn belongs in recipe.frozen"
                )


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters on a part's linear layers; the part's own weights stay as they are.

    Attributes:
        alpha: the adapters count `alpha / rank` times.
        targets: names of layers such as q_proj; none: every linear layer but the head.
    """

    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.rank < 1 or not self.alpha > 0:
            raise ConfigError(
                f"recipe.lora: rank is {self.rank} and alpha {self.alpha}; rank starts at 1, and"
                " alpha is above 0"
            )
        if "lm_head" in self.targets:  # the loss reads its weight without calling it
            raise ConfigError("recipe.lora can't adapt lm_head: leave it out of targets")


@dataclass(frozen=True)
class PartLoras:
    """Which parts are trained through adapters, and how."""

    encoder: Lora | None = None
    projector: Lora | None = None
    decoder: Lora | None = None


@dataclass(frozen=True)
class Stage:
    """Steps during which the same parts are trained, with a schedule of their own.

    Attributes:
        steps: 0 for all that the other stages leave of `recipe.steps`.
        train: the parts that learn; the others keep weights and statistics.
        learning_rate, learning_rates, warmup_steps: None for the recipe's own.
    """

    name: str
    train: tuple[str, ...]
    steps: int = 0
    learning_rate: float | None = None
    learning_rates: PartRates = PartRates()
    warmup_steps: int | None = None

    def __post_init__(self) -> None:
        for part in self.train:
            if part not in PARTS:
                raise ConfigError(
                    unknown_name_message(f"part in stage {self.name!r}'s train", part, PARTS)
                )
        if not self.train:
            raise ConfigError(f"stage {self.name!r} trains no part: name some in its `train`")
        if self.steps < 0 or (self.warmup_steps is not None and self.warmup_steps < 1):
            raise ConfigError(f"stage {self.name!r}: steps start at 0 and warmup_steps at 1")
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise ConfigError(
                f"stage {self.name!r}: learning_rate is {self.learning_rate}; it must be above 0"
            )


@dataclass(frozen=True)
class RecipeConfig:
    """How a model is trained. Intervals are in steps."""

    steps: int = 1000
    learning_rate: float = 1e-3
    learning_rates: PartRates = PartRates()  # of parts that learn faster or slower
    schedule: Literal["wsd", "cosine"] = "wsd"
    warmup_steps: int = 200
    decay_share: float = 0.5  # of the steps, at the end of "wsd"
    final_share: float = 0.0  # of the peak, that is left at the end
    optimizer: Literal["adamw", "muon"] = "adamw"
    weight_decay: float = 0.05
    beta1: float = 0.9
    beta2: float = 0.98
    momentum: float = 0.95  # of "muon"
    gradient_clip: float = 1.0
    patch_loss_weight: float = 0.3
    frozen: tuple[str, ...] = ()  # parts that keep their weights: encoder, projector, decoder
    stages: tuple[Stage, ...] = ()  # one after the other, instead of `frozen`
    lora: PartLoras = PartLoras()
    precision: str = "bf16"  # one of PRECISIONS
    compile: bool = False
    accumulate: int = 1  # batches to a step; every labelled token of a step counts the same
    recompute: tuple[str, ...] = ()  # parts whose activations are computed again, to save memory
    balance_weight: float | None = None  # of the experts' load; None: as the decoder's config says
    num_workers: int = 0
    log_every: int = 20
    evaluate_every: int = 0  # 0: only at the end
    checkpoint_every: int = 500
    keep_checkpoints: int = 2  # the newest
    keep_every: int = 0  # and those of steps that this divides, for ever
    keep_best: str = ""  # and the one with the best value so far of this logged metric
    keep_best_by: Literal["max", "min"] = "max"
    profile_steps: int = 0  # above 0: so many are profiled, after the first few
    distinct_batches: int = 0  # above 0: only the first so many, again and again
    seed: int = 0

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ConfigError(unknown_name_message("recipe.precision", self.precision, PRECISIONS))
        for part in self.frozen:
            if part not in PARTS:
                raise ConfigError(unknown_name_message("part in recipe.frozen", part, PARTS))
        if len(set(self.frozen)) == len(PARTS):
            raise ConfigError("recipe.frozen names every part, so nothing would be trained")
        for part in self.recompute:
            if part not in PARTS:
                raise ConfigError(unknown_name_message("part in recipe.recompute", part, PARTS))
        whole = (
            "accumulate",
            "steps",
            "warmup_steps",
            "log_every",
            "checkpoint_every",
            "keep_checkpoints",
        )
        for name in whole:
            if getattr(self, name) < 1:
                raise ConfigError(f"recipe.{name} is {getattr(self, name)}; it starts at 1")
        for name in ("distinct_batches", "keep_every"):
            if getattr(self, name) < 0:
                raise ConfigError(f"recipe.{name} is {getattr(self, name)}; it starts at 0")
        if not 0 <= self.decay_share <= 1 or not 0 <= self.final_share <= 1:
            raise ConfigError("recipe.decay_share and recipe.final_share lie between 0 and 1")
        if not self.learning_rate > 0:
            raise ConfigError(f"recipe.learning_rate is {self.learning_rate}; it must be above 0")
        for name in ("beta1", "beta2", "momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(
                    f"recipe.{name} is {getattr(self, name)}; it lies from 0 to below 1"
                )
        from_none = ("weight_decay", "patch_loss_weight", "evaluate_every", "num_workers")
        for name in (*from_none, "profile_steps", "distinct_batches"):
            if getattr(self, name) < 0:
                raise ConfigError(f"recipe.{name} is {getattr(self, name)}; it starts at 0")
        if not self.gradient_clip > 0:
            raise ConfigError(f"recipe.gradient_clip is {self.gradient_clip}; it must be above 0")
        if self.keep_best and self.keep_best not in LOGGED and not self.evaluate_every:
            raise ConfigError(
                f"recipe.keep_best is {self.keep_best!r}, which is measured at the end only: set"
                " recipe.evaluate_every as well"
            )
        self._check_stages()
        for part in PARTS:
            trained = any(part in stage.train for stage in self.all_stages())
            if getattr(self.lora, part) is not None and not trained:
                raise ConfigError(f"recipe.lora.{part} adapts a part that is frozen throughout")

    def _check_stages(self) -> None:
        if not self.stages:
            return
        if self.frozen:
            raise ConfigError("recipe.stages say which parts are trained: leave recipe.frozen out")
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ConfigError(f"recipe.stages have a name twice: {', '.join(names)}")
        open_ended = [stage.name for stage in self.stages if stage.steps == 0]
        together = sum(stage.steps for stage in self.stages)
        if len(open_ended) > 1:
            raise ConfigError(
                f"stages {', '.join(open_ended)} have no steps; one alone can take what is left"
            )
        if together > self.steps or (together == self.steps) == bool(open_ended):
            raise ConfigError(
                f"recipe.stages take {together} steps, but recipe.steps is {self.steps}"
                + ("" if open_ended else ": make them equal, or give one stage steps: 0")
            )

    @property
    def batches(self) -> int:
        """How many batches the steps take together."""
        return self.steps * self.accumulate

    def all_stages(self) -> tuple[Stage, ...]:
        """The stages with their steps filled in; a recipe without any is one stage."""
        if not self.stages:
            parts = tuple(part for part in PARTS if part not in self.frozen)
            return (
                Stage("all" if len(parts) == len(PARTS) else "+".join(parts), parts, self.steps),
            )
        left = self.steps - sum(stage.steps for stage in self.stages)
        return tuple(
            stage if stage.steps else Stage(**{**vars(stage), "steps": left})
            for stage in self.stages
        )
