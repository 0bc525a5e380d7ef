"""Low-rank adapters on any part of a model, merged into its weights when training ends.

Ref: "LoRA: Low-Rank Adaptation of Large Language Models", arXiv 2106.09685, section 4.1.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mm.errors import ConfigError
from mm.train.recipe import PARTS, Lora, PartLoras


class LoraLinear(nn.Linear):
    """A linear layer whose weight stays as it is, with a trained product of two thin matrices.

    The weight keeps its name, so checkpoints and published names stay what they were.
    """

    def __init__(self, base: nn.Linear, rank: int, alpha: float, generator: torch.Generator):
        nn.Module.__init__(self)
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.bias = base.weight, base.bias
        self.scale = alpha / rank
        drawn = torch.empty(rank, self.in_features, device=generator.device)
        bound = 1 / math.sqrt(self.in_features)
        drawn.uniform_(-bound, bound, generator=generator)
        self.lora_A = nn.Parameter(drawn.to(base.weight))
        self.lora_B = nn.Parameter(base.weight.new_zeros(self.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        """Map `[..., in_features]` to `[..., out_features]`."""
        update = F.linear(F.linear(x, self.lora_A), self.lora_B)
        return super().forward(x) + self.scale * update

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The plain layer that computes the same."""
        with torch.device("meta"):
            plain = nn.Linear(self.in_features, self.out_features, self.bias is not None)
        product = self.lora_B.float() @ self.lora_A.float()
        self.weight.add_((self.scale * product).to(self.weight.dtype))
        plain.weight, plain.bias = self.weight, self.bias
        return plain


def add_lora(model: nn.Module, loras: PartLoras, generator: torch.Generator) -> None:
    """Put adapters on the parts that have them, and freeze those parts' own weights.

    Raises:
        ConfigError: no layer of the part has a name of `targets`.
    """
    for part in PARTS:
        lora: Lora | None = getattr(loras, part)
        if lora is None:
            continue
        root: nn.Module = getattr(model, part)
        root.requires_grad_(False)
        layers = {
            f"{part}.{path}".rstrip("."): layer
            for path, layer in root.named_modules()
            if type(layer) is nn.Linear
        }
        found = {path: layer for path, layer in layers.items() if _is_target(path, lora)}
        if not found:
            names = sorted({path.rpartition(".")[2] for path in layers})
            raise ConfigError(
                f"recipe.lora.{part}.targets {list(lora.targets)} are no layers of the {part};"
                f" known: {', '.join(names) or 'none'}"
            )
        for path, layer in found.items():
            parent, _, name = path.rpartition(".")
            adapted = LoraLinear(layer, lora.rank, lora.alpha, generator)
            setattr(model.get_submodule(parent), name, adapted)


def merge_lora(model: nn.Module) -> None:
    """Add every adapter to the weight it stands beside, and leave plain layers."""
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, LoraLinear):
                setattr(parent, name, layer.merged())


def _is_target(path: str, lora: Lora) -> bool:
    name = path.rpartition(".")[2]
    # The head is as large as all else together, and often the embedding as well.
    return name in lora.targets if lora.targets else name != "lm_head"
