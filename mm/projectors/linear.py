"""The linear projector: pixel shuffle, then one matrix.

B pictures, N patches, D encoder width, M image tokens, f shuffle factor.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mm import projectors
from mm.projectors import Grid
from mm.projectors.shuffle import pixel_shuffle, shuffled_grid


@dataclass(frozen=True)
class Config:
    """`input_size` is the encoder's width, `output_size` the decoder's."""

    input_size: int
    output_size: int
    shuffle: int = 1
    bias: bool = True
    initializer_range: float = 0.02

    def __post_init__(self) -> None:
        if self.shuffle < 1:
            raise ValueError(f"shuffle is {self.shuffle}; it must be at least 1, for no shuffling")


class Projector(projectors.Projector):
    """One matrix from `f² D` to the decoder's width."""

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        merged = config.input_size * config.shuffle**2
        self.linear = nn.Linear(merged, config.output_size, bias=config.bias)

    def token_grid(self, grid: Grid) -> Grid:
        """Return the patch grid with `shuffle` times shorter sides."""
        return shuffled_grid(grid, self.config.shuffle)

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator) -> None:
        """Draw the matrix from N(0, initializer_range); the bias is 0."""
        drawn = torch.empty(self.linear.weight.shape, device=generator.device)
        drawn.normal_(0.0, self.config.initializer_range, generator=generator)
        self.linear.weight.copy_(drawn)
        if self.config.bias:
            self.linear.bias.zero_()

    def project(self, tokens: Tensor, grid: Grid) -> Tensor:
        """Map patch tokens `[B, N, D]` to `[B, M, output_size]`."""
        return self.linear(pixel_shuffle(tokens, grid, self.config.shuffle))  # type: ignore[no-any-return]
