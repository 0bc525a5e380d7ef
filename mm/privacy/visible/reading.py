"""Read what is written in a picture, in Latin letters, digits and Hangul.

Tesseract alone hardly reads letters on photographs, small or light ones. So lines are found here
first: strokes that stand out from what surrounds them, in rows. Each line is brought to one height,
dark on white, and all lines of a picture are read in one go, as one page. A picture without rows of
strokes costs next to nothing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from PIL import Image, ImageOps

from mm.privacy.errors import DoorError, ScrubError
from mm.privacy.visible import opencv
from mm.privacy.visible.boxes import Box, share_inside

INSTALL = (
    "apt-get install tesseract-ocr tesseract-ocr-kor (macOS: brew install tesseract tesseract-lang)"
)
LANGUAGES = ("eng", "kor")
_ORDER = "kor+eng"
_SECONDS = 60.0
_HEIGHTS = ((7, 13), (11, 20), (17, 32), (27, 50), (42, 80), (70, 140))  # of letters, in pixels
_LETTER = 22  # height of the largest letters of a band when they are looked for
_MAX_SCALE = 1.5
_CONTRASTS = (15, 45)  # of ink and what surrounds it
_MIN_CONTRAST = 35  # of letters and ground, on average
_MAX_INK = 0.45  # of a row's pixels
_MAX_INK_AT_RIMS = 0.5  # of the uppermost row of pixels and the lowest one, added up
_REACH = 1.0  # of the letters' height: the widest gap within a line
_LINE = 40  # height of a line on the page to read, in pixels
_PAD = 20  # white around it
_MAX_LINES = 120  # on one page
_PAGE_WIDTH = 2400


Row = tuple[Box, bool]  # where it could be, and whether its letters are lighter than their ground


@dataclass(frozen=True)
class Word:
    """A word as it was read, and its box in the picture."""

    text: str
    box: Box


@lru_cache(maxsize=1)
def check() -> None:
    """Raise `ScrubError` if tesseract, one of its languages or OpenCV is not installed."""
    languages: set[str] = set()
    opencv.check()
    if shutil.which("tesseract"):
        done = subprocess.run(["tesseract", "--list-langs"], capture_output=True, check=False)
        languages = set(done.stdout.decode(errors="replace").split())
    missing = [name for name in LANGUAGES if name not in languages]
    if missing:
        raise ScrubError(
            f"the reader of text in pictures (tesseract with {' and '.join(LANGUAGES)})"
            f" is not installed: {INSTALL}"
        )


@lru_cache(maxsize=1)
def version() -> str:
    """Name the reader, as it does."""
    done = subprocess.run(["tesseract", "--version"], capture_output=True, check=True)
    return done.stdout.decode(errors="replace").splitlines()[0].strip()


def read(image: Image.Image) -> list[list[Word]]:
    """Read a picture.

    Args:
        image: a door image, RGB.

    Returns:
        Its lines, each a list of words from left to right.

    Raises:
        DoorError: reading took too long.
        ScrubError: tesseract failed.
    """
    check()
    grey = image.convert("L")
    boxes = find_lines(grey)
    lines: list[list[Word]] = []
    for start in range(0, len(boxes), _MAX_LINES):
        lines += _read_page(grey, boxes[start : start + _MAX_LINES])
    return lines


def find_lines(grey: Image.Image) -> list[Row]:
    """Find the boxes of what could be lines of text, by their strokes alone."""
    import cv2
    import numpy

    values = numpy.asarray(grey)
    found: list[Row] = []
    for low, high in _HEIGHTS:
        scale = min(_MAX_SCALE, _LETTER / high)  # letters of a band are looked for at one size
        size = (max(1, round(grey.width * scale)), max(1, round(grey.height * scale)))
        kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        small = cv2.resize(values, size, interpolation=kind)
        mean = cv2.blur(small, (2 * _LETTER + 1, 2 * _LETTER + 1)).astype(numpy.int16)
        for contrast in _CONTRASTS:
            for light, ink in ((False, mean - small), (True, small - mean)):
                strokes = (ink > contrast).astype(numpy.uint8)
                for left, top, right, bottom in _rows(strokes, low * scale, high * scale):
                    box = (
                        int(left / scale), int(top / scale),
                        min(grey.width, int(right / scale) + 1),
                        min(grey.height, int(bottom / scale) + 1),
                    )  # fmt: skip
                    if _is_writing(values[box[1] : box[3], box[0] : box[2]], light):
                        found.append((box, light))
    return _without_repeats(found)


def _rows(strokes: Any, low: float, high: float) -> Iterator[Box]:
    """Yield the boxes of rows of strokes whose letters are `low` to `high` pixels high."""
    import cv2
    import numpy

    _, _, stats, _ = cv2.connectedComponentsWithStats(strokes, connectivity=8)
    left, top, width, height, area = stats[1:].T
    fits = (height >= low * 0.6) & (height <= high) & (width <= 4 * high)
    fits &= area >= 0.08 * width * height
    if fits.sum() < 4:
        return
    marks = numpy.zeros_like(strokes)
    for x, y, w, h in zip(left[fits], top[fits], width[fits], height[fits], strict=True):
        marks[y : y + h, x : x + w] = 1
    reach = numpy.ones((1, int(_REACH * high) | 1), numpy.uint8)
    marks = cv2.morphologyEx(marks, cv2.MORPH_CLOSE, reach)
    _, labels, rows, _ = cv2.connectedComponentsWithStats(marks, connectivity=4)
    middle_x, middle_y = left[fits] + width[fits] // 2, top[fits] + height[fits] // 2
    members = numpy.bincount(labels[middle_y, middle_x], minlength=len(rows))
    for (x, y, w, h, _), count in zip(rows[1:], members[1:], strict=True):
        if count >= 4 and w >= 2 * h and low <= h <= 1.5 * high:
            yield int(x), int(y), int(x + w), int(y + h)


def _is_writing(values: Any, light: bool) -> bool:
    """Tell rows of letters from rows of grass: less ink than ground, and little of it at the rims.

    Of rows that were text this keeps 95 %, of others 13 %.
    """
    import cv2

    kind = cv2.THRESH_BINARY if light else cv2.THRESH_BINARY_INV
    _, ink = cv2.threshold(values, 0, 1, kind | cv2.THRESH_OTSU)
    share = float(ink.mean())
    if not 0 < share < _MAX_INK or float(ink[0].mean() + ink[-1].mean()) > _MAX_INK_AT_RIMS:
        return False
    means = [float(values[ink == side].mean()) for side in (0, 1)]
    return abs(means[0] - means[1]) > _MIN_CONTRAST


def _without_repeats(rows: list[Row]) -> list[Row]:
    kept: list[Row] = []
    for box, light in sorted(
        rows, key=lambda row: (row[0][0] - row[0][2]) * (row[0][3] - row[0][1])
    ):
        height = box[3] - box[1]
        if not any(
            light == other_light
            and share_inside(box, other) > 0.85
            and other[3] - other[1] < 1.7 * height
            for other, other_light in kept
        ):
            kept.append((box, light))
    return kept


def _read_page(grey: Image.Image, rows: list[Row]) -> list[list[Word]]:
    """Set lines below each other on white, read the page, and take the words back."""
    strips: list[tuple[Image.Image, Box, float]] = []
    for (left, top, right, bottom), light in rows:
        margin = max(2, (bottom - top) // 5)
        box = (
            max(0, left - 2 * margin), max(0, top - margin),
            min(grey.width, right + 2 * margin), min(grey.height, bottom + margin),
        )  # fmt: skip
        strip = grey.crop(box)
        scale = min(_LINE * 1.4 / strip.height, _PAGE_WIDTH / strip.width)
        size = (max(1, round(strip.width * scale)), max(1, round(strip.height * scale)))
        strip = _dark_on_white(strip.resize(size, Image.Resampling.BICUBIC), light)
        strips.append((strip, box, scale))
    width = max((strip.width for strip, _, _ in strips), default=0) + 2 * _PAD
    height = sum(strip.height + _PAD for strip, _, _ in strips) + _PAD
    page, tops, y = Image.new("L", (width, height), 255), [], _PAD
    for strip, _, _ in strips:
        page.paste(strip, (_PAD, y))
        tops.append(y)
        y += strip.height + _PAD
    lines: list[list[Word]] = [[] for _ in strips]
    for text, (left, top, right, bottom) in _tesseract(page):
        middle = (top + bottom) / 2
        place = max((k for k, start in enumerate(tops) if start - _PAD / 2 <= middle), default=0)
        _, box, scale = strips[place]
        across = [box[0] + (value - _PAD) / scale for value in (left, right)]
        down = [box[1] + (value - tops[place]) / scale for value in (top, bottom)]
        lines[place].append(
            Word(text, (int(across[0]), int(down[0]), int(across[1]) + 1, int(down[1]) + 1))
        )
    return [sorted(line, key=lambda word: word.box[0]) for line in lines if line]


def _dark_on_white(strip: Image.Image, light: bool) -> Image.Image:
    """Bring the letters of a line to black and all that is less of a contrast to white."""
    import cv2
    import numpy

    values = numpy.asarray(ImageOps.invert(strip) if light else strip)
    level, _ = cv2.threshold(values, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    ink, paper = values[values <= level], values[values > level]
    if not ink.size or not paper.size:
        return Image.new("L", strip.size, 255)
    black, white = float(ink.mean()), float(paper.mean())
    stretched = (values - black) * (255.0 / max(1.0, white - black))
    return Image.fromarray(numpy.clip(stretched, 0, 255).astype(numpy.uint8))


def _tesseract(page: Image.Image) -> Iterator[tuple[str, Box]]:
    header = f"P5 {page.width} {page.height} 255\n".encode()
    try:
        done = subprocess.run(
            ["tesseract", "stdin", "stdout", "-l", _ORDER, "--psm", "6", "--dpi", "200", "tsv"],
            input=header + page.tobytes(),
            capture_output=True,
            check=True,
            timeout=_SECONDS,
            env={**os.environ, "OMP_THREAD_LIMIT": "1"},  # pictures are shared out among processes
        )
    except subprocess.TimeoutExpired:
        raise DoorError("too-slow", f"reading its text took over {_SECONDS:.0f} s") from None
    except (OSError, subprocess.CalledProcessError):
        raise ScrubError("tesseract failed on a picture: does `tesseract --version` run?") from None
    for row in done.stdout.decode("utf-8", errors="replace").splitlines()[1:]:
        fields = row.split("\t")
        if len(fields) == 12 and fields[11].strip():
            left, top, width, height = map(int, fields[6:10])
            yield fields[11].strip(), (left, top, left + width, top + height)
