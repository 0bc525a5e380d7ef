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


def corners_of(box: Box) -> list[tuple[float, float]]:
    """Return the first and the last pixel of a box."""
    return [(box[0], box[1]), (box[2] - 1, box[3] - 1)]


def area(box: Box) -> int:
    """Return the number of pixels in a box."""
    return max(0, box[2] - box[0]) * max(0, box[3] - box[1])


def share_inside(box: Box, other: Box) -> float:
    """Return the share of `box` that lies in `other`."""
    both = (
        max(box[0], other[0]),
        max(box[1], other[1]),
        min(box[2], other[2]),
        min(box[3], other[3]),
    )
    return area(both) / max(1, area(box))


def cover(image: Image.Image, boxes: Iterable[Box]) -> Image.Image:
    """Return a copy whose boxes hold one solid colour, so that no trace of their pixels is left."""
    covered = image.copy()
    for box in boxes:
        covered.paste(FILL, box)
    return covered
