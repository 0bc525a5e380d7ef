"""DINOv3 vision transformers: rotary positions, registers, layer scales.

Ref: "DINOv3" (arXiv 2508.10104); names, sizes and preprocessing follow the published checkpoints
as transformers' `DINOv3ViTModel` and `DINOv3ViTImageProcessor` run them. Pictures are scaled to
numbers from 0 to 1 before they are resized. Left out: the positions' random shift, jitter and
rescaling of pretraining. The mask token is there since it is published; nothing is masked here.

B pictures, N patches, D width, H heads, Dh head width, P patch size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mm.encoders import Published
from mm.encoders.blocks import ACTIVATIONS, LayerScale, attend, embed_patches, split_heads
from mm.encoders.square import SquareConfig, SquareEncoder


@dataclass(frozen=True)
class Config(SquareConfig):
    """Sizes of the tower, and how it wants its pictures; published names.

    `picture_size` is the side of the pictures given, if another than `image_size`; any does.
    `feature_layer` counts from the end as -1 for the last block, or from the start as 0 for the
    embeddings; `use_final_norm` applies `norm` to it. `keep_prefix` gives the class token and the
    registers too.
    """

    hidden_size: int = 384
    intermediate_size: int = 1536
    num_hidden_layers: int = 12
    num_attention_heads: int = 6
    image_size: int = 224
    patch_size: int = 16
    num_channels: int = 3
    num_register_tokens: int = 0
    layer_norm_eps: float = 1e-5
    layerscale_value: float = 1.0
    rope_theta: float = 100.0
    query_bias: bool = True
    key_bias: bool = False
    value_bias: bool = True
    proj_bias: bool = True
    mlp_bias: bool = True
    use_gated_mlp: bool = False
    hidden_act: Literal["gelu", "silu"] = "gelu"
    picture_size: int | None = None
    resample: Literal["bicubic", "bilinear"] = "bilinear"
    image_mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    image_std: tuple[float, ...] = (0.229, 0.224, 0.225)
    feature_layer: int = -1
    use_final_norm: bool = True
    keep_prefix: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        head_dim = self.hidden_size // self.num_attention_heads
        if head_dim % 4:
            raise ValueError(
                f"hidden_size {self.hidden_size} over num_attention_heads"
                f" {self.num_attention_heads} gives heads of {head_dim}; rotary positions in two"
                " directions need a multiple of 4"
            )


def rotations(
    grid: tuple[int, int], head_dim: int, theta: float, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return cosines and sines `[N, Dh]` of a grid's patches, row by row, in float32.

    A patch's centre lies between -1 and 1 in either direction, whatever the grid. The first quarter
    of the angles is the row's, the second the column's, and the other half repeats them.
    """
    h, w = (2 * (torch.arange(n, device=device) + 0.5) / n - 1 for n in grid)
    frequencies = 1 / theta ** torch.arange(0, 1, 4 / head_dim, device=device)
    centres_N2 = torch.stack(torch.meshgrid(h, w, indexing="ij"), dim=-1).flatten(0, 1)
    angles = (2 * math.pi * centres_N2[:, :, None] * frequencies).flatten(1).tile(2)
    return angles.cos(), angles.sin()


def rotate(x_BHNDh: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the patches, which are the last tokens; what comes before them has no position."""
    first, patches = x_BHNDh.tensor_split([x_BHNDh.shape[2] - len(cos)], dim=2)
    one, two = patches.chunk(2, dim=-1)
    turned = patches * cos + torch.cat([-two, one], dim=-1) * sin
    return torch.cat([first, turned], dim=2)


class Embeddings(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        D, P = config.hidden_size, config.patch_size
        self.cls_token = nn.Parameter(torch.zeros(1, 1, D))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, D), requires_grad=False)
        self.register_tokens = nn.Parameter(torch.zeros(1, config.num_register_tokens, D))
        self.patch_embeddings = nn.Conv2d(config.num_channels, D, P, stride=P)

    def forward(self, pixel_values: Tensor) -> Tensor:
        patches = embed_patches(self.patch_embeddings, pixel_values)
        first = torch.cat([self.cls_token, self.register_tokens], dim=1)
        return torch.cat([first.expand(len(patches), -1, -1), patches], dim=1)


class Attention(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        D = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.k_proj = nn.Linear(D, D, bias=config.key_bias)
        self.v_proj = nn.Linear(D, D, bias=config.value_bias)
        self.q_proj = nn.Linear(D, D, bias=config.query_bias)
        self.o_proj = nn.Linear(D, D, bias=config.proj_bias)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        q_BHNDh, k_BHNDh, v_BHNDh = (
            split_heads(project(x), self.num_heads)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        out = attend(rotate(q_BHNDh, cos, sin), rotate(k_BHNDh, cos, sin), v_BHNDh)
        return self.o_proj(out)  # type: ignore[no-any-return]


class MLP(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        D, F, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
        self.activation = ACTIVATIONS[config.hidden_act]
        self.gate_proj = nn.Linear(D, F, bias=bias) if config.use_gated_mlp else None
        self.up_proj = nn.Linear(D, F, bias=bias)
        self.down_proj = nn.Linear(F, D, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        up = self.up_proj(x)
        gate = self.gate_proj
        inner = self.activation(up) if gate is None else self.activation(gate(x)) * up
        return self.down_proj(inner)  # type: ignore[no-any-return]


class Layer(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        D = config.hidden_size
        self.norm1 = nn.LayerNorm(D, eps=config.layer_norm_eps)
        self.attention = Attention(config)
        self.layer_scale1 = LayerScale(D, config.layerscale_value)
        self.norm2 = nn.LayerNorm(D, eps=config.layer_norm_eps)
        self.mlp = MLP(config)
        self.layer_scale2 = LayerScale(D, config.layerscale_value)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.layer_scale1(self.attention(self.norm1(x), cos, sin))
        return x + self.layer_scale2(self.mlp(self.norm2(x)))  # type: ignore[no-any-return]


class Encoder(SquareEncoder):
    """The DINOv3 tower, with its preprocessing; `forward` takes any size from one patch on."""

    config: Config
    any_size = True
    rescale_first = True
    published = Published(model_types=("dinov3_vit",))

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.layer_scale = config.layerscale_value
        self.num_special_tokens = 1 + config.num_register_tokens
        self.embeddings = Embeddings(config)
        self.layer = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Map pixel values `[B, 3, height, width]` to patch tokens `[B, N, D]` of the chosen layer.

        Raises:
            ValueError: less than one patch, or another number of channels.
        """
        config, (height, width) = self.config, self.checked(pixel_values).shape[2:]
        x = self.embeddings(pixel_values)
        grid = height // config.patch_size, width // config.patch_size
        head_dim = config.hidden_size // config.num_attention_heads
        cos, sin = (r.to(x.dtype) for r in rotations(grid, head_dim, config.rope_theta, x.device))
        for layer in self.layer[: self.num_layers]:
            x = layer(x, cos, sin)
        return self.without_prefix(self.norm(x) if config.use_final_norm else x)
