"""From pictures to normalised pixel values, as the published image processors do it.

Resizing works on 8-bit values with antialiasing and rounds back to 8 bits, which is what most
published processors do; one family resizes numbers from 0 to 1 instead. `C H W` are channels,
height and width here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image

_MAX_PIXELS = 2**26  # of a picture that is enlarged only to have its middle cut out


def to_uint8(image: Image | Tensor) -> Tensor:
    """Turn a PIL picture, or a uint8 tensor `[3 or 1, H, W]`, into a uint8 tensor `[3, H, W]`.

    Raises:
        ValueError: a tensor of another type or shape, which would be scaled wrongly.
    """
    if not isinstance(image, Tensor):
        rgb = image if image.mode == "RGB" else image.convert("RGB")
        flat = torch.frombuffer(bytearray(rgb.tobytes()), dtype=torch.uint8)
        return flat.view(rgb.height, rgb.width, 3).permute(2, 0, 1)
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] not in (1, 3):
        raise ValueError(
            f"image tensor is {image.dtype} {tuple(image.shape)}; it must be uint8 [3, height,"
            " width] with values 0 to 255"
        )
    return image.expand(3, -1, -1)


def resize_uint8(images: Tensor, size: tuple[int, int], resample: str) -> Tensor:
    """Resize uint8 `[B, 3, H, W]` to `size`, ignoring its proportions.

    Raises:
        ValueError: not a uint8 batch of three channels.
    """
    _check_uint8(images)
    if tuple(images.shape[2:]) == size:
        return images
    if images.device.type == "cpu":
        return F.interpolate(images, size, mode=resample, align_corners=False, antialias=True)
    return resize_rounded(images, size, resample)


def resize_rounded(images: Tensor, size: tuple[int, int], resample: str) -> Tensor:
    """Resize uint8 `[B, 3, H, W]` as the 8-bit kernel does, which only the CPU has.

    Columns first, then rows, each rounded to 8 bits: bicubic weights overshoot, and what one pass
    cuts off the other must not see.
    """
    for partly in ((images.shape[2], size[1]), size):
        wide = F.interpolate(
            images.float(), partly, mode=resample, align_corners=False, antialias=True
        )
        images = wide.clamp(0, 255).round().to(torch.uint8)
    return images


def to_picture(image: Image | Tensor) -> Image:
    """Turn a PIL picture, or a uint8 tensor `[3 or 1, H, W]`, into an RGB picture.

    Raises:
        ValueError: a tensor of another type or shape, which would be scaled wrongly.
    """
    if not isinstance(image, Tensor):
        return image if image.mode == "RGB" else image.convert("RGB")
    from PIL import Image as pictures

    values = to_uint8(image).permute(1, 2, 0).contiguous().cpu()
    return pictures.fromarray(values.numpy())


def _check_uint8(images: Tensor) -> Tensor:
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(
            f"image batch is {images.dtype} {tuple(images.shape)}; it must be uint8 [B, 3, height,"
            " width] with values 0 to 255"
        )
    return images


def resize_float(images: Tensor, size: tuple[int, int], resample: str) -> Tensor:
    """Resize float `[B, 3, H, W]` to `size`, ignoring its proportions."""
    if tuple(images.shape[2:]) == size:
        return images
    return F.interpolate(images, size, mode=resample, align_corners=False, antialias=True)


def square(
    images: Sequence[Image | Tensor] | Tensor,
    side: int,
    resample: str,
    *,
    shortest_edge: int | None = None,
    rescale_first: bool = False,
) -> Tensor:
    """Make every picture a square.

    Args:
        images: PIL pictures or uint8 tensors `[3, H, W]`, of any sizes; or one uint8 tensor
            `[B, 3, H, W]`, which stays on its device.
        side: of the square.
        resample: "bicubic" or "bilinear"; both with antialiasing.
        shortest_edge: resize the shorter side to this, keeping proportions, and cut out the middle;
            None squashes the picture to the square.
        rescale_first: resize float numbers from 0 to 1 rather than 8-bit ones.

    Returns:
        `[B, 3, side, side]`: uint8, or float32 from 0 to 1 if `rescale_first`.

    Raises:
        ValueError: not uint8 of three channels, or so long and narrow that its other side would be
            enlarged beyond reason.
    """
    if not isinstance(images, Tensor):
        each = [
            square(
                to_uint8(image)[None],
                side,
                resample,
                shortest_edge=shortest_edge,
                rescale_first=rescale_first,
            )
            for image in images
        ]
        return torch.cat(each)
    if shortest_edge is None:
        size = (side, side)
    else:
        size = _keeping_proportions(images.shape[-2], images.shape[-1], shortest_edge)
    if rescale_first:
        resized = resize_float(_check_uint8(images) * (1 / 255), size, resample)
    else:
        resized = resize_uint8(images, size, resample)
    top, left = int((size[0] - side) / 2), int((size[1] - side) / 2)
    return resized[:, :, top : top + side, left : left + side]


def _keeping_proportions(height: int, width: int, shortest_edge: int) -> tuple[int, int]:
    if height <= width:
        size = shortest_edge, int(shortest_edge * width / height)
    else:
        size = int(shortest_edge * height / width), shortest_edge
    if size[0] * size[1] > _MAX_PIXELS:
        raise ValueError(
            f"picture of {width} x {height} would be enlarged to {size[1]} x {size[0]} to cut out"
            " its middle: crop it first"
        )
    return size


def normalize(pixels: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Map `[B, 3, H, W]`, uint8 or float from 0 to 1, to float32 `(value - mean) / std`.

    For uint8 it is `(value / 255 - mean) / std`.
    """
    scale = 1 if pixels.is_floating_point() else 255
    scaled_mean = _of_channels(mean, pixels.device) * scale
    scaled_std = _of_channels(std, pixels.device) * scale
    return (pixels.float() - scaled_mean) / scaled_std


def _of_channels(values: tuple[float, ...], device: torch.device) -> Tensor:
    """`[C, 1, 1]`, made where it is used: a copy from the host would have to be waited for."""
    return torch.stack([torch.full((1, 1), value, device=device) for value in values])
