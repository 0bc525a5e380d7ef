"""AIMv2: gated layers without biases, root-mean-square norms, no class token.

Ref: "Multimodal Autoregressive Pre-training of Large Vision Encoders" (arXiv 2411.14402); names,
sizes and preprocessing follow the published checkpoints as transformers' `Aimv2VisionModel` and
`CLIPImageProcessor` run them. Left out: the attention-pooling head, which gives one vector for a
picture. The native-resolution kind (`is_native`) has sine and cosine positions instead of learned
ones, and takes any size.

B pictures, N patches, D width, F feed-forward width, P patch size, S side in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mm.encoders import Published
from mm.encoders.blocks import (
    ACTIVATIONS,
    Blocks,
    RMSNorm,
    attend,
    embed_patches,
    split_heads,
)
from mm.encoders.square import SquareConfig, SquareEncoder


@dataclass(frozen=True)
class Config(SquareConfig):
    """Sizes of the tower, and how it wants its pictures; published names.

    `feature_layer` counts from the end as -1 for the last block, or from the start as 0 for the
    embeddings; `use_final_norm` applies `rms_norm` to it. `shortest_edge` is that of the picture
    before its centre is cut out, None squashes.
    """

    hidden_size: int = 1024
    intermediate_size: int = 2816
    num_hidden_layers: int = 24
    num_attention_heads: int = 8
    image_size: int = 224
    patch_size: int = 14
    num_channels: int = 3
    qkv_bias: bool = False
    mlp_bias: bool = False
    rms_norm_eps: float = 1e-5
    hidden_act: Literal["silu"] = "silu"
    is_native: bool = False
    shortest_edge: int | None = 224
    resample: Literal["bicubic", "bilinear"] = "bicubic"
    image_mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
    image_std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)
    feature_layer: int = -1
    use_final_norm: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.is_native and self.hidden_size % 4:
            raise ValueError(
                f"hidden_size is {self.hidden_size}; sines and cosines in two directions need a"
                " multiple of 4"
            )


def sine_positions(grid: tuple[int, int], width: int, device: torch.device) -> Tensor:
    """Return `[N, D]` in float64, row by row: sines and cosines of the column, then of the row."""
    steps = torch.arange(width // 4, dtype=torch.float64, device=device) / (width // 4)
    rows, columns = (torch.arange(n, dtype=torch.float64, device=device) for n in grid)
    each = torch.meshgrid(rows, columns, indexing="ij")
    row, column = (place.flatten()[:, None] * 10_000.0**-steps for place in each)
    return torch.cat([column.sin(), column.cos(), row.sin(), row.cos()], dim=1)


class Embeddings(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        D, P = config.hidden_size, config.patch_size
        self.patch_embed = nn.Conv2d(config.num_channels, D, P, stride=P)
        self.rms_norm = RMSNorm(D, config.rms_norm_eps)
        num_patches = (config.image_size // P) ** 2
        self.position_embedding = None if config.is_native else nn.Embedding(num_patches, D)

    def forward(self, pixel_values: Tensor) -> Tensor:
        x = self.rms_norm(embed_patches(self.patch_embed, pixel_values))
        if self.position_embedding is not None:
            return x + self.position_embedding.weight  # type: ignore[no-any-return]
        P = self.patch_embed.kernel_size[0]
        grid = pixel_values.shape[2] // P, pixel_values.shape[3] // P
        return x + sine_positions(grid, x.shape[-1], x.device).to(x.dtype)  # type: ignore[no-any-return]


class Attention(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        D, bias = config.hidden_size, config.qkv_bias
        self.num_heads = config.num_attention_heads
        self.k_proj = nn.Linear(D, D, bias=bias)
        self.v_proj = nn.Linear(D, D, bias=bias)
        self.q_proj = nn.Linear(D, D, bias=bias)
        self.out_proj = nn.Linear(D, D, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        projections = (self.q_proj, self.k_proj, self.v_proj)
        out = attend(*(split_heads(project(x), self.num_heads) for project in projections))
        return self.out_proj(out)  # type: ignore[no-any-return]


class MLP(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        D, F, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
        self.activation = ACTIVATIONS[config.hidden_act]
        self.gate_proj = nn.Linear(D, F, bias=bias)
        self.up_proj = nn.Linear(D, F, bias=bias)
        self.down_proj = nn.Linear(F, D, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(self.activation(self.gate_proj(x)) * self.up_proj(x))  # type: ignore[no-any-return]


class Layer(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.ffn = MLP(config)
        self.rms_norm1 = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.rms_norm2 = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.rms_norm1(x))
        return x + self.ffn(self.rms_norm2(x))  # type: ignore[no-any-return]


class Encoder(SquareEncoder):
    """The AIMv2 vision tower, with its preprocessing."""

    config: Config
    published = Published(
        model_types=("aimv2_vision_model",),
        whole=("aimv2",),
        prefixes=(("vision_model.", ""),),
        ignored=(
            r"(vision_model\.)?head\..*",  # attention pooling: one vector for a picture
            r"text_model\..*",
            r"(visual|text)_projection\.weight",
            r"logit_scale",
        ),
    )

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.any_size = config.is_native
        self.embeddings = Embeddings(config)
        self.encoder = Blocks(Layer(config) for _ in range(config.num_hidden_layers))
        self.rms_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Map pixel values `[B, 3, S, S]` to patch tokens `[B, N, D]` of the chosen layer.

        Raises:
            ValueError: another size than the position embeddings were made for.
        """
        x = self.encoder(self.embeddings(self.checked(pixel_values)), self.num_layers)
        return self.rms_norm(x) if self.config.use_final_norm else x  # type: ignore[no-any-return]
