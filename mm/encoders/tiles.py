"""Pictures cut into tiles of one size, so that an encoder of squares sees a large one in detail.

A picture is squashed to the grid of tiles whose proportions are nearest to its own, cut, and, if
that gives more than one tile, followed by a tile that shows it all (the thumbnail):

    +---+---+---+
    | 0 | 1 | 2 |        +---+
    +---+---+---+   and  | 6 |
    | 3 | 4 | 5 |        +---+
    +---+---+---+

Ref: InternVL 1.5 (arXiv 2404.16821), section 3.1.

B pictures of one size, V views (tiles and thumbnail), S their side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mm.encoders import Grid, Pictures
from mm.encoders.pixels import normalize, resize_uint8, to_uint8
from mm.encoders.square import SquareConfig, SquareEncoder

if TYPE_CHECKING:
    from PIL.Image import Image


class TiledConfig(SquareConfig):
    """What the config of an encoder that sees tiles has besides; `max_tiles` 1 is no tiling."""

    min_tiles: int
    max_tiles: int
    use_thumbnail: bool

    def __post_init__(self) -> None:
        """Check the numbers of tiles too.

        Raises:
            ValueError: names the field, its value and what it must be.
        """
        super().__post_init__()
        if not 1 <= self.min_tiles <= self.max_tiles:
            raise ValueError(
                f"min_tiles is {self.min_tiles} and max_tiles {self.max_tiles}; they must be at"
                " least 1, and the first no more than the second"
            )
        if self.max_tiles > 1 and self.shortest_edge is not None:
            raise ValueError(
                f"shortest_edge is {self.shortest_edge}, but tiles are cut of squashed pictures:"
                " set it to null, or max_tiles to 1"
            )


def tile_grid(height: int, width: int, side: int, min_tiles: int, max_tiles: int) -> Grid:
    """Return how many rows and columns of tiles a picture gets.

    The grid of `min_tiles` to `max_tiles` tiles whose proportions differ least from the picture's;
    of two that differ as much, the larger if the picture has more than half its pixels.

    Args:
        height: of the picture, in pixels, and `width`.
        side: of a tile, in pixels.
        min_tiles: without the thumbnail, as `max_tiles`.
    """
    sizes = range(1, max_tiles + 1)
    grids = [(c, r) for c in sizes for r in sizes if min_tiles <= c * r <= max_tiles]
    columns, rows, least = 1, 1, float("inf")
    for c, r in sorted(grids, key=lambda grid: grid[0] * grid[1]):
        difference = abs(width / height - c / r)
        large_enough = height * width > 0.5 * side * side * c * r
        if difference < least or (difference == least and large_enough):
            columns, rows, least = c, r, difference
    return rows, columns


def num_views(grid: Grid, use_thumbnail: bool) -> int:
    """Return how many squares a grid of tiles is, the thumbnail included."""
    count = grid[0] * grid[1]
    return count + 1 if use_thumbnail and count > 1 else count


def cut(images: Tensor, side: int, grid: Grid, resample: str, use_thumbnail: bool = True) -> Tensor:
    """Cut pictures of one size into tiles.

    Args:
        images: uint8 `[B, 3, height, width]`.
        side: of a tile, in pixels.
        grid: rows and columns of tiles.
        resample: "bicubic" or "bilinear"; both with antialiasing.
        use_thumbnail: add the whole picture as the last view, if there is more than one tile.

    Returns:
        uint8 `[B, V, 3, side, side]`, row by row.

    Raises:
        ValueError: not uint8 of three channels.
    """
    rows, columns = grid
    whole = resize_uint8(images, (rows * side, columns * side), resample)
    tiles = whole.unflatten(3, (columns, side)).unflatten(2, (rows, side))  # [B, 3, r, S, c, S]
    views: Tensor = tiles.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    if num_views(grid, use_thumbnail) > rows * columns:
        thumbnail = resize_uint8(images, (side, side), resample)
        views = torch.cat([views, thumbnail[:, None]], dim=1)
    return views


def cut_each(
    images: Sequence[Image | Tensor] | Tensor,
    side: int,
    min_tiles: int,
    max_tiles: int,
    resample: str,
    use_thumbnail: bool,
) -> list[Tensor]:
    """Cut pictures of any sizes into the tiles that each gets, uint8 `[V, 3, side, side]`.

    Args:
        images: PIL pictures or uint8 tensors `[3, height, width]`; or one uint8 tensor
            `[B, 3, height, width]`, which stays on its device.
        side: as `cut`, and `resample` and `use_thumbnail`.
        min_tiles: as `tile_grid`, and `max_tiles`.

    Raises:
        ValueError: not uint8 of three channels.
    """
    if isinstance(images, Tensor):
        grid = tile_grid(images.shape[-2], images.shape[-1], side, min_tiles, max_tiles)
        return list(cut(images, side, grid, resample, use_thumbnail))
    return [
        views
        for image in images
        for views in cut_each(
            to_uint8(image)[None], side, min_tiles, max_tiles, resample, use_thumbnail
        )
    ]


_VIEWS_AT_ONCE = 32  # without gradients: enough for a GPU, and a few pictures are many tiles


class TiledEncoder(SquareEncoder):
    """An encoder of squares that sees a picture in tiles, if its config has more than one."""

    config: TiledConfig

    def views(self, height: int, width: int) -> tuple[Grid, ...]:
        """Return the patch grids of a picture's tiles, and of the thumbnail."""
        config = self.config
        grid = tile_grid(height, width, self.picture_size, config.min_tiles, config.max_tiles)
        return super().views(height, width) * num_views(grid, config.use_thumbnail)

    def preprocess(self, images: Sequence[Image | Tensor] | Tensor) -> Pictures:
        """Cut pictures into tiles, each resized with antialiasing, and normalise.

        Raises:
            ValueError: a picture that is no 8-bit RGB.
        """
        config = self.config
        if config.max_tiles == 1:
            return super().preprocess(images)
        cuts = cut_each(
            images,
            self.picture_size,
            config.min_tiles,
            config.max_tiles,
            config.resample,
            config.use_thumbnail,
        )
        pixels = torch.cat(cuts)
        (grid,) = super().views(*pixels.shape[2:])
        views = tuple((grid,) * len(cut_one) for cut_one in cuts)
        return Pictures(normalize(pixels, config.image_mean, config.image_std), views)

    def tokens(self, pictures: Pictures) -> Tensor:
        """Map pictures to patch tokens `[ΣN, D]`, view after view, row by row.

        Without gradients some views are run after the others, so that memory stays bounded.
        """
        if torch.is_grad_enabled() or self.config.max_tiles == 1:
            return super().tokens(pictures)
        parts = pictures.pixel_values.split(_VIEWS_AT_ONCE)
        return torch.cat([self(part).flatten(0, 1) for part in parts])

    def from_processor(self, pixel_values: Tensor, **inputs: Tensor) -> Pictures:
        """Take tiles that a published processor made: each is a picture of its own then.

        Args:
            pixel_values: `[V, 3, S, S]`, the views of all pictures.
            inputs: `num_patches`, how many views each picture has, is not needed.

        Raises:
            ValueError: a tensor that is not known here.
        """
        inputs.pop("num_patches", None)
        if inputs:
            raise ValueError(f"{', '.join(sorted(inputs))} is nothing that this encoder takes")
        return Pictures.squares(pixel_values, super().views)
