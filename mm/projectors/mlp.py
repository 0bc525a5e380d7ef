"""The MLP projector of InternVL: pixel shuffle, LayerNorm, two matrices with a GELU between.

Without LayerNorm and shuffling it is LLaVA 1.5's (arXiv 2310.03744).

Ref: InternVL 1.5 (arXiv 2404.16821), section 3; module names and the norm's eps as published.

B pictures, N patches, D encoder width, M image tokens, f shuffle factor.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mm import projectors
from mm.projectors import Grid
from mm.projectors.shuffle import pixel_shuffle, shuffled_grid


@dataclass(frozen=True)
class Config:
    """`input_size` is the encoder's width, `output_size` the decoder's and the hidden one."""

    input_size: int
    output_size: int
    shuffle: int = 1
    layer_norm: bool = True
    layer_norm_eps: float = 1e-5
    initializer_range: float = 0.02

    def __post_init__(self) -> None:
        if self.shuffle < 1:
            raise ValueError(f"shuffle is {self.shuffle}; it must be at least 1, for no shuffling")


class Projector(projectors.Projector):
    """Two layers from `f² D` to the decoder's width."""

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        merged = config.input_size * config.shuffle**2
        normed = config.layer_norm
        self.layer_norm = (
            nn.LayerNorm(merged, eps=config.layer_norm_eps) if normed else nn.Identity()
        )
        self.linear_1 = nn.Linear(merged, config.output_size)
        self.linear_2 = nn.Linear(config.output_size, config.output_size)

    def token_grid(self, grid: Grid) -> Grid:
        """Return the patch grid with `shuffle` times shorter sides."""
        return shuffled_grid(grid, self.config.shuffle)

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator) -> None:
        """Draw the matrices from N(0, initializer_range); the biases are 0, the norm's weight 1."""
        if isinstance(self.layer_norm, nn.LayerNorm):
            self.layer_norm.weight.fill_(1.0)
            self.layer_norm.bias.zero_()
        for linear in (self.linear_1, self.linear_2):
            drawn = torch.empty(linear.weight.shape, device=generator.device)
            drawn.normal_(0.0, self.config.initializer_range, generator=generator)
            linear.weight.copy_(drawn)
            linear.bias.zero_()

    def project(self, tokens: Tensor, grid: Grid) -> Tensor:
        """Map patch tokens `[B, N, D]` to `[B, M, output_size]`."""
        x = self.layer_norm(pixel_shuffle(tokens, grid, self.config.shuffle))
        return self.linear_2(F.gelu(self.linear_1(x)))  # type: ignore[no-any-return]
