"""Pixtral's tower: pictures in their own proportions, rotary positions in two directions.

A picture larger than `longest_edge` is shrunk to it; then both sides are rounded up to patches.

Ref: "Pixtral 12B" (arXiv 2410.07073), section 2.1; names, sizes and preprocessing follow the
published checkpoints as transformers' `PixtralVisionModel` and `PixtralImageProcessor` run them.
Deviation: pictures lie packed one after the other instead of being padded to one size. The defaults
are LightOnOCR's.

B pictures, N patches of all, D width, H heads, Dh head width, P patch size, p numbers of a patch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mm.encoders import Grid, Pictures, Published
from mm.encoders.blocks import ACTIVATIONS, Blocks, RMSNorm
from mm.encoders.native import NativeEncoder, check_native
from mm.encoders.packed import Packed, attend_packed

EPS = 1e-5
THETA = 10000.0
Rotation = tuple[Tensor, Tensor]  # cosines and sines, [N, Dh]


@dataclass(frozen=True)
class Config:
    """Sizes of the tower, and how it wants its pictures; published names."""

    hidden_size: int = 1024
    intermediate_size: int = 4096
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    patch_size: int = 14
    num_channels: int = 3
    hidden_act: Literal["silu", "gelu"] = "silu"
    longest_edge: int = 1540
    resample: Literal["bicubic", "bilinear"] = "bicubic"
    image_mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
    image_std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)
    feature_layer: int = -1

    def __post_init__(self) -> None:
        check_native(self)
        if self.hidden_size // self.num_attention_heads % 4:
            raise ValueError(
                f"hidden_size is {self.hidden_size}; it must be a multiple of 4 times"
                " num_attention_heads, for positions in two directions"
            )
        if self.longest_edge < self.patch_size:
            raise ValueError(
                f"longest_edge is {self.longest_edge}; it must be at least patch_size"
                f" {self.patch_size}"
            )


def rotations(grids: Sequence[Grid], head_dim: int, device: torch.device) -> Rotation:
    """Return cosines and sines `[N, Dh]` of all views' patches, in float32.

    Of the frequencies 1, θ^(-2/Dh), θ^(-4/Dh), ... rows take every second one from the first on,
    columns from the second on. The first quarter of the angles is the row's, the second the
    column's, and the other half repeats them.
    """
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim
    frequencies_2f = (1.0 / THETA**exponents).view(-1, 2).t()
    places = [
        torch.cartesian_prod(*(torch.arange(side, device=device) for side in grid))
        for grid in grids
    ]
    angles = (torch.cat(places)[:, :, None].float() * frequencies_2f).flatten(1).tile(2)
    return angles.cos(), angles.sin()


def rotate(x_HNDh: Tensor, rotation: Rotation) -> Tensor:
    """Turn the pairs (i, i + Dh/2)."""
    cos, sin = rotation
    one, two = x_HNDh.chunk(2, dim=-1)
    return x_HNDh * cos + torch.cat((-two, one), dim=-1) * sin


class Attention(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        D = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.k_proj = nn.Linear(D, D, bias=False)
        self.v_proj = nn.Linear(D, D, bias=False)
        self.q_proj = nn.Linear(D, D, bias=False)
        self.o_proj = nn.Linear(D, D, bias=False)

    def forward(self, x_ND: Tensor, rotation: Rotation, packed: Packed) -> Tensor:
        q_HNDh, k_HNDh, v_HNDh = (
            project(x_ND).unflatten(-1, (self.num_heads, -1)).transpose(0, 1)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        q_HNDh, k_HNDh = rotate(q_HNDh, rotation), rotate(k_HNDh, rotation)
        return self.o_proj(attend_packed(q_HNDh, k_HNDh, v_HNDh, packed))  # type: ignore[no-any-return]


class FeedForward(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        D, inner = config.hidden_size, config.intermediate_size
        self.activation = ACTIVATIONS[config.hidden_act]
        self.gate_proj = nn.Linear(D, inner, bias=False)
        self.up_proj = nn.Linear(D, inner, bias=False)
        self.down_proj = nn.Linear(inner, D, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(self.activation(self.gate_proj(x)) * self.up_proj(x))  # type: ignore[no-any-return]


class Layer(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.hidden_size, EPS)
        self.feed_forward = FeedForward(config)
        self.attention = Attention(config)
        self.ffn_norm = RMSNorm(config.hidden_size, EPS)

    def forward(self, x: Tensor, rotation: Rotation, packed: Packed) -> Tensor:
        x = x + self.attention(self.attention_norm(x), rotation, packed)
        return x + self.feed_forward(self.ffn_norm(x))  # type: ignore[no-any-return]


class Encoder(NativeEncoder):
    """The tower, with its preprocessing."""

    config: Config
    published = Published(
        model_types=("pixtral",),
        whole=("lighton_ocr",),
        prefixes=(("model.vision_encoder.", ""),),
        ignored=(
            r"model\.(vision_projection|language_model)\..*",
            r"lm_head\..*",
            r"(model\.vision_encoder\.)?patch_positional_embedding\.inv_freq",
        ),
        fixed=(
            ("rope_theta", THETA),
            ("rope_parameters", {"rope_theta": THETA, "rope_type": "axial"}),
        ),
    )

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        D, P = config.hidden_size, config.patch_size
        self.patch_conv = nn.Conv2d(config.num_channels, D, P, stride=P, bias=False)
        self.ln_pre = RMSNorm(D, EPS)
        self.transformer = Blocks(Layer(config) for _ in range(config.num_hidden_layers))

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width, multiples of the patch size, that a picture gets.

        Raises:
            ValueError: it is so long and narrow that nothing is left of its shorter side.
        """
        P = self.config.patch_size
        ratio = max(height / self.config.longest_edge, width / self.config.longest_edge)
        if ratio > 1:
            if math.floor(min(height, width) / ratio) < 1:
                raise ValueError(
                    f"picture of {width} x {height} would lose its shorter side when shrunk to"
                    f" {self.config.longest_edge}: crop it"
                )
            height, width = math.floor(height / ratio), math.floor(width / ratio)
        return math.ceil(height / P) * P, math.ceil(width / P) * P

    def patches(self, pixels: Tensor) -> Tensor:
        """Cut `[B, C, height, width]` into patches `[B, N, C * P * P]`, channels first in each."""
        B, C, height, width = pixels.shape
        P = self.config.patch_size
        x_BChPwP = pixels.reshape(B, C, height // P, P, width // P, P)
        return x_BChPwP.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)

    def from_processor(self, pixel_values: Tensor, **inputs: Tensor) -> Pictures:
        """Take pictures `[B, C, height, width]`, padded on the right and below, and `image_sizes`.

        Raises:
            ValueError: no `image_sizes`, or another tensor.
        """
        if inputs.keys() != {"image_sizes"}:
            raise ValueError(
                f"this encoder takes pixel_values and image_sizes, not {sorted(inputs)}"
            )
        P = self.config.patch_size
        sizes = [(int(height), int(width)) for height, width in inputs["image_sizes"]]
        packed = [
            self.patches(one[None, :, :height, :width])[0]
            for one, (height, width) in zip(pixel_values, sizes, strict=True)
        ]
        views = tuple(((height // P, width // P),) for height, width in sizes)
        return Pictures(torch.cat(packed), views)

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator) -> None:
        """Normal weights of deviation 0.02; norms 1."""
        for name, parameter in self.named_parameters():
            drawn = torch.ones(parameter.shape, device=generator.device)
            if "norm" not in name and "ln_pre" not in name:
                drawn.normal_(0.0, 0.02, generator=generator)
            parameter.copy_(drawn)

    def forward(self, pixel_values: Tensor, grids: Sequence[Grid]) -> Tensor:
        """Map packed patches `[N, p]` to tokens `[N, D]` of the chosen layer.

        Raises:
            ValueError: the patches do not fill the grids.
        """
        weight = self.patch_conv.weight.flatten(1)  # a convolution of whole patches is one product
        x = F.linear(self.checked(pixel_values, grids).to(weight.dtype), weight)
        x = self.ln_pre(x)
        head_dim = self.config.hidden_size // self.config.num_attention_heads
        cos, sin = rotations(grids, head_dim, x.device)
        rotation = cos.to(x.dtype), sin.to(x.dtype)
        return self.transformer(x, self.num_layers, rotation, Packed.of(grids, x.device))  # type: ignore[no-any-return]
