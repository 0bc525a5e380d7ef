"""The Qwen3-VL tower: pictures in their own proportions, positions in two directions, DeepStack.

A picture becomes a grid of patches whose sides are multiples of `spatial_merge_size`, with a number
of pixels within bounds. Learned positions are read between the places of their square table, and
rotary ones turn queries and keys by row and column. Tokens hold what the last block gives and, side
by side with it, what the blocks `deepstack_visual_indexes` give, which the decoder's first layers
read (DeepStack, arXiv 2406.04334).

Ref: "Qwen3-VL Technical Report" (arXiv 2511.21631), section 2; names, sizes and preprocessing
follow the published checkpoints as transformers' `Qwen3VLVisionModel` and `Qwen2VLImageProcessor`
run them. Its mergers are a projector here, `deepstack`. Patches lie row by row, where the published
order is block by block: each patch has its position with it, so that only the order differs. Left
out: video. A picture is a clip of two equal frames.

N patches of all views, D width, H heads, Dh head width, F feed-forward width, P patch size, p
numbers of a patch, L levels of features.
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
from mm.encoders.blocks import ACTIVATIONS
from mm.encoders.native import NativeEncoder, check_native
from mm.encoders.packed import Packed, attend_packed

EPS = 1e-6
THETA = 10000.0
MAX_PROPORTION = 200
Rotation = tuple[Tensor, Tensor]  # cosines and sines, [N, 1, Dh]


@dataclass(frozen=True)
class Config:
    """Sizes of the tower, and how it wants its pictures; published names.

    `deepstack_visual_indexes` are numbers of blocks, from 0; `feature_layer` says of which block
    the first level is, as in other encoders: -1 is the last one.
    """

    hidden_size: int = 1152
    intermediate_size: int = 4304
    num_hidden_layers: int = 27
    num_attention_heads: int = 16
    patch_size: int = 16
    temporal_patch_size: int = 2
    spatial_merge_size: int = 2
    num_channels: int = 3
    num_position_embeddings: int = 2304
    hidden_act: Literal["gelu_pytorch_tanh", "gelu"] = "gelu_pytorch_tanh"
    deepstack_visual_indexes: tuple[int, ...] = (8, 16, 24)
    min_pixels: int = 65536
    max_pixels: int = 16777216
    resample: Literal["bicubic", "bilinear"] = "bicubic"
    image_mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    image_std: tuple[float, ...] = (0.5, 0.5, 0.5)
    feature_layer: int = -1

    def __post_init__(self) -> None:
        check_native(self)
        head_dim = self.hidden_size // self.num_attention_heads
        blocks = range(self.num_hidden_layers)
        indexes, side = self.deepstack_visual_indexes, math.isqrt(self.num_position_embeddings)
        in_order = list(indexes) == sorted(set(indexes) & set(blocks))
        rules = (
            ("hidden_size", head_dim % 4 == 0, "a multiple of 4 times num_attention_heads"),
            ("num_position_embeddings", 0 < side**2 == self.num_position_embeddings, "a square"),
            (
                "deepstack_visual_indexes",
                in_order,
                f"numbers of blocks below {len(blocks)}, in order",
            ),
            ("min_pixels", 0 < self.min_pixels <= self.max_pixels, "positive, at most max_pixels"),
        )
        for name, holds, wanted in rules:
            if not holds:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be {wanted}")


def smart_resize(
    height: int, width: int, factor: int, min_pixels: int, max_pixels: int
) -> tuple[int, int]:
    """Return the size that a picture gets: near its own, in steps of `factor`, within bounds.

    Raises:
        ValueError: one side is more than 200 times the other.
    """
    if max(height, width) > MAX_PROPORTION * min(height, width):
        raise ValueError(
            f"picture of {width} x {height} is more than {MAX_PROPORTION} times as long as it is"
            " wide: crop it"
        )
    sides = height, width
    # Python's rounding, halves to even, is the published one: 80 becomes 64 in steps of 32.
    size = [round(side / factor) * factor for side in sides]
    if size[0] * size[1] > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        size = [max(factor, math.floor(side / shrink / factor) * factor) for side in sides]
    elif size[0] * size[1] < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        size = [math.ceil(side * grow / factor) * factor for side in sides]
    return size[0], size[1]


def rotations(grids: Sequence[Grid], head_dim: int, device: torch.device) -> Rotation:
    """Return cosines and sines `[N, 1, Dh]` of all views' patches, in float32.

    The first quarter of the angles is the row's, the second the column's, and the other half
    repeats them.
    """
    quarter = torch.arange(0, head_dim // 2, 2, dtype=torch.float32, device=device)
    frequencies = 1.0 / THETA ** (quarter / (head_dim // 2))
    places = [
        torch.cartesian_prod(*(torch.arange(side, device=device) for side in grid))
        for grid in grids
    ]
    angles = (torch.cat(places)[:, :, None].float() * frequencies).flatten(1).tile(2)[:, None]
    return angles.cos(), angles.sin()


def rotate(x_NHDh: Tensor, rotation: Rotation) -> Tensor:
    """Turn the pairs (i, i + Dh/2) in float32."""
    cos, sin = rotation
    wide = x_NHDh.float()
    one, two = wide.chunk(2, dim=-1)
    return (wide * cos + torch.cat((-two, one), dim=-1) * sin).to(x_NHDh.dtype)


class PatchEmbed(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        kernel = (config.temporal_patch_size, config.patch_size, config.patch_size)
        self.proj = nn.Conv3d(config.num_channels, config.hidden_size, kernel, stride=kernel)

    def forward(self, pixel_values: Tensor) -> Tensor:
        weight = self.proj.weight.flatten(1)  # a convolution of whole patches is one product
        return F.linear(pixel_values.to(weight.dtype), weight, self.proj.bias)


class Attention(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x_ND: Tensor, rotation: Rotation, packed: Packed) -> Tensor:
        q_NHDh, k_NHDh, v_NHDh = self.qkv(x_ND).unflatten(-1, (3, self.num_heads, -1)).unbind(1)
        q_NHDh, k_NHDh = rotate(q_NHDh, rotation), rotate(k_NHDh, rotation)
        q_HNDh, k_HNDh, v_HNDh = (x.transpose(0, 1) for x in (q_NHDh, k_NHDh, v_NHDh))
        return self.proj(attend_packed(q_HNDh, k_HNDh, v_HNDh, packed))  # type: ignore[no-any-return]


class MLP(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.hidden_act]
        self.linear_fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.linear_fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_fc2(self.activation(self.linear_fc1(x)))  # type: ignore[no-any-return]


class Block(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.hidden_size, eps=EPS)
        self.norm2 = nn.LayerNorm(config.hidden_size, eps=EPS)
        self.attn = Attention(config)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, rotation: Rotation, packed: Packed) -> Tensor:
        x = x + self.attn(self.norm1(x), rotation, packed)
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


class Encoder(NativeEncoder):
    """The tower without its mergers, with its preprocessing."""

    config: Config
    published = Published(
        model_types=("qwen3_vl_vision", "qwen3_vl_moe_vision"),
        whole=("qwen3_vl", "qwen3_vl_moe"),
        prefixes=(("model.visual.", ""),),
        ignored=(
            r"(model\.visual\.)?(merger|deepstack_merger_list)\..*",
            r"(model\.language_model|lm_head)\..*",
        ),
        fields=(
            ("depth", "num_hidden_layers"),
            ("num_heads", "num_attention_heads"),
            ("in_channels", "num_channels"),
        ),
        fixed=(("rope_parameters", {"rope_theta": THETA, "rope_type": "axial"}),),
    )

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = PatchEmbed(config)
        self.pos_embed = nn.Embedding(config.num_position_embeddings, config.hidden_size)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))

    @property
    def hidden_size(self) -> int:
        """Width of a token, all levels of features side by side."""
        return self.config.hidden_size * (1 + len(self.config.deepstack_visual_indexes))

    @property
    def patch_width(self) -> int:
        """How many numbers p a patch has, its frames included."""
        config = self.config
        return config.num_channels * config.temporal_patch_size * config.patch_size**2

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Return the size in pixels that a picture gets; raises ValueError if it is too narrow."""
        config = self.config
        step = config.patch_size * config.spatial_merge_size
        return smart_resize(height, width, step, config.min_pixels, config.max_pixels)

    def patches(self, pixels: Tensor) -> Tensor:
        """Cut pixels `[B, 3, height, width]` into patches `[B, N, p]`, of (3, frame, P, P)."""
        P, frames = self.config.patch_size, self.config.temporal_patch_size
        x_BChwPP = pixels.unfold(2, P, P).unfold(3, P, P)
        x_BNCPP = x_BChwPP.permute(0, 2, 3, 1, 4, 5).flatten(1, 2)
        return x_BNCPP.unsqueeze(3).expand(-1, -1, -1, frames, -1, -1).flatten(2)

    def from_processor(self, pixel_values: Tensor, **inputs: Tensor) -> Pictures:
        """Take `pixel_values` `[N, p]`, block by block, and `image_grid_thw` `[I, 3]`.

        Raises:
            ValueError: there is no grid, another tensor, a clip, or patches of other pictures.
        """
        if inputs.keys() != {"image_grid_thw"}:
            raise ValueError(
                f"this encoder takes pixel_values and image_grid_thw, not {sorted(inputs)}"
            )
        merge = self.config.spatial_merge_size
        sizes = inputs["image_grid_thw"].tolist()
        if any(frames != 1 or rows % merge or columns % merge for frames, rows, columns in sizes):
            raise ValueError(f"image_grid_thw is {sizes}; pictures have 1 and multiples of {merge}")
        grids = [(rows, columns) for _, rows, columns in sizes]
        counts = [rows * columns for rows, columns in grids]
        parts = self.checked(pixel_values, grids).split(counts)
        ordered = [
            part.view(rows // merge, columns // merge, merge, merge, -1)
            .transpose(1, 2)
            .flatten(0, 3)
            for part, (rows, columns) in zip(parts, grids, strict=True)
        ]
        return Pictures(torch.cat(ordered), tuple((grid,) for grid in grids))

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator) -> None:
        """Normal weights and positions of deviation 0.02; biases 0, norms 1."""
        for name, parameter in self.named_parameters():
            drawn = torch.zeros(parameter.shape, device=generator.device)
            if ".norm" in name:
                drawn += not name.endswith("bias")
            elif not name.endswith("bias"):
                drawn.normal_(0.0, 0.02, generator=generator)
            parameter.copy_(drawn)

    def positions(self, grids: Sequence[Grid]) -> Tensor:
        """Read the table of learned positions for all views' patches: `[N, D]`, in float32."""
        side = math.isqrt(self.config.num_position_embeddings)
        table = self.pos_embed.weight.float().t().reshape(1, -1, side, side)
        each = {
            grid: F.interpolate(table, grid, mode="bilinear", align_corners=True)[0].flatten(1)
            for grid in set(grids)
        }
        return torch.cat([each[grid] for grid in grids], dim=1).t()

    def forward(self, pixel_values: Tensor, grids: Sequence[Grid]) -> Tensor:
        """Map patches `[N, p]` of views on these grids to tokens `[N, L D]`.

        Raises:
            ValueError: the patches are not those of the grids.
        """
        config = self.config
        x = self.patch_embed(self.checked(pixel_values, grids))
        x = x + self.positions(grids).to(x.dtype)
        head_dim = config.hidden_size // config.num_attention_heads
        rotation, packed = rotations(grids, head_dim, x.device), Packed.of(grids, x.device)
        feature, levels = x, []
        for index, block in enumerate(self.blocks):
            x = block(x, rotation, packed)
            if index + 1 == self.num_layers:
                feature = x
            if index in config.deepstack_visual_indexes:
                levels.append(x)
        return torch.cat([feature, *levels], dim=-1)
