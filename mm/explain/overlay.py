"""Maps drawn over their picture, side by side, with a label under each.

R side of a map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from PIL import Image as pictures
from PIL import ImageDraw, ImageFont
from PIL.Image import Image
from torch import Tensor

from mm.encoders.pixels import to_picture
from mm.errors import UsageError

PANEL = 168  # longest side of a picture in the drawing, in pixels
MARGIN = 8
LINE = 20  # height of a line of text
COLUMNS = 6
INK, WARNING, PAPER = (20, 20, 20), (190, 20, 20), (255, 255, 255)
# From nothing over orange to yellow.
RAMP = ((60, 0, 90), (180, 20, 80), (245, 90, 20), (255, 220, 40))
# Fonts with Korean letters, as systems name them; the first that there is.
FONTS = (
    "NotoSansCJK-Regular.ttc",
    "NotoSansKR-Regular.ttf",
    "NanumGothic.ttf",
    "malgun.ttf",
    "AppleSDGothicNeo.ttc",
    "AppleGothic.ttf",
)
AnyFont = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Strip:
    """A line of text, and below it a map for each label.

    Args:
        title: the line; `warns` writes it in red.
        panels: labels and maps `[R, R]`; None shows the picture as it is.
    """

    title: str
    panels: Sequence[tuple[str, Tensor | None]]
    warns: bool = False


def load_font(path: str | None) -> AnyFont:
    """Return the font of a file, or one with Korean letters if the system has it.

    Raises:
        UsageError: the file is no font.
    """
    for name in FONTS if path is None else (path,):
        try:
            return ImageFont.truetype(name, 14)
        except OSError:
            pass
    if path is not None:
        raise UsageError(f"{path} is no font file: name a .ttf, .otf or .ttc")
    return ImageFont.load_default(14)


def blend(picture: Image, heat: Tensor) -> Image:
    """Lay a map `[R, R]` over a picture: the larger a value, the more colour; below 0, none."""
    positive = heat.clamp(min=0)
    share = positive / positive.max().clamp(min=1e-12)
    size = picture.height, picture.width
    smooth = F.interpolate(share[None, None].float(), size, mode="bilinear")[0, 0].numpy()
    table = [
        round(
            RAMP[part][channel] + (RAMP[part + 1][channel] - RAMP[part][channel]) * (place - part)
        )
        for channel in range(3)
        for place in (step / 85 for step in range(256))
        for part in (min(int(place), len(RAMP) - 2),)
    ]
    shade = pictures.fromarray((smooth * 255).astype("uint8"))
    colour = pictures.merge("RGB", [shade.point(table[n * 256 : (n + 1) * 256]) for n in range(3)])
    pale = pictures.blend(picture.convert("L").convert("RGB"), picture, 0.4)
    return pictures.composite(colour, pale, shade.point([round(0.8 * step) for step in range(256)]))


def draw(image: Tensor, strips: Sequence[Strip], font: AnyFont | None = None) -> Image:
    """Draw strips of maps over a picture, one below the other.

    Args:
        image: uint8 `[3, height, width]`.
        strips: what to show.
        font: of the text; letters that it lacks are left out.
    """
    font = font or load_font(None)
    picture = to_picture(image)
    scale = PANEL / max(picture.size)
    small = picture.resize(
        (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    )
    step_x, step_y = PANEL + MARGIN, small.height + LINE + MARGIN
    columns = min(COLUMNS, max(len(strip.panels) for strip in strips))
    lines = [-(-len(strip.panels) // columns) for strip in strips]
    width = max([columns * step_x, *(round(font.getlength(strip.title)) for strip in strips)])
    height = MARGIN + sum(LINE + line * step_y for line in lines)
    sheet = pictures.new("RGB", (MARGIN + width + MARGIN, height), PAPER)
    pen, top = ImageDraw.Draw(sheet), MARGIN
    for strip, line in zip(strips, lines, strict=True):
        pen.text((MARGIN, top), strip.title, WARNING if strip.warns else INK, font)
        top += LINE
        for number, (label, heat) in enumerate(strip.panels):
            x, y = MARGIN + number % columns * step_x, top + number // columns * step_y
            sheet.paste(small if heat is None else blend(small, heat), (x, y))
            pen.text((x, y + small.height + 1), _drawable(font, label), INK, font)
        top += line * step_y
    return sheet


def _drawable(font: AnyFont, text: str) -> str:
    """Leave out letters that the font lacks, which look like a letter that nobody has."""
    missing = bytes(font.getmask("\uffff"))
    return "".join(one for one in text if one.isspace() or bytes(font.getmask(one)) != missing)
