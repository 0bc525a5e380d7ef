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
from mm.privacy.visible.boxes import Box, overlap

INSTALL = (
    "apt-get install tesseract-ocr tesseract-ocr-kor (macOS: brew install tesseract tesseract-lang)"
)
LANGUAGES = ("eng", "kor")
_ORDER = "kor+eng"
_SECONDS = 60.0
_HEIGHTS = ((5, 16), (12, 34), (26, 72), (56, 160))  # of letters in pixels, in overlapping bands
_LINE = 40  # height of a line on the page to read, in pixels
_PAD = 20  # white around it
_MAX_LINES = 120  # on one page
_PAGE_WIDTH = 2400


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


def find_lines(grey: Image.Image) -> list[Box]:
    """Find the boxes of what could be lines of text, by their strokes alone."""
    import cv2
    import numpy

    # Small letters need more pixels before strokes part from each other.
    factor = 2 if max(grey.size) <= 1600 else 1
    values = numpy.asarray(grey.resize((grey.width * factor, grey.height * factor)))
    found: list[Box] = []
    for low, high in _HEIGHTS:
        shrink = max(1.0, high * factor / 64)  # large letters are found in a smaller picture
        size = (round(values.shape[1] / shrink), round(values.shape[0] / shrink))
        small = values if shrink == 1 else cv2.resize(values, size, interpolation=cv2.INTER_AREA)
        window = int(high * factor / shrink) | 1
        for ink in (cv2.THRESH_BINARY_INV, cv2.THRESH_BINARY):
            offset = 12 if ink == cv2.THRESH_BINARY_INV else -12
            strokes = cv2.adaptiveThreshold(
                small, 255, cv2.ADAPTIVE_THRESH_MEAN_C, ink, max(3, window), offset
            )
            scale = shrink / factor
            for box in _rows(strokes, low / scale, high / scale):
                left, top, right, bottom = (round(value * scale) for value in box)
                found.append((left, top, min(right, grey.width), min(bottom, grey.height)))
    return _without_repeats(found)


def _rows(strokes: Any, low: float, high: float) -> Iterator[Box]:
    """Yield the boxes of rows of strokes whose letters are `low` to `high` pixels high."""
    import cv2
    import numpy

    _, _, stats, _ = cv2.connectedComponentsWithStats(strokes, connectivity=8)
    left, top, width, height, area = stats[1:].T
    fits = (height >= low * 0.5) & (height <= high) & (width <= 4 * high) & (width >= 1)
    fits &= (area >= 0.08 * width * height) & (area >= low * 0.5)
    if fits.sum() < 3:
        return
    marks = numpy.zeros_like(strokes)
    for x, y, w, h in zip(left[fits], top[fits], width[fits], height[fits], strict=True):
        marks[y : y + h, x : x + w] = 255
    reach = int(1.2 * low) | 1
    marks = cv2.morphologyEx(marks, cv2.MORPH_CLOSE, numpy.ones((1, reach), numpy.uint8))
    _, labels, rows, _ = cv2.connectedComponentsWithStats(marks, connectivity=4)
    middle_x, middle_y = left[fits] + width[fits] // 2, top[fits] + height[fits] // 2
    members = numpy.bincount(labels[middle_y, middle_x], minlength=len(rows))
    for (x, y, w, h, _), count in zip(rows[1:], members[1:], strict=True):
        if count >= 4 and w >= 2.5 * h and low <= h <= 1.6 * high:
            yield int(x), int(y), int(x + w), int(y + h)


def _without_repeats(boxes: list[Box]) -> list[Box]:
    kept: list[Box] = []
    for box in sorted(boxes, key=lambda box: (box[0] - box[2]) * (box[3] - box[1])):
        height = box[3] - box[1]
        if not any(
            overlap(box, other) > 0.85 and other[3] - other[1] < 1.7 * height for other in kept
        ):
            kept.append(box)
    return kept


def _read_page(grey: Image.Image, boxes: list[Box]) -> list[list[Word]]:
    """Set lines below each other on white, read the page, and take the words back."""
    strips: list[tuple[Image.Image, Box, float]] = []
    for left, top, right, bottom in boxes:
        margin = max(2, (bottom - top) // 5)
        box = (
            max(0, left - 2 * margin), max(0, top - margin),
            min(grey.width, right + 2 * margin), min(grey.height, bottom + margin),
        )  # fmt: skip
        strip = grey.crop(box)
        scale = min(_LINE * 1.4 / strip.height, _PAGE_WIDTH / strip.width)
        size = (max(1, round(strip.width * scale)), max(1, round(strip.height * scale)))
        strips.append((_dark_on_white(strip.resize(size, Image.Resampling.BICUBIC)), box, scale))
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


def _dark_on_white(strip: Image.Image) -> Image.Image:
    """Stretch the contrast of a line, and turn light letters into dark ones."""
    import cv2
    import numpy

    values = numpy.asarray(strip)
    level, _ = cv2.threshold(values, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    edge = numpy.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
    strip = ImageOps.autocontrast(strip, cutoff=2)
    return ImageOps.invert(strip) if (edge > level).mean() < 0.5 else strip


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
