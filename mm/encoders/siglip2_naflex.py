"""SigLIP 2 NaFlex: SigLIP's transformer on pictures of any proportions.

Ref: "SigLIP 2" (arXiv 2502.14786), section 2.4.2; names, sizes and preprocessing follow the
published checkpoints as transformers' `Siglip2VisionModel` and `Siglip2ImageProcessor` run them.
A picture is resized to as many patches as `max_num_patches` allows, and the table of positions to
its grid. Deviations: patches of all pictures lie in one row instead of being padded, so that
padding costs nothing and needs no mask; the table is resized in float32 on every device. Left out:
the attention-pooling head, which no vision-language model reads.

B pictures, N patches of one, ΣN of all, P patch size, D width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mm.encoders import Grid, Pictures, Published
from mm.encoders.blocks import Blocks, resize_positions
from mm.encoders.native import NativeEncoder, check_native
from mm.encoders.packed import Packed
from mm.encoders.siglip import Encoder as Siglip
from mm.encoders.siglip import EncoderLayer, draw_weights


@dataclass(frozen=True)
class Config:
    """Sizes of the tower, and how it wants its pictures; published names.

    `num_patches` is the size of the position table, `max_num_patches` the most that a picture
    gets. `feature_layer` and `use_final_norm` are as SigLIP's. `grid_multiple`, which published
    models don't have, makes both sides of every grid multiples of it, for projectors that fold
    squares of patches together.
    """

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    num_patches: int = 256
    max_num_patches: int = 256
    grid_multiple: int = 1
    patch_size: int = 16
    num_channels: int = 3
    layer_norm_eps: float = 1e-6
    hidden_act: Literal["gelu_pytorch_tanh", "gelu"] = "gelu_pytorch_tanh"
    resample: Literal["bicubic", "bilinear"] = "bilinear"
    image_mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    image_std: tuple[float, ...] = (0.5, 0.5, 0.5)
    feature_layer: int = -1
    use_final_norm: bool = True

    def __post_init__(self) -> None:
        check_native(self)
        if self.num_patches < 1 or math.isqrt(self.num_patches) ** 2 != self.num_patches:
            raise ValueError(
                f"num_patches is {self.num_patches}; the table of positions is a square, such as"
                " 256 = 16 * 16"
            )
        if not 1 <= self.grid_multiple**2 <= self.max_num_patches:
            raise ValueError(
                f"max_num_patches is {self.max_num_patches} and grid_multiple {self.grid_multiple};"
                " they must be at least 1, and the first at least the square of the second"
            )


def largest_grid(height: int, width: int, patch_size: int, max_num_patches: int) -> Grid:
    """Return the patch grid of a picture enlarged or shrunk to as many patches as are allowed.

    Halves the range of scales 0.000001 to 100 until it is shorter than 0.00001, as the published
    processor does: another way to the largest scale would differ where a rounding decides.
    """

    def at(scale: float) -> Grid:
        rows = max(1, math.ceil(height * scale / patch_size))
        return rows, max(1, math.ceil(width * scale / patch_size))

    fits, beyond = 1e-5 / 10, 100.0
    while beyond - fits >= 1e-5:
        middle = (fits + beyond) / 2
        rows, columns = at(middle)
        if rows * columns <= max_num_patches:
            fits = middle
        else:
            beyond = middle
    return at(fits)


class Embeddings(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        D = config.hidden_size
        self.patch_embedding = nn.Linear(config.num_channels * config.patch_size**2, D)
        self.position_embedding = nn.Embedding(config.num_patches, D)

    def forward(self, pixel_values: Tensor, grids: Sequence[Grid]) -> Tensor:
        table = self.position_embedding.weight[None]
        of_grid = {
            grid: resize_positions(table, grid, mode="bilinear", antialias=True)[0]
            for grid in dict.fromkeys(grids)
        }
        positions = torch.cat([of_grid[grid] for grid in grids])
        return self.patch_embedding(pixel_values.to(table.dtype)) + positions  # type: ignore[no-any-return]


class Encoder(NativeEncoder):
    """The NaFlex vision tower, with its preprocessing."""

    config: Config
    published = Published(
        model_types=("siglip2_vision_model",),
        whole=("siglip2",),
        prefixes=Siglip.published.prefixes,
        ignored=Siglip.published.ignored,
    )

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.encoder = Blocks(EncoderLayer(config) for _ in range(config.num_hidden_layers))
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width, multiples of the patch size, that a picture gets."""
        multiple = self.config.grid_multiple
        unit, most = self.config.patch_size * multiple, self.config.max_num_patches // multiple**2
        rows, columns = largest_grid(height, width, unit, most)
        return rows * unit, columns * unit

    def patches(self, pixels: Tensor) -> Tensor:
        """Cut `[B, C, height, width]` into patches `[B, N, P * P * C]`, channels last in each."""
        B, C, height, width = pixels.shape
        P = self.config.patch_size
        x_BChPwP = pixels.reshape(B, C, height // P, P, width // P, P)
        return x_BChPwP.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)

    def from_processor(self, pixel_values: Tensor, **inputs: Any) -> Pictures:
        """Take padded patches `[B, most, P * P * C]` and `spatial_shapes` `[B, 2]`.

        Raises:
            ValueError: no `spatial_shapes`, or more than a picture has patches.
        """
        shapes = inputs.pop("spatial_shapes", None)
        inputs.pop("pixel_attention_mask", None)  # says the same
        if shapes is None or inputs:
            raise ValueError(
                f"{', '.join(sorted(inputs)) or 'nothing'} given beside pixel_values; this encoder"
                " takes spatial_shapes and pixel_attention_mask"
            )
        grids: list[Grid] = [(int(rows), int(columns)) for rows, columns in shapes.tolist()]
        counts = [rows * columns for rows, columns in grids]
        if max(counts) > pixel_values.shape[1]:
            raise ValueError(
                f"spatial_shapes has a picture of {max(counts)} patches; pixel_values has"
                f" {pixel_values.shape[1]}"
            )
        packed = [one[:count] for one, count in zip(pixel_values, counts, strict=True)]
        return Pictures(torch.cat(packed), tuple((grid,) for grid in grids))

    def init_weights(self, generator: torch.Generator) -> None:
        """Draw every parameter from `generator` alone, in a fixed order, as SigLIP's."""
        draw_weights(self, generator)

    def forward(self, pixel_values: Tensor, grids: Sequence[Grid]) -> Tensor:
        """Map packed patches `[ΣN, P * P * C]` to tokens `[ΣN, D]` of the chosen layer.

        Raises:
            ValueError: the patches do not fill the grids.
        """
        x = self.embeddings(self.checked(pixel_values, grids), grids)
        packed = Packed.of(grids, x.device)
        x = self.encoder(x[None], self.num_layers, packed)[0]
        return self.post_layernorm(x) if self.config.use_final_norm else x  # type: ignore[no-any-return]
