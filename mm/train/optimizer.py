"""Parameter groups, by part, as parts may learn at rates of their own; AdamW and Muon over them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.optim import AdamW, Optimizer

from mm.errors import CheckpointError, ConfigError
from mm.train.blocks import blocks_of
from mm.train.recipe import PARTS, RecipeConfig

Groups = list[dict[str, Any]]  # as torch.optim takes them, with the `part` of each


class MuonWithAdamW(Optimizer):
    """Muon for matrices within blocks, AdamW for all else, as one optimiser.

    `param_groups` and `state` are shared with the two, so that rates are set and checkpoints
    written as for a single one.
    """

    def __init__(self, muon: torch.optim.Muon, adamw: AdamW | None) -> None:
        self.both = [each for each in (adamw, muon) if each is not None]
        super().__init__([group for each in self.both for group in each.param_groups], {})
        for each in self.both:
            each.state = self.state

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Take a step with each; `closure` is not used."""
        for each in self.both:
            each.step()


TrainOptimizer: TypeAlias = AdamW | MuonWithAdamW


def part_of(name: str) -> str:
    """The part that a parameter `model.PART....` belongs to; "" for those of auxiliary heads."""
    words = name.split(".")
    return next((word for word in words[:2] if word in PARTS), "")


def build_optimizer(modules: nn.Module, recipe: RecipeConfig) -> TrainOptimizer:
    """The recipe's optimiser over what learns.

    Matrices alone are decayed: not norms, biases, embeddings or other vectors. Each part has groups
    of its own, named by `part`; the auxiliary heads' part is "".

    Muon ("Muon is Scalable for LLM Training", arXiv 2502.16982, section 2.2) scales its updates to
    the size of AdamW's, so that both take the same rates and decay. It is for matrices between
    layers: not the embedding, the head, patches or the projector. Experts, which are stored as
    one tensor of three axes, and adapters stay with AdamW.

    Raises:
        ConfigError: Muon is chosen, but nothing that learns is for it.
    """
    named = [(name, p) for name, p in modules.named_parameters() if p.requires_grad]
    if recipe.optimizer == "adamw":
        return _adamw(named, recipe)
    inside = {id(p) for block in blocks_of(modules) for p in block.parameters()}
    hidden = [
        (name, p)
        for name, p in named
        if id(p) in inside and p.ndim == 2 and "embed" not in name and "lora_" not in name
    ]
    if not hidden:
        raise ConfigError(
            "optimizer=muon has no matrix to train: the parts that learn have none within blocks,"
            " or learn through adapters alone: use optimizer=adamw"
        )
    taken = {id(p) for _, p in hidden}
    others = [(name, p) for name, p in named if id(p) not in taken]
    muon = torch.optim.Muon(
        _groups(hidden, recipe.weight_decay),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        adjust_lr_fn="match_rms_adamw",
    )
    return MuonWithAdamW(muon, _adamw(others, recipe) if others else None)


def _adamw(named: Iterable[tuple[str, nn.Parameter]], recipe: RecipeConfig) -> AdamW:
    groups = _groups(named, recipe.weight_decay)
    fused = all(parameter.is_cuda for group in groups for parameter in group["params"])
    betas = (recipe.beta1, recipe.beta2)
    return AdamW(groups, lr=recipe.learning_rate, betas=betas, eps=1e-8, fused=fused)


def _groups(named: Iterable[tuple[str, nn.Parameter]], weight_decay: float) -> Groups:
    """Matrices of each part, then the rest of each."""
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in named:
        is_matrix = parameter.ndim >= 2 and "embed" not in name
        groups.setdefault((part_of(name), is_matrix), []).append(parameter)
    ordered = sorted(groups.items(), key=lambda item: not item[0][1])
    return [
        {"params": found, "weight_decay": weight_decay if is_matrix else 0.0, "part": part}
        for (part, is_matrix), found in ordered
    ]


def check_state(optimizer: Optimizer, recipe: RecipeConfig) -> None:
    """Look whether what was loaded into an optimiser is its own.

    Raises:
        CheckpointError: it is of the other kind.
    """
    for group in optimizer.param_groups:
        wanted = "momentum_buffer" if "ns_steps" in group else "exp_avg"
        for parameter in group["params"]:
            state = optimizer.state.get(parameter)
            if state and wanted not in state:
                raise CheckpointError(
                    f"the checkpoint is of another optimizer than {recipe.optimizer}: put"
                    " optimizer= back, or start a new run with another output"
                )
