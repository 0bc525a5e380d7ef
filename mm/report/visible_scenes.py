"""Faces and codes at known places in photographs, and photographs without, to measure on.

Backgrounds and faces are public-domain or CC0 photographs that scikit-image and matplotlib ship;
codes say nothing that is anybody's.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy
from PIL import Image, ImageDraw, ImageFilter

from mm.errors import UsageError
from mm.privacy.door import encode_jpeg, open_image

Box = tuple[int, int, int, int]  # left, top, right, bottom

# Without a person, a code or text of a person; public domain or CC0.
EMPTY = (
    "brick.png", "cell.png", "chelsea.png", "clock_motion.png", "coffee.png", "coins.png",
    "grass.png", "gravel.png", "horse.png", "hubble_deep_field.jpg", "ihc.png", "moon.png",
    "page.png", "retina.jpg", "rocket.jpg", "text.png",
)  # fmt: skip
# File, and the box from brow to chin and ear to ear, drawn by hand.
# The first two are in the public domain (NASA, US Navy), the third is CC0.
FACES = (
    ("skimage", "astronaut.png", (183, 82, 272, 188)),
    ("matplotlib", "grace_hopper.jpg", (165, 155, 365, 330)),
    ("skimage", "camera.png", (195, 118, 262, 188)),
)


@dataclass(frozen=True)
class Planted:
    """One thing that has to go: what it counts as (`48 px`, `English`), and where it is."""

    groups: tuple[str, ...]
    box: Box


@dataclass(frozen=True)
class Scene:
    """A picture and what was planted in it."""

    image: Image.Image
    planted: Planted


def sample_path(package: str, name: str) -> Path:
    """Return the path of a photograph that scikit-image or matplotlib ships.

    Raises:
        UsageError: the package is not installed.
    """
    try:
        if package == "skimage":
            from skimage.data import data_dir

            return Path(str(data_dir)) / name
        import matplotlib

        return Path(matplotlib.get_data_path()) / "sample_data" / name
    except ImportError:
        raise UsageError(
            "the photographs to measure on come with scikit-image and matplotlib:"
            " pip install 'mm[privacy,artwork]'"
        ) from None


@cache
def photograph(package: str, name: str) -> Image.Image:
    """Open one of them."""
    return open_image(sample_path(package, name))


def empty_pictures(sides: tuple[int, ...] = (512, 1024)) -> Iterator[tuple[str, Image.Image]]:
    """Yield every picture without a person, at some sizes."""
    for name in EMPTY:
        image = photograph("skimage", name)
        for side in sides:
            scale = side / max(image.size)
            yield name, image.resize((round(image.width * scale), round(image.height * scale)))


def background(random_: random.Random, size: tuple[int, int]) -> Image.Image:
    image = photograph("skimage", random_.choice(EMPTY[:12]))
    scale = max(size[0] / image.width, size[1] / image.height)
    image = image.resize((round(image.width * scale + 1), round(image.height * scale + 1)))
    left = random_.randint(0, image.width - size[0])
    top = random_.randint(0, image.height - size[1])
    return image.crop((left, top, left + size[0], top + size[1]))


def finished(random_: random.Random, image: Image.Image) -> Image.Image:
    """Put a picture through a JPEG, as most have been."""
    return open_image(encode_jpeg(image, random_.choice([70, 80, 90])))


def face_scenes(count: int, seed: int, sides: tuple[int, ...], turned: int = 0) -> Iterator[Scene]:
    """Paste a face of a given height onto photographs without one.

    Args:
        count: scenes per size.
        sides: heights of the face in pixels.
        turned: rotate each head by up to so many degrees; 180 gives any angle.
    """
    random_ = random.Random(seed)
    for side in sides:
        for number in range(count):
            package, name, box = FACES[number % len(FACES)]
            source = photograph(package, name)
            if random_.random() < 0.5:
                source = source.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
                box = (source.width - box[2], box[1], source.width - box[0], box[3])
            scale = side / (box[3] - box[1])
            margin = (box[3] - box[1]) // 2
            around = (box[0] - margin, box[1] - margin, box[2] + margin, box[3] + margin)
            head = source.crop(around).resize(
                (round((around[2] - around[0]) * scale), round((around[3] - around[1]) * scale)),
                Image.Resampling.LANCZOS,
            )
            mask = Image.new("L", head.size)
            edge = margin * scale / 3
            ImageDraw.Draw(mask).ellipse(
                (edge, edge, head.width - edge, head.height - edge), fill=255
            )
            mask = mask.filter(ImageFilter.GaussianBlur(max(1, side / 30)))
            if turned:
                angle = random_.uniform(-turned, turned)
                head = head.rotate(angle, Image.Resampling.BICUBIC)
                mask = mask.rotate(angle)
            if random_.random() < 0.3:
                head = head.convert("L").convert("RGB")
            head = head.point(_brightness(random_.uniform(0.6, 1.25)))
            size = (max(640, head.width + 40), max(480, head.height + 40))
            image = background(random_, size)
            x = random_.randint(0, size[0] - head.width)
            y = random_.randint(0, size[1] - head.height)
            image.paste(head, (x, y), mask)
            inner = round(margin * scale)
            planted = (x + inner, y + inner, x + head.width - inner, y + head.height - inner)
            yield Scene(finished(random_, image), Planted((f"{side} px high",), planted))


def _brightness(factor: float) -> list[int]:
    return [min(255, round(value * factor)) for value in range(256)] * 3


_CODES = {
    "QRCode": "https://example.com/p/", "EAN13": "", "Code128": "ID-", "PDF417": "NAME ",
    "DataMatrix": "SN", "Aztec": "TICKET ",
}  # fmt: skip


def code_scenes(count: int, seed: int, modules: tuple[int, ...] = (2, 3, 5)) -> Iterator[Scene]:
    """Paste codes, turned by any angle in half of the scenes, onto photographs.

    Args:
        count: scenes per kind of code and size.
        seed: the same seed draws the same scenes.
        modules: pixels per module, the smallest square or bar.
    """
    import zxingcpp

    random_ = random.Random(seed)
    for name, prefix in _CODES.items():
        for scale in modules:
            for _ in range(count):
                digits = "".join(random_.choice("0123456789") for _ in range(12))
                code = zxingcpp.create_barcode(
                    digits + _ean_check(digits) if name == "EAN13" else prefix + digits,
                    getattr(zxingcpp, name),
                )
                drawn = numpy.array(code.to_image(scale=scale, add_quiet_zones=False))
                quiet = 10 * scale
                height, width = drawn.shape[:2]
                sheet = Image.new("RGBA", (width + 2 * quiet, height + 2 * quiet), "white")
                sheet.paste(Image.fromarray(drawn), (quiet, quiet))
                image = background(random_, (900, 640))
                angle = random_.choice([0.0, random_.uniform(0, 360)])
                box = (quiet, quiet, quiet + width, quiet + height)
                box = paste_sheet(random_, image, sheet, box, angle)
                groups = (name, f"{scale} px a module", "turned" if angle else "upright")
                yield Scene(finished(random_, image), Planted(groups, box))


def _ean_check(digits: str) -> str:
    total = sum(int(digit) * (3 if place % 2 else 1) for place, digit in enumerate(digits))
    return str(-total % 10)


def paste_sheet(
    random_: random.Random, image: Image.Image, sheet: Image.Image, box: Box, angle: float
) -> Box:
    """Paste a sheet, turned, at a random place; return where its box then is."""
    marker = Image.new("L", sheet.size)
    marker.paste(255, box)
    if angle:
        sheet = sheet.rotate(angle, Image.Resampling.BICUBIC, expand=True)
        marker = marker.rotate(angle, expand=True)
    if sheet.width > image.width or sheet.height > image.height:
        sheet.thumbnail(image.size)
        marker = marker.resize(sheet.size)
    x = random_.randint(0, max(0, image.width - sheet.width))
    y = random_.randint(0, max(0, image.height - sheet.height))
    image.paste(sheet.convert("RGB"), (x, y), sheet.getchannel("A"))
    left, top, right, bottom = marker.getbbox() or box
    return (x + left, y + top, x + right, y + bottom)
