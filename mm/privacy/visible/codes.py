"""QR codes, barcodes and their relatives, found by ZXing-C++. What they say is never looked at."""

from __future__ import annotations

import importlib.util
import math
from typing import Any

from PIL import Image

from mm.privacy.errors import ScrubError
from mm.privacy.visible import opencv
from mm.privacy.visible.boxes import Finding, box_around, share_inside

KIND = "code"
MARGIN = 0.06  # of the longer side, on each side
_ANGLES = (0, 22.5, 45, 67.5)  # degrees; the reader itself turns by 90


def check() -> None:
    """Raise `ScrubError` if the reader is not installed."""
    if importlib.util.find_spec("zxingcpp") is None:
        raise ScrubError(f"the reader of QR codes and barcodes is not installed: {opencv.INSTALL}")


def find(image: Image.Image) -> list[Finding]:
    """Find the codes in a picture, those with a wrong checksum too (but for DataMatrix).

    Args:
        image: a door image, RGB.
    """
    import numpy
    import zxingcpp

    check()
    grey = image.convert("L")
    found: list[Finding] = []
    for angle in _ANGLES:
        turned = grey.rotate(angle, Image.Resampling.BILINEAR, expand=True) if angle else grey
        # Squares are found at any angle; bars have to lie along the rows or columns, more or less.
        formats = zxingcpp.BarcodeFormat.All if angle == 0 else _striped()
        codes = zxingcpp.read_barcodes(numpy.asarray(turned), formats, return_errors=angle == 0)
        for code in codes:
            if not code.valid and code.format == zxingcpp.BarcodeFormat.DataMatrix:
                continue  # broken ones are mostly grain
            place = code.position
            corners = [
                _turned_back((corner.x, corner.y), angle, turned.size, grey.size)
                for corner in (
                    place.top_left, place.top_right, place.bottom_left, place.bottom_right
                )
            ]  # fmt: skip
            spans = [max(axis) - min(axis) for axis in zip(*corners, strict=True)]
            box = box_around(corners, MARGIN * max(spans), image.size)
            if box and all(share_inside(box, other.box) < 0.85 for other in found):
                found.append(Finding(KIND, box))
    return found


def _striped() -> tuple[Any, ...]:  # formats of zxingcpp, which is untyped
    import zxingcpp

    return (zxingcpp.BarcodeFormat.AllLinear, zxingcpp.BarcodeFormat.PDF417)


def _turned_back(
    point: tuple[float, float], angle: float, turned: tuple[int, int], size: tuple[int, int]
) -> tuple[float, float]:
    """Return where a point of the turned picture lies in the picture."""
    x, y = point[0] - turned[0] / 2, point[1] - turned[1] / 2
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return x * cosine - y * sine + size[0] / 2, x * sine + y * cosine + size[1] / 2
