"""How the look of drawings and pictures varies, on whatever device they lie.

Nothing in here moves a thing or changes what it is; every random draw comes from the generator.

    S sprites   B pictures
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class StyleConfig:
    """How strongly the look of things varies. A number is a probability unless it says more."""

    tilt_degrees: float = 12.0  # standard deviation
    flip: float = 0.4
    mono: float = 0.06  # one flat colour, as an icon
    mono_icons: float = 0.8  # another flat colour, for what has one anyway
    grey: float = 0.06
    hue: float = 0.35
    tone: float = 0.5  # contrast, saturation and brightness
    outline: float = 0.2
    warp: float = 0.5
    stretch: float = 0.5
    occlude: float = 0.15
    shade: float = 0.3
    edges: float = 0.05  # dark lines on a light fill
    blur: float = 0.25
    noise: float = 0.35
    jpeg: float = 0.4


PLAIN_STYLE = StyleConfig(
    tilt_degrees=0.0, flip=0.0, mono=0.0, mono_icons=0.0, grey=0.0, hue=0.0, tone=0.0,
    outline=0.0, warp=0.0, stretch=0.0, occlude=0.0, shade=0.0, edges=0.0, blur=0.0, noise=0.0,
    jpeg=0.0,
)  # fmt: skip


def restyle(layer: Tensor, tint: Tensor, style: StyleConfig, generator: torch.Generator) -> Tensor:
    """Recolour, outline, shade and cut sprites.

    Args:
        layer: float [S, 4, side, side], colour and alpha in 0..1.
        tint: [S, 4], a colour and 1 where the thing has that one colour, which nothing changes.
    """
    colour, alpha = layer[:, :3], layer[:, 3:]
    count, device = colour.shape[0], layer.device
    free = (tint[:, 3] == 0).float()  # things whose colour says nothing may change it

    def happens(probability: float) -> Tensor:
        drawn = torch.rand(count, generator=generator, device=device) < probability
        return (drawn * free).to(torch.float32)[:, None, None, None]

    def uniform(low: float, high: float) -> Tensor:
        value = torch.rand(count, 1, 1, 1, generator=generator, device=device)
        return low + (high - low) * value

    if style.hue:
        colour = torch.lerp(colour, _rotate_hue(colour, 0.35, generator), happens(style.hue))
    if style.tone:
        colour = torch.lerp(colour, tone(colour, 0.4, generator), happens(style.tone))
    if style.grey:
        grey = colour.mean(1, keepdim=True).expand_as(colour)
        colour = torch.lerp(colour, grey, happens(style.grey))
    if style.edges:
        smooth = F.avg_pool2d(colour.mean(1, keepdim=True), 3, 1, 1)
        contrast = (F.max_pool2d(smooth, 5, 1, 2) + F.max_pool2d(-smooth, 5, 1, 2)) * 2.5
        rim = alpha + F.max_pool2d(-alpha, 5, 1, 2)
        drawing = (uniform(0.85, 1.0) - torch.maximum(contrast, rim.clamp(0, 1))).clamp(0, 1)
        colour = torch.lerp(colour, drawing.expand_as(colour), happens(style.edges))
    colour = torch.lerp(
        colour, tint[:, :3, None, None].expand_as(colour), tint[:, 3, None, None, None]
    )
    if style.shade:
        axis = torch.linspace(-1, 1, colour.shape[-1], device=device)
        ramp = (
            uniform(-1, 1) * axis[None, None, None, :] + uniform(-1, 1) * axis[None, None, :, None]
        )
        colour = (colour * (1 + 0.3 * ramp * happens(style.shade))).clamp(0, 1)
    if style.outline:
        wide = F.max_pool2d(alpha, 5, 1, 2)
        line = torch.rand(count, 1, 1, 1, generator=generator, device=device).round()
        on = happens(style.outline)
        colour = torch.where((on > 0) & (wide > alpha), line + (colour - line) * alpha, colour)
        alpha = torch.lerp(alpha, wide, on)
    if style.blur:
        soft = F.avg_pool2d(torch.cat([colour, alpha], 1), 3, 1, 1, count_include_pad=False)
        on = happens(style.blur)
        colour, alpha = torch.lerp(colour, soft[:, :3], on), torch.lerp(alpha, soft[:, 3:], on)
    if style.occlude:
        axis = torch.linspace(0, 1, colour.shape[-1], device=device)
        cut_x = (axis[None, None, None, :] - uniform(0, 1)).abs() < uniform(0.08, 0.22)
        cut_y = (axis[None, None, :, None] - uniform(0, 1)).abs() < uniform(0.08, 0.22)
        alpha = alpha * (1 - (cut_x & cut_y).float() * happens(style.occlude))
    return torch.cat([colour, alpha], 1)


def photograph(canvas: Tensor, style: StyleConfig, generator: torch.Generator) -> Tensor:
    """What a file does to a picture: slight exposure, noise, and JPEG blocks."""
    batch, device = canvas.shape[0], canvas.device

    def happens(probability: float) -> Tensor:
        drawn = torch.rand(batch, 1, 1, 1, generator=generator, device=device)
        return (drawn < probability).float()

    if style.noise:
        level = torch.rand(batch, 1, 1, 1, generator=generator, device=device) * 0.05
        grain = torch.randn(canvas.shape, generator=generator, device=device)
        canvas = canvas + grain * level * happens(style.noise)
    if style.jpeg:
        canvas = torch.lerp(canvas, _jpeg(canvas.clamp(0, 1), generator), happens(style.jpeg))
    return canvas


def smooth_noise(
    batch: int,
    channels: int,
    cells: int,
    size: int,
    generator: torch.Generator,
    device: torch.device,
) -> Tensor:
    """Gaussian noise on a coarse lattice, interpolated: [batch, channels, size, size]."""
    coarse = torch.randn(batch, channels, cells, cells, generator=generator, device=device)
    return F.interpolate(coarse, size=(size, size), mode="bilinear", align_corners=False)


def _rotate_hue(colour: Tensor, turns: float, generator: torch.Generator) -> Tensor:
    """Rotate colours about the grey axis by up to `turns` of a circle, mostly by little."""
    count = colour.shape[0]
    amount = torch.randn(count, generator=generator, device=colour.device).clamp(-2, 2) / 2
    angle = amount.abs().pow(1.5) * amount.sign() * turns * 2 * math.pi
    cos, sin = angle.cos(), angle.sin()
    third, root = (1 - cos) / 3, sin / math.sqrt(3)
    same, left, right = cos + third, third - root, third + root
    matrix = torch.stack([same, left, right, right, same, left, left, right, same], 1)
    return torch.einsum("nij,njhw->nihw", matrix.unflatten(1, (3, 3)), colour).clamp(0, 1)


def tone(colour: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Contrast, saturation and brightness, each by up to `strength`."""

    def factor() -> Tensor:
        drawn = torch.rand(colour.shape[0], 1, 1, 1, generator=generator, device=colour.device)
        return 1 + (drawn * 2 - 1) * strength

    grey = colour.mean(1, keepdim=True)
    colour = grey + (colour - grey) * factor()
    colour = 0.5 + (colour - 0.5) * factor()
    return (colour * factor()).clamp(0, 1)


def _dct_matrix(device: torch.device) -> Tensor:
    """The orthonormal 8-point DCT-II."""
    n = torch.arange(8, device=device, dtype=torch.float32)
    matrix = torch.cos((2 * n[None, :] + 1) * n[:, None] * math.pi / 16) * 0.5
    matrix[0] /= math.sqrt(2)
    return matrix


def _jpeg(canvas: Tensor, generator: torch.Generator) -> Tensor:
    """Blocks and ringing of a JPEG file: DCT coefficients of 8x8 blocks rounded to random steps."""
    batch, _, size, _ = canvas.shape
    dct = _dct_matrix(canvas.device)
    blocks = canvas.unflatten(3, (size // 8, 8)).unflatten(2, (size // 8, 8)).transpose(3, 4)
    coefficients = dct @ blocks @ dct.T  # [B, 3, h, w, 8, 8]
    index = torch.arange(8, device=canvas.device, dtype=torch.float32)
    # Steps grow with frequency, as in the tables of ITU-T T.81 annex K; 16/255 is quality 50.
    steps = (1 + 0.6 * (index[:, None] + index[None, :])) * (16 / 255)
    quality = torch.rand(batch, 1, 1, 1, 1, 1, generator=generator, device=canvas.device)
    steps = steps * (0.05 + 0.9 * quality**2)
    rounded = (coefficients / steps).round() * steps
    blocks = dct.T @ rounded @ dct
    restored: Tensor = blocks.transpose(3, 4).flatten(4, 5).flatten(2, 3).clamp(0, 1)
    return restored
