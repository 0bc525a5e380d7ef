"""Qwen3-VL's mergers: 2 x 2 patches become one token, once for each level of features.

The first level becomes the tokens that stand in the text; each further one becomes what is added
to them after one of the decoder's first layers (DeepStack, arXiv 2406.04334).

Ref: "Qwen3-VL Technical Report" (arXiv 2511.21631), section 2; module names, the norms' places and
eps as published. The first merger norms patches, the others what is merged.

B views, N patches, M tokens, D a level's width, f shuffle factor, L levels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mm import projectors
from mm.projectors import Grid
from mm.projectors.checks import check_at_least_one
from mm.projectors.shuffle import pixel_shuffle, shuffled_grid


@dataclass(frozen=True)
class Config:
    """`input_size` is the encoder's width, all levels; `output_size` the decoder's.

    `num_residuals` is the number of levels after the first, and `shuffle` is published as
    `spatial_merge_size`.
    """

    input_size: int
    output_size: int
    num_residuals: int = 0
    shuffle: int = 2
    layer_norm_eps: float = 1e-6
    initializer_range: float = 0.02

    def __post_init__(self) -> None:
        check_at_least_one(shuffle=self.shuffle)
        if self.num_residuals < 0 or self.input_size % (1 + self.num_residuals):
            raise ValueError(
                f"num_residuals is {self.num_residuals}; it must be how many levels the encoder's"
                f" {self.input_size} channels hold beside the first, all equally wide"
            )


class Merger(nn.Module):
    def __init__(self, config: Config, norm_merged: bool) -> None:
        super().__init__()
        D = config.input_size // (1 + config.num_residuals)
        merged = D * config.shuffle**2
        self.shuffle, self.norm_merged = config.shuffle, norm_merged
        self.norm = nn.LayerNorm(merged if norm_merged else D, eps=config.layer_norm_eps)
        self.linear_fc1 = nn.Linear(merged, merged)
        self.linear_fc2 = nn.Linear(merged, config.output_size)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """Map a level `[B, N, D]` to `[B, M, output_size]`."""
        if not self.norm_merged:
            x = self.norm(x)
        x = pixel_shuffle(x, grid, self.shuffle)
        if self.norm_merged:
            x = self.norm(x)
        return self.linear_fc2(F.gelu(self.linear_fc1(x)))  # type: ignore[no-any-return]


class Projector(projectors.Projector):
    """One merger for each level."""

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.merger = Merger(config, norm_merged=False)
        self.deepstack_merger_list = nn.ModuleList(
            Merger(config, norm_merged=True) for _ in range(config.num_residuals)
        )

    @property
    def num_residuals(self) -> int:
        """How many levels come beside the tokens."""
        return self.config.num_residuals

    def token_grid(self, grid: Grid) -> Grid:
        """Return the grid of merged patches."""
        return shuffled_grid(grid, self.config.shuffle)

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator) -> None:
        """Draw matrices from N(0, initializer_range); biases are 0, the weights of norms 1."""
        for name, parameter in self.named_parameters():
            drawn = torch.zeros(parameter.shape, device=generator.device)
            if name.endswith("norm.weight"):
                drawn.fill_(1.0)
            elif name.endswith("weight"):
                drawn.normal_(0.0, self.config.initializer_range, generator=generator)
            parameter.copy_(drawn)

    def project(self, tokens: Tensor, grid: Grid) -> Tensor:
        """Map levels `[B, N, L D]` to `[B, M, L output_size]`, the tokens first."""
        mergers = (self.merger, *self.deepstack_merger_list)
        levels = tokens.chunk(1 + self.num_residuals, dim=-1)
        merged = (merger(x, grid) for merger, x in zip(mergers, levels, strict=True))
        return torch.cat(list(merged), dim=-1)
