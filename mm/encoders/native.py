"""What encoders share that keep a picture's proportions: any grid of patches, no padding.

Patches of all pictures lie one after the other, row by row in each. Their configs have
`patch_size`, `num_channels`, `resample`, `image_mean`, `image_std`, `num_hidden_layers` and
`feature_layer`.

B pictures, N patches of one, ΣN of all, p numbers of a patch, D width.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mm.encoders import Grid, Pictures, VisionEncoder
from mm.encoders.pixels import normalize, resize_uint8, to_uint8

if TYPE_CHECKING:
    from PIL.Image import Image


def check_native(config: Any) -> None:  # Any: each family's own dataclass
    """Check what several fields of a config must be for each other.

    Raises:
        ValueError: names the field, its value and what it must be.
    """
    if config.hidden_size % config.num_attention_heads:
        raise ValueError(
            f"hidden_size {config.hidden_size} is no multiple of"
            f" num_attention_heads {config.num_attention_heads}"
        )
    if config.patch_size < 1:
        raise ValueError(f"patch_size is {config.patch_size}; it must be at least 1")
    C = config.num_channels
    if not len(config.image_mean) == len(config.image_std) == C:
        raise ValueError(
            f"image_mean has {len(config.image_mean)} and image_std {len(config.image_std)} values;"
            f" both need num_channels = {C}"
        )
    lowest, highest = -config.num_hidden_layers - 1, config.num_hidden_layers
    if not lowest <= config.feature_layer <= highest:
        raise ValueError(
            f"feature_layer is {config.feature_layer}; with {config.num_hidden_layers} layers it"
            f" must be between {lowest} and {highest}"
        )


class NativeEncoder(VisionEncoder):
    """Preprocessing, grids and packing of an encoder that sees a picture in one view of its own."""

    @property
    def hidden_size(self) -> int:
        """Width D of a token."""
        return int(self.config.hidden_size)

    @property
    def num_layers(self) -> int:
        """How many layers `forward` runs for the chosen feature."""
        layer = int(self.config.feature_layer)
        return layer if layer >= 0 else int(self.config.num_hidden_layers) + 1 + layer

    @property
    def patch_width(self) -> int:
        """How many numbers p a flattened patch has."""
        return int(self.config.num_channels * self.config.patch_size**2)

    @abstractmethod
    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width, multiples of the patch size, that a picture is resized to.

        Raises:
            ValueError: no picture of this size can be taken.
        """

    @abstractmethod
    def patches(self, pixels: Tensor) -> Tensor:
        """Cut `[B, C, height, width]` into flattened patches `[B, N, p]`, row by row."""

    @abstractmethod
    def forward(self, pixel_values: Tensor, grids: Sequence[Grid]) -> Tensor:
        """Map packed patches `[ΣN, p]` of views on these grids to tokens `[ΣN, D]`."""

    def views(self, height: int, width: int) -> tuple[Grid, ...]:
        """Return the one patch grid that a picture of this size gets; raises as `resized`."""
        P = self.config.patch_size
        high, wide = self.resized(height, width)
        return ((high // P, wide // P),)

    def preprocess(self, images: Sequence[Image | Tensor] | Tensor) -> Pictures:
        """Resize 8-bit pictures with antialiasing, normalise, and cut them into patches.

        Raises:
            ValueError: a picture that is no 8-bit RGB, or of a size that can't be taken.
        """
        config = self.config
        batches = [images] if isinstance(images, Tensor) else [to_uint8(i)[None] for i in images]
        packed, views = [], []
        for batch in batches:
            size = batch.shape[-2], batch.shape[-1]
            pixels = resize_uint8(batch, self.resized(*size), config.resample)
            pixels = normalize(pixels, config.image_mean, config.image_std)
            packed.append(self.patches(pixels).flatten(0, 1))
            views += [self.views(*size)] * len(batch)
        return Pictures(torch.cat(packed), tuple(views))

    def tokens(self, pictures: Pictures) -> Tensor:
        """Map pictures to patch tokens `[ΣN, D]`, one after the other, row by row."""
        return self(pictures.pixel_values, pictures.grids)  # type: ignore[no-any-return]

    def checked(self, pixel_values: Tensor, grids: Sequence[Grid]) -> Tensor:
        """Return packed patches as they are.

        Raises:
            ValueError: patches of another size, or not as many as the grids have places.
        """
        count = sum(rows * columns for rows, columns in grids)
        if pixel_values.shape != (count, self.patch_width):
            raise ValueError(
                f"pixel values are {tuple(pixel_values.shape)}; {len(grids)} views of {count}"
                f" patches need [{count}, {self.patch_width}]: use preprocess()"
            )
        return pixel_values
