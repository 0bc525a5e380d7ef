"""QR codes, barcodes and their relatives, found by ZXing-C++. What they say is never looked at."""

from __future__ import annotations

import importlib.util

from PIL import Image

from mm.privacy.errors import ScrubError
from mm.privacy.visible import opencv
from mm.privacy.visible.boxes import Finding, box_around

KIND = "code"
MARGIN = 0.06  # of the longer side, on each side


def check() -> None:
    """Raise `ScrubError` if the reader is not installed."""
    if importlib.util.find_spec("zxingcpp") is None:
        raise ScrubError(f"the reader of QR codes and barcodes is not installed: {opencv.INSTALL}")


def find(image: Image.Image) -> list[Finding]:
    """Find the codes in a picture, those with a wrong checksum too.

    Args:
        image: a door image, RGB.
    """
    import numpy
    import zxingcpp

    check()
    grey = numpy.asarray(image.convert("L"))
    found = []
    for code in zxingcpp.read_barcodes(grey, return_errors=True):
        place = code.position
        corners = [
            (corner.x, corner.y)
            for corner in (place.top_left, place.top_right, place.bottom_left, place.bottom_right)
        ]
        spans = [max(axis) - min(axis) for axis in zip(*corners, strict=True)]
        box = box_around(corners, MARGIN * max(spans), image.size)
        if box:
            found.append(Finding(KIND, box))
    return found
