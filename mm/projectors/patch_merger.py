"""LightOnOCR's projector: squares of patches become one token by a matrix of their own.

    norm of each patch -> f x f patches side by side -> merging matrix -> matrix, GELU, matrix

Ref: Mistral Small 3.1's and LightOnOCR's published projector, as transformers runs it; module names
as published. A last row or column that fills no square is left out, as there.

B views, N patches, D encoder width, M tokens, f merge factor.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mm import projectors
from mm.projectors import Grid
from mm.projectors.checks import check_at_least_one, check_filled


@dataclass(frozen=True)
class Config:
    """`input_size` is the encoder's width, `output_size` the decoder's; no biases."""

    input_size: int
    output_size: int
    spatial_merge_size: int = 2
    rms_norm_eps: float = 1e-6
    initializer_range: float = 0.02

    def __post_init__(self) -> None:
        check_at_least_one(spatial_merge_size=self.spatial_merge_size)


class Norm(nn.Module):
    """RMSNorm with statistics in float32, and the weight applied in the input's type."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)


class Merger(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        D, self.factor = config.input_size, config.spatial_merge_size
        self.merging_layer = nn.Linear(D * self.factor**2, D, bias=False)

    def forward(self, tokens: Tensor, grid: Grid) -> Tensor:
        f, (h, w) = self.factor, grid
        x_BhwD = tokens.unflatten(1, grid)[:, : h - h % f, : w - w % f]
        x_BhfwfD = x_BhwD.unflatten(2, (-1, f)).unflatten(1, (-1, f))
        # The channels of a merged token run over (D, row offset, column offset).
        merged = x_BhfwfD.permute(0, 1, 3, 5, 2, 4).flatten(3).flatten(1, 2)
        return self.merging_layer(merged)  # type: ignore[no-any-return]


class Projector(projectors.Projector):
    """Norm, merging matrix, and two more with a GELU between."""

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.norm = Norm(config.input_size, config.rms_norm_eps)
        self.patch_merger = Merger(config)
        self.linear_1 = nn.Linear(config.input_size, config.output_size, bias=False)
        self.linear_2 = nn.Linear(config.output_size, config.output_size, bias=False)

    def token_grid(self, grid: Grid) -> Grid:
        """Return the patch grid with shorter sides; what fills no square is left out.

        Raises:
            ValueError: a side is shorter than a square.
        """
        f = self.config.spatial_merge_size
        if min(grid) < f:
            raise ValueError(
                f"patch grid {grid[0]}x{grid[1]} has no square of {f}x{f} patches: the picture is"
                " too narrow, crop it"
            )
        return grid[0] // f, grid[1] // f

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator) -> None:
        """Draw the matrices from N(0, initializer_range); the norm's weight is 1."""
        for name, parameter in self.named_parameters():
            drawn = torch.ones(parameter.shape, device=generator.device)
            if not name.startswith("norm"):
                drawn.normal_(0.0, self.config.initializer_range, generator=generator)
            parameter.copy_(drawn)

    def project(self, tokens: Tensor, grid: Grid) -> Tensor:
        """Map patch tokens `[B, N, D]` to `[B, M, output_size]`."""
        self.token_grid(grid)
        check_filled(tokens, grid)
        x = self.patch_merger(self.norm(tokens), grid)
        return self.linear_2(F.gelu(self.linear_1(x)))  # type: ignore[no-any-return]
