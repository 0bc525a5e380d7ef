"""From pictures to normalised pixel values, as the published image processors do it.

Resizing works on 8-bit values with antialiasing and rounds back to 8 bits, which is what the
published processors do by default. `C H W` are channels, height and width here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image


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
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(
            f"image batch is {images.dtype} {tuple(images.shape)}; it must be uint8 [B, 3, height,"
            " width] with values 0 to 255"
        )
    if tuple(images.shape[2:]) == size:
        return images
    if images.device.type == "cpu":
        return F.interpolate(images, size, mode=resample, align_corners=False, antialias=True)
    # No 8-bit kernel off the CPU; bicubic overshoots, so clamp before rounding back.
    wide = F.interpolate(images.float(), size, mode=resample, align_corners=False, antialias=True)
    return wide.clamp(0, 255).round().to(torch.uint8)


def normalize(pixels: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Map uint8 `[B, 3, H, W]` to float32 `(value / 255 - mean) / std`."""
    scaled_mean = torch.tensor(mean, device=pixels.device).view(-1, 1, 1) * 255
    scaled_std = torch.tensor(std, device=pixels.device).view(-1, 1, 1) * 255
    return (pixels.float() - scaled_mean) / scaled_std
