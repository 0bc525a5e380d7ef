"""The perceiver resampler: learnt latents read the image; as many tokens whatever its size.

Ref: "Flamingo" (arXiv 2204.14198), section 3.1.1 and figure 5: in each layer the latents attend to
the image tokens and to themselves at once, then a feed-forward; pre-norm, no biases inside. Here
with a fixed sine-cosine embedding of rows and columns (in place of Flamingo's learnt one of video
frames), so that any grid is taken and the place of a patch is known, and with a last matrix to the
decoder's width.

B pictures, N patches, D encoder width, M latents.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mm import projectors
from mm.projectors import Grid
from mm.projectors.attention import attend
from mm.projectors.checks import check_at_least_one, check_filled, check_grid, check_heads


@dataclass(frozen=True)
class Config:
    """`input_size` is the encoder's width and the hidden one, `output_size` the decoder's."""

    input_size: int
    output_size: int
    num_latents: int = 64
    num_hidden_layers: int = 2
    num_attention_heads: int = 8
    intermediate_ratio: int = 4
    layer_norm_eps: float = 1e-5
    initializer_range: float = 0.02

    def __post_init__(self) -> None:
        check_heads(self.input_size, self.num_attention_heads)
        check_at_least_one(
            num_latents=self.num_latents,
            num_hidden_layers=self.num_hidden_layers,
            intermediate_ratio=self.intermediate_ratio,
        )
        if self.input_size % 4:
            raise ValueError(
                f"input_size is {self.input_size}; it must be a multiple of 4, as sines and cosines"
                " of rows and columns share it"
            )


def grid_positions(grid: Grid, width: int, device: torch.device) -> Tensor:
    """Return float32 sine-cosine embeddings `[N, width]` of a grid's places, row by row."""
    exponent = torch.arange(width // 4, device=device, dtype=torch.float32) / (width // 4)
    frequencies = 10_000.0**-exponent
    sides = [
        torch.arange(side, device=device, dtype=torch.float32)[:, None] * frequencies
        for side in grid
    ]
    rows, columns = (torch.cat([angles.sin(), angles.cos()], dim=1) for angles in sides)
    both = (rows[:, None].expand(*grid, -1), columns[None].expand(*grid, -1))
    return torch.cat(both, dim=-1).flatten(0, 1)


class Layer(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        D, wide = config.input_size, config.input_size * config.intermediate_ratio
        self.num_heads = config.num_attention_heads
        self.norm_tokens = nn.LayerNorm(D, eps=config.layer_norm_eps)
        self.norm_latents = nn.LayerNorm(D, eps=config.layer_norm_eps)
        self.q_proj = nn.Linear(D, D, bias=False)
        self.k_proj = nn.Linear(D, D, bias=False)
        self.v_proj = nn.Linear(D, D, bias=False)
        self.out_proj = nn.Linear(D, D, bias=False)
        self.norm_mlp = nn.LayerNorm(D, eps=config.layer_norm_eps)
        self.fc1 = nn.Linear(D, wide, bias=False)
        self.fc2 = nn.Linear(wide, D, bias=False)

    def forward(self, latents: Tensor, tokens: Tensor) -> Tensor:
        normed = self.norm_latents(latents)
        read = torch.cat([self.norm_tokens(tokens), normed], dim=1)
        out = attend(self.q_proj(normed), self.k_proj(read), self.v_proj(read), self.num_heads)
        latents = latents + self.out_proj(out)
        return latents + self.fc2(F.gelu(self.fc1(self.norm_mlp(latents))))  # type: ignore[no-any-return]


class Projector(projectors.Projector):
    """`num_latents` tokens from an image of any size."""

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.latents = nn.Parameter(torch.zeros(config.num_latents, config.input_size))
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(config.input_size, eps=config.layer_norm_eps)
        self.proj = nn.Linear(config.input_size, config.output_size)

    def token_grid(self, grid: Grid) -> Grid:
        """Return one row of `num_latents`, whatever the grid."""
        check_grid(grid)
        return 1, self.config.num_latents

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator) -> None:
        """Draw matrices and latents from N(0, initializer_range); biases 0, norms 1."""
        for name, parameter in self.named_parameters():
            drawn = torch.zeros(parameter.shape, device=generator.device)
            if "norm" in name and name.endswith("weight"):
                drawn.fill_(1.0)
            elif not name.endswith("bias"):
                drawn.normal_(0.0, self.config.initializer_range, generator=generator)
            parameter.copy_(drawn)

    def project(self, tokens: Tensor, grid: Grid) -> Tensor:
        """Map patch tokens `[B, N, D]` to `[B, num_latents, output_size]`."""
        check_grid(grid)
        check_filled(tokens, grid)
        places = grid_positions(grid, self.config.input_size, tokens.device)
        tokens = tokens + places.to(tokens.dtype)
        latents = self.latents.expand(tokens.shape[0], -1, -1)
        for layer in self.layers:
            latents = layer(latents, tokens)
        return self.proj(self.norm(latents))  # type: ignore[no-any-return]
