"""The C-Abstractor: convolutions, a pooling to a fixed square, convolutions, and an MLP.

Ref: "Honeybee" (arXiv 2312.06742), section 3.2: RegNet bottlenecks (1x1, depthwise 3x3,
squeeze-and-excitation, 1x1; SiLU; a norm over channels) on both sides of an adaptive average
pooling. Neighbours are merged with neighbours, so places stay where they are, and the number of
tokens is any square. Left out: Honeybee's learnt position embeddings, which fix the grid; the
encoder's tokens know their place, and the 3x3 convolutions see its edges.

B pictures, N patches, D hidden width, M tokens, C H W channels, rows and columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mm import projectors
from mm.projectors import Grid
from mm.projectors.checks import check_at_least_one, check_filled, check_grid


@dataclass(frozen=True)
class Config:
    """`input_size` is the encoder's width, `output_size` the decoder's; `depth` that of a side."""

    input_size: int
    output_size: int
    num_queries: int = 144
    hidden_size: int = 1024
    depth: int = 3
    layer_norm_eps: float = 1e-6
    initializer_range: float = 0.02

    def __post_init__(self) -> None:
        check_at_least_one(
            num_queries=self.num_queries, hidden_size=self.hidden_size, depth=self.depth
        )
        side = math.isqrt(self.num_queries)
        if side**2 != self.num_queries:
            raise ValueError(
                f"num_queries is {self.num_queries}; it must be a square number, such as"
                f" {side**2} or {(side + 1) ** 2}"
            )


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of `[B, C, H, W]`."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNorm(nn.Module):
    def __init__(self, channels: tuple[int, int], kernel: int, groups: int, eps: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(*channels, kernel, padding=kernel // 2, groups=groups, bias=False)
        self.norm = ChannelNorm(channels[1], eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))  # type: ignore[no-any-return]


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.fc2(F.silu(self.fc1(x.mean((2, 3), keepdim=True))))
        return x * gate.sigmoid()  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    def __init__(self, input_size: int, config: Config) -> None:
        super().__init__()
        D, eps = config.hidden_size, config.layer_norm_eps
        self.conv1 = ConvNorm((input_size, D), 1, 1, eps)
        self.conv2 = ConvNorm((D, D), 3, D, eps)
        self.se = SqueezeExcite(D, max(1, round(input_size / 4)))
        self.conv3 = ConvNorm((D, D), 1, 1, eps)
        self.downsample = ConvNorm((input_size, D), 1, 1, eps) if input_size != D else None

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.silu(self.conv2(F.silu(self.conv1(x))))
        return F.silu(self.conv3(self.se(x)) + shortcut)


class Projector(projectors.Projector):
    """`num_queries` tokens on a square, from an image of any size that is not smaller."""

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        D = config.hidden_size
        self.before = self._stage(config.input_size)
        self.after = self._stage(D)
        self.linear_1 = nn.Linear(D, config.output_size)
        self.linear_2 = nn.Linear(config.output_size, config.output_size)

    def _stage(self, input_size: int) -> nn.Sequential:
        widths = [input_size] + [self.config.hidden_size] * (self.config.depth - 1)
        return nn.Sequential(*(Bottleneck(width, self.config) for width in widths))

    @property
    def side(self) -> int:
        """Side of the square that patches are pooled to."""
        return math.isqrt(self.config.num_queries)

    def token_grid(self, grid: Grid) -> Grid:
        """Return the square of `num_queries`, whatever the grid; a smaller one is refused."""
        check_grid(grid, self.side)
        return self.side, self.side

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator) -> None:
        """Kaiming-normal convolutions, matrices from N(0, initializer_range); norms 1, biases 0."""
        for name, parameter in self.named_parameters():
            drawn = torch.zeros(parameter.shape, device=generator.device)
            if "norm" in name and name.endswith("weight"):
                drawn.fill_(1.0)
            elif name.startswith("linear") and name.endswith("weight"):
                drawn.normal_(0.0, self.config.initializer_range, generator=generator)
            elif name.endswith("weight"):
                deviation = math.sqrt(2.0 / parameter[0].numel())
                drawn.normal_(0.0, deviation, generator=generator)
            parameter.copy_(drawn)

    def project(self, tokens: Tensor, grid: Grid) -> Tensor:
        """Map patch tokens `[B, N, D_in]` to `[B, num_queries, output_size]`, row by row."""
        check_grid(grid, self.side)
        check_filled(tokens, grid)
        x_BCHW = tokens.transpose(1, 2).unflatten(2, grid)
        x_BCHW = F.adaptive_avg_pool2d(self.before(x_BCHW), (self.side, self.side))
        x_BMC = self.after(x_BCHW).flatten(2).transpose(1, 2)
        return self.linear_2(F.silu(self.linear_1(x_BMC)))  # type: ignore[no-any-return]
