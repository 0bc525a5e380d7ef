"""Boxes in a picture: what was found where, and the paint that covers it for good."""

from collections.abc import Iterable
from dataclasses import dataclass

from PIL import Image

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels; right and bottom are outside
FILL = (128, 128, 128)  # one colour for all: it must not depend on what lies below


@dataclass(frozen=True)
class Finding:
    """Something personal that can be seen.

    Args:
        kind: `face`, `code`, `plate`, or `text_` and the rule that found it.
        box: what has to be covered, margins included.
    """

    kind: str
    box: Box


def box_around(
    points: Iterable[tuple[float, float]], margin: float, size: tuple[int, int]
) -> Box | None:
    """Return the upright box around points, enlarged by `margin` pixels a side, in the picture.

    Returns:
        None if nothing of it lies in a picture of this size (width, height).
    """
    xs, ys = zip(*points, strict=True)
    left, top = max(0, int(min(xs) - margin)), max(0, int(min(ys) - margin))
    right = min(size[0], int(max(xs) + margin) + 1)
    bottom = min(size[1], int(max(ys) + margin) + 1)
    return (left, top, right, bottom) if left < right and top < bottom else None


def overlap(first: Box, second: Box) -> float:
    """Return the share of the smaller box that lies in the other one."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return max(0, width) * max(0, height) / max(1, min(areas))


def cover(image: Image.Image, boxes: Iterable[Box]) -> Image.Image:
    """Return a copy whose boxes hold one solid colour, so that no trace of their pixels is left."""
    covered = image.copy()
    for box in boxes:
        covered.paste(FILL, box)
    return covered
