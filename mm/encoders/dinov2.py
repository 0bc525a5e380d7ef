"""DINOv2, with and without registers: layer scales, and a gated MLP in the largest size.

Ref: "DINOv2" (arXiv 2304.07193) and "Vision Transformers Need Registers" (arXiv 2309.16588); names,
sizes and preprocessing follow the published checkpoints as transformers' `Dinov2Model`,
`Dinov2WithRegistersModel` and `BitImageProcessor` run them. The positions are those of a picture of
518 px and are resized to the grid at hand: without antialiasing, but with it where there are
registers. The mask token is there since it is published; nothing is masked here.

B pictures, N patches, D width, F feed-forward width, P patch size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mm.encoders import Published
from mm.encoders.blocks import (
    MLP,
    LayerScale,
    attend,
    embed_patches,
    resize_positions,
    split_heads,
)
from mm.encoders.square import SquareConfig, SquareEncoder


@dataclass(frozen=True)
class Config(SquareConfig):
    """Sizes of the tower, and how it wants its pictures; published names.

    `image_size` is that of the position embeddings, `picture_size` that of the pictures given.
    `feature_layer` counts from the end as -1 for the last block, or from the start as 0 for the
    embeddings; `use_final_norm` applies `layernorm` to it. `keep_prefix` gives the class token and
    the registers too.
    """

    hidden_size: int = 768
    mlp_ratio: int = 4
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    image_size: int = 224
    patch_size: int = 14
    num_channels: int = 3
    num_register_tokens: int = 0
    layer_norm_eps: float = 1e-6
    layerscale_value: float = 1.0
    hidden_act: Literal["gelu"] = "gelu"
    use_swiglu_ffn: bool = False
    picture_size: int = 224
    shortest_edge: int | None = 256
    resample: Literal["bicubic", "bilinear"] = "bicubic"
    image_mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    image_std: tuple[float, ...] = (0.229, 0.224, 0.225)
    feature_layer: int = -1
    use_final_norm: bool = True
    keep_prefix: bool = False


class PatchEmbeddings(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        P = config.patch_size
        self.projection = nn.Conv2d(config.num_channels, config.hidden_size, P, stride=P)

    def forward(self, pixel_values: Tensor) -> Tensor:
        return embed_patches(self.projection, pixel_values)


class Embeddings(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        D, P, R = config.hidden_size, config.patch_size, config.num_register_tokens
        self.patch_size = P
        self.cls_token = nn.Parameter(torch.zeros(1, 1, D))
        self.mask_token = nn.Parameter(torch.zeros(1, D), requires_grad=False)
        self.patch_embeddings = PatchEmbeddings(config)
        self.position_embeddings = nn.Parameter(
            torch.zeros(1, (config.image_size // P) ** 2 + 1, D)
        )
        self.register_tokens = nn.Parameter(torch.zeros(1, R, D)) if R else None

    def forward(self, pixel_values: Tensor) -> Tensor:
        B, _, height, width = pixel_values.shape
        of_cls, of_patches = self.position_embeddings.tensor_split([1], dim=1)
        registers = self.register_tokens
        grid = height // self.patch_size, width // self.patch_size
        positions = resize_positions(of_patches, grid, antialias=registers is not None)
        first = [(self.cls_token + of_cls).expand(B, -1, -1)]
        if registers is not None:  # they have no position
            first.append(registers.expand(B, -1, -1))
        return torch.cat([*first, self.patch_embeddings(pixel_values) + positions], dim=1)


class SelfAttention(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        D = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.query = nn.Linear(D, D)
        self.key = nn.Linear(D, D)
        self.value = nn.Linear(D, D)

    def forward(self, x: Tensor) -> Tensor:
        projections = (self.query, self.key, self.value)
        return attend(*(split_heads(project(x), self.num_heads) for project in projections))


class SelfOutput(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)


class Attention(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention = SelfAttention(config)
        self.output = SelfOutput(config)

    def forward(self, x: Tensor) -> Tensor:
        return self.output.dense(self.attention(x))  # type: ignore[no-any-return]


class SwiGLU(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        D = config.hidden_size
        # Two thirds of the plain MLP's width, as there are three matrices; up to a multiple of 8.
        inner = (int(D * config.mlp_ratio * 2 / 3) + 7) // 8 * 8
        self.weights_in = nn.Linear(D, 2 * inner)
        self.weights_out = nn.Linear(inner, D)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.weights_in(x).chunk(2, dim=-1)
        return self.weights_out(F.silu(gate) * up)  # type: ignore[no-any-return]


class Layer(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        D = config.hidden_size
        self.norm1 = nn.LayerNorm(D, eps=config.layer_norm_eps)
        self.attention = Attention(config)
        self.layer_scale1 = LayerScale(D, config.layerscale_value)
        self.norm2 = nn.LayerNorm(D, eps=config.layer_norm_eps)
        self.mlp = (
            SwiGLU(config)
            if config.use_swiglu_ffn
            else MLP(D, D * config.mlp_ratio, config.hidden_act)
        )
        self.layer_scale2 = LayerScale(D, config.layerscale_value)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.layer_scale1(self.attention(self.norm1(x)))
        return x + self.layer_scale2(self.mlp(self.norm2(x)))  # type: ignore[no-any-return]


class Blocks(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))

    def forward(self, x: Tensor, num_layers: int) -> Tensor:
        for layer in self.layer[:num_layers]:
            x = layer(x)
        return x


class Encoder(SquareEncoder):
    """The DINOv2 tower, with its preprocessing; `forward` takes any size from one patch on."""

    config: Config
    any_size = True
    published = Published(
        model_types=("dinov2", "dinov2_with_registers"),
        fixed=(("qkv_bias", True), ("use_mask_token", True)),
    )

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.layer_scale = config.layerscale_value
        self.num_special_tokens = 1 + config.num_register_tokens
        self.embeddings = Embeddings(config)
        self.encoder = Blocks(config)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Map pixel values `[B, 3, height, width]` to patch tokens `[B, N, D]` of the chosen layer.

        Raises:
            ValueError: less than one patch, or another number of channels.
        """
        x = self.encoder(self.embeddings(self.checked(pixel_values)), self.num_layers)
        return self.without_prefix(self.layernorm(x) if self.config.use_final_norm else x)
