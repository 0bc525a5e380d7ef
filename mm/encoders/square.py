"""What encoders share that turn every picture into a square of one size.

B pictures, N patches, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from mm.encoders import Grid, Pictures, VisionEncoder
from mm.encoders.pixels import normalize, square

if TYPE_CHECKING:
    from PIL.Image import Image


class SquareConfig:
    """What the config of such an encoder has; each family's is a frozen dataclass of its own.

    A family may declare the last three as fields, where it has the choice:

    - `shortest_edge`: the shorter side is resized to this and the centre cut out; None squashes.
    - `picture_size`: side of the square, where it is not that of the position embeddings.
    - `keep_prefix`: give the class token and registers too, before the patches.
    """

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    image_size: int
    patch_size: int
    num_channels: int
    resample: str
    image_mean: tuple[float, ...]
    image_std: tuple[float, ...]
    feature_layer: int
    shortest_edge: int | None = None
    picture_size: int | None = None
    keep_prefix: bool = False

    def __post_init__(self) -> None:
        """Check what several fields must be for each other.

        Raises:
            ValueError: names the field, its value and what it must be.
        """
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is no multiple of"
                f" num_attention_heads {self.num_attention_heads}"
            )
        side = self.picture_size or self.image_size
        if not 1 <= self.patch_size <= min(side, self.image_size):
            raise ValueError(
                f"patch_size is {self.patch_size}; it must be between 1 and"
                f" image_size {min(side, self.image_size)}"
            )
        if self.shortest_edge is not None and self.shortest_edge < side:
            raise ValueError(
                f"shortest_edge is {self.shortest_edge}; the square of {side} that is cut out needs"
                " at least as much"
            )
        if not len(self.image_mean) == len(self.image_std) == self.num_channels:
            raise ValueError(
                f"image_mean has {len(self.image_mean)} and image_std {len(self.image_std)} values;"
                f" both need num_channels = {self.num_channels}"
            )
        lowest, highest = -self.num_hidden_layers - 1, self.num_hidden_layers
        if not lowest <= self.feature_layer <= highest:
            raise ValueError(
                f"feature_layer is {self.feature_layer}; with {self.num_hidden_layers} layers it"
                f" must be between {lowest} and {highest}"
            )


class SquareEncoder(VisionEncoder):
    """Preprocessing, grid and choice of feature of an encoder of squares."""

    config: SquareConfig
    num_special_tokens: int = 0  # class token and registers, which come before the patches
    any_size: bool = False  # whether `forward` takes other sizes than `preprocess` gives
    layer_scale: float = 1.0  # what the factors of layer scales start with
    rescale_first: ClassVar[bool] = False  # resize numbers from 0 to 1 rather than 8-bit ones

    @property
    def hidden_size(self) -> int:
        """Width D of a token."""
        return self.config.hidden_size

    @property
    def num_prefix_tokens(self) -> int:
        """How many tokens (class token, registers) `forward` gives before the patches."""
        return self.num_special_tokens if self.config.keep_prefix else 0

    @property
    def picture_size(self) -> int:
        """Side of the square that pictures become."""
        return self.config.picture_size or self.config.image_size

    @property
    def num_layers(self) -> int:
        """How many layers `forward` runs for the chosen feature."""
        layer = self.config.feature_layer
        return layer if layer >= 0 else self.config.num_hidden_layers + 1 + layer

    def views(self, height: int, width: int) -> tuple[Grid, ...]:
        """Return one patch grid: the same for every picture, as all become one size."""
        side = self.picture_size // self.config.patch_size
        return ((side, side),)

    def preprocess(self, images: Sequence[Image | Tensor] | Tensor) -> Pictures:
        """Make squares of the pictures, with antialiasing, and normalise.

        Raises:
            ValueError: a picture that is no 8-bit RGB, or too long and narrow to be cut.
        """
        config = self.config
        pixels = square(
            images,
            self.picture_size,
            config.resample,
            shortest_edge=config.shortest_edge,
            rescale_first=self.rescale_first,
        )
        pixel_values = normalize(pixels, config.image_mean, config.image_std)
        return Pictures.squares(pixel_values, self.views)

    def checked(self, pixel_values: Tensor) -> Tensor:
        """Return pixel values as they are.

        Raises:
            ValueError: another size than the encoder is made for.
        """
        side, P = self.picture_size, self.config.patch_size
        wanted = (self.config.num_channels, side, side)
        if self.any_size and pixel_values.ndim == 4 and min(pixel_values.shape[2:]) >= P:
            wanted = (self.config.num_channels, *pixel_values.shape[2:])
        if pixel_values.shape[1:] != wanted:
            raise ValueError(
                f"pixel values are {tuple(pixel_values.shape)}; this encoder needs [B, "
                f"{', '.join(map(str, wanted))}]: use its preprocess()"
            )
        return pixel_values

    def without_prefix(self, x: Tensor) -> Tensor:
        """Drop the special tokens of `[B, special + N, D]`, unless the config keeps them."""
        return x[:, self.num_special_tokens - self.num_prefix_tokens :]

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator) -> None:
        """Normal weights and tokens of deviation 0.02; biases 0, norms 1."""
        for name, parameter in self.named_parameters():
            drawn = torch.empty(parameter.shape, device=generator.device)
            if name.endswith("bias") or name.endswith("mask_token"):
                drawn.zero_()
            elif "norm" in name:
                drawn.fill_(1.0)
            elif name.rpartition(".")[2] in ("lambda1", "ls1", "ls2"):
                drawn.fill_(self.layer_scale)
            else:
                drawn.normal_(0.0, 0.02, generator=generator)
            parameter.copy_(drawn)
