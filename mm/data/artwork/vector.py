"""Turn drawings (SVG or a picture with alpha) into a colour picture and a mask.

A renderer gives colour and coverage in one PNG. It is opened twice through the privacy door, over
black and over white: over black a pixel shows a*c, over white a*c + (1 - a), so both coverage a
and colour c follow, and no other code has to decode pictures.

H, W are height and width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from mm.privacy import door

SIZE = 96  # side of the square pictures
LONGEST = 92  # longest side of the drawn object in them
RENDER = 288  # pixels the drawing is first rendered at, well above LONGEST
VISIBLE = 8  # coverage of 255 under which colour is too coarsely quantised to be trusted

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Drawing:
    """A square cut-out: colour [H, W, 3] continued under the transparent part, mask [H, W]."""

    colour: Bytes
    mask: Bytes


def render_svg(svg: str) -> bytes:
    """Render an SVG document to PNG bytes with alpha, without system fonts."""
    import resvg_py

    png = resvg_py.svg_to_bytes(svg_string=svg, skip_system_fonts=True, width=RENDER, height=RENDER)
    return bytes(png)


def svg_pixels(svg: str) -> Bytes:
    """Render an SVG document to uint8 RGBA [H, W, 4]."""
    return rgba(render_svg(svg))


def glyph_pixels(font: ImageFont.FreeTypeFont, glyph: str) -> Bytes:
    """Draw one character of a font in black, as uint8 RGBA [H, W, 4]."""
    image = Image.new("L", (RENDER * 2, RENDER * 2))
    middle = (RENDER, RENDER)
    ImageDraw.Draw(image).text(middle, glyph, 255, font=font, anchor="mm")
    alpha = np.asarray(image)
    return np.dstack([np.zeros((*alpha.shape, 3), dtype=np.uint8), alpha])


def rgba(source: bytes) -> Bytes:
    """Open a picture with alpha through the door and recover uint8 RGBA [H, W, 4]."""
    black = np.asarray(door.open_image(source, background=(0, 0, 0)), dtype=np.float32)
    white = np.asarray(door.open_image(source, background=(255, 255, 255)), dtype=np.float32)
    alpha = np.clip(255.0 - (white - black).mean(axis=2), 0.0, 255.0)
    colour = black * (255.0 / np.maximum(alpha, 1.0))[..., None]
    stacked = np.concatenate([np.clip(colour, 0.0, 255.0), alpha[..., None]], axis=2)
    return (stacked + 0.5).astype(np.uint8)


def cut_out(pixels: Bytes, size: int = SIZE, longest: int = LONGEST) -> Drawing | None:
    """Crop RGBA to its visible box and centre it, scaled, in a square; None if nothing shows."""
    visible = pixels[..., 3] >= VISIBLE
    rows, columns = np.flatnonzero(visible.any(axis=1)), np.flatnonzero(visible.any(axis=0))
    if not len(rows):
        return None
    box = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = longest / max(box.shape[:2])
    height, width = (max(1, round(side * scale)) for side in box.shape[:2])
    # Pillow resizes RGBA premultiplied, so hidden colours don't leak into the rim.
    resample = Image.Resampling.BOX if scale <= 0.5 else Image.Resampling.BICUBIC
    small = Image.fromarray(np.ascontiguousarray(box)).resize((width, height), resample)
    square = np.zeros((size, size, 4), dtype=np.uint8)
    top, left = (size - height) // 2, (size - width) // 2
    square[top : top + height, left : left + width] = np.asarray(small)
    return Drawing(colour=bleed(square), mask=square[..., 3].copy())


def bleed(pixels: Bytes) -> Bytes:
    """Continue the visible colours of RGBA [H, W, 4] smoothly under its transparent part."""
    seen = (pixels[..., 3] >= VISIBLE).astype(np.float32)
    colour = pixels[..., :3].astype(np.float32)
    filled = _pull_push(colour * seen[..., None], seen)
    return (np.where(seen[..., None] > 0, colour, filled) + 0.5).astype(np.uint8)


def _pull_push(total: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean colour of the seen pixels near each pixel, from the finest level that has any."""
    mean = (total / np.maximum(weight, 1e-6)[..., None]).astype(np.float32)
    height, width = weight.shape
    if height == 1 and width == 1:
        return mean
    padding = ((0, height % 2), (0, width % 2))
    padded = np.pad(total, (*padding, (0, 0)))
    weights = np.pad(weight, padding)
    half = padded[0::2, 0::2] + padded[1::2, 0::2] + padded[0::2, 1::2] + padded[1::2, 1::2]
    half_weight = weights[0::2, 0::2] + weights[1::2, 0::2] + weights[0::2, 1::2]
    half_weight = half_weight + weights[1::2, 1::2]
    coarse = _pull_push(half, half_weight).repeat(2, axis=0).repeat(2, axis=1)
    return np.where(weight[..., None] > 0, mean, coarse[:height, :width]).astype(np.float32)
