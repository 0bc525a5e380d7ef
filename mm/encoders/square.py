"""What encoders share that turn every picture into a square of one size.

Their configs have `hidden_size`, `num_hidden_layers`, `num_attention_heads`, `image_size`,
`patch_size`, `num_channels`, `resample`, `image_mean`, `image_std`, `feature_layer` and
`use_final_norm`; and where the family has a choice:

- `shortest_edge`: the shorter side is resized to this and the centre cut out; None squashes.
- `picture_size`: side of the square, where it is not that of the position embeddings.
- `keep_prefix`: give the class token and registers too, before the patches.

B pictures, N patches, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from mm.encoders import Grid, Pictures, VisionEncoder
from mm.encoders.pixels import normalize, square

if TYPE_CHECKING:
    from PIL.Image import Image


def check_sizes(config: Any) -> None:  # Any: each family's own dataclass
    """Check what several fields of a config must be for each other.

    Raises:
        ValueError: names the field, its value and what it must be.
    """
    if config.hidden_size % config.num_attention_heads:
        raise ValueError(
            f"hidden_size {config.hidden_size} is no multiple of"
            f" num_attention_heads {config.num_attention_heads}"
        )
    side = getattr(config, "picture_size", None) or config.image_size
    if not 1 <= config.patch_size <= min(side, config.image_size):
        raise ValueError(
            f"patch_size is {config.patch_size}; it must be between 1 and"
            f" image_size {min(side, config.image_size)}"
        )
    shortest_edge = getattr(config, "shortest_edge", None)
    if shortest_edge is not None and shortest_edge < side:
        raise ValueError(
            f"shortest_edge is {shortest_edge}; the square of {side} that is cut out needs at least"
            " as much"
        )
    if (
        len(config.image_mean) != config.num_channels
        or len(config.image_std) != config.num_channels
    ):
        raise ValueError(
            f"image_mean has {len(config.image_mean)} and image_std {len(config.image_std)} values;"
            f" both need num_channels = {config.num_channels}"
        )
    lowest, highest = -config.num_hidden_layers - 1, config.num_hidden_layers
    if not lowest <= config.feature_layer <= highest:
        raise ValueError(
            f"feature_layer is {config.feature_layer}; with {config.num_hidden_layers} layers it"
            f" must be between {lowest} and {highest}"
        )


class SquareEncoder(VisionEncoder):
    """Preprocessing, grid and choice of feature of an encoder of squares."""

    num_special_tokens: int = 0  # class token and registers, which come before the patches
    any_size: bool = False  # whether `forward` takes other sizes than `preprocess` gives
    layer_scale: float = 1.0  # what the factors of layer scales start with
    rescale_first: ClassVar[bool] = False  # resize numbers from 0 to 1 rather than 8-bit ones

    @property
    def hidden_size(self) -> int:
        """Width D of a token."""
        return int(self.config.hidden_size)

    @property
    def num_prefix_tokens(self) -> int:
        """How many tokens (class token, registers) `forward` gives before the patches."""
        return self.num_special_tokens if getattr(self.config, "keep_prefix", False) else 0

    @property
    def picture_size(self) -> int:
        """Side of the square that pictures become."""
        return int(getattr(self.config, "picture_size", None) or self.config.image_size)

    @property
    def num_layers(self) -> int:
        """How many layers `forward` runs for the chosen feature."""
        layer = int(self.config.feature_layer)
        return layer if layer >= 0 else int(self.config.num_hidden_layers) + 1 + layer

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
            shortest_edge=getattr(config, "shortest_edge", None),
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
