"""Number plates: rows of letters that read like one, as there is no detector with open weights.

Korean plates of every series, and the letter and digit patterns that most countries use.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from PIL import Image

from mm.privacy.visible.boxes import Box, Finding, box_around
from mm.privacy.visible.reading import Word

KIND = "plate"
MARGIN = 0.5  # of the letters' height, on each side: the plate around them

_REGION = "서울|부산|대구|인천|광주|대전|울산|세종|경기|강원|충북|충남|전북|전남|경북|경남|제주"
_KOREAN = re.compile(rf"(?:(?:{_REGION})\d{{1,2}}|\d{{2,3}})[가-힣]\d{{4}}")
_LIKE_DIGITS = {ord(a): b for a, b in zip("OQIl|SB", "0011158", strict=True)}
# Letters and digits as plates have them: AB12 CDE, ABC-1234, 1ABC234, B AB 1234, KA01AB1234, ...
_OTHERS = re.compile(
    r"[A-Z]{2}\d{2}[A-Z]{3}|[A-Z]{2,3}\d{3,4}|\d{3,4}[A-Z]{2,3}|\d[A-Z]{3}\d{3}"
    r"|[A-Z]{1,3}[A-Z]{1,2}\d{1,4}|[A-Z]{2}\d{3}[A-Z]{2}|[A-Z]{2}\d{2}[A-Z]{1,2}\d{4}"
    r"|[A-Z]{3}\d[A-Z]\d{2}|\d{2}[A-Z]{2}\d{2}"
)

# Misread ones: five to ten characters with two digits or more.
_NEARLY = re.compile(r"(?=(?:\D*\d){2})\w{5,10}")
_EDGE = 25  # of a plate's ground against what is around it


def find(lines: Sequence[Sequence[Word]], image: Image.Image) -> list[Finding]:
    """Find what reads like a number plate, or stands on a plate of its own and reads nearly so.

    Args:
        lines: what `reading.read` returned.
        image: the picture that it read.
    """
    import numpy

    grey = numpy.asarray(image.convert("L"))
    found = []
    for line in lines:
        read = "".join(re.sub(r"[\W_]", "", word.text) for word in line)
        left, top = (min(word.box[k] for word in line) for k in (0, 1))
        right, bottom = (max(word.box[k] for word in line) for k in (2, 3))
        if (
            _KOREAN.search(read.translate(_LIKE_DIGITS))
            or (len(read) >= 5 and len(line) <= 4 and _OTHERS.fullmatch(read))
            or (_NEARLY.fullmatch(read) and _stands_alone(grey, (left, top, right, bottom)))
        ):
            box = box_around([(left, top), (right, bottom)], MARGIN * (bottom - top), image.size)
            if box:
                found.append(Finding(KIND, box))
    return found


def _stands_alone(grey: Any, row: Box) -> bool:
    """Tell whether a row's ground ends above, below and at both ends, as a plate does."""
    import numpy

    left, top = max(0, row[0]), max(0, row[1])
    right, bottom = min(grey.shape[1], row[2]), min(grey.shape[0], row[3])
    height, width = bottom - top, right - left
    if height < 1 or not 1.8 * height <= width <= 9 * height:
        return False
    ground = numpy.percentile(grey[top:bottom, left:right], 75)
    if ground < numpy.median(grey[top:bottom, left:right]):
        return False
    near, far = round(0.7 * height), round(1.3 * height)
    sides = (
        grey[max(0, top - far) : max(0, top - near), left:right],
        grey[bottom + near : bottom + far, left:right],
        grey[top:bottom, max(0, left - far) : max(0, left - near)],
        grey[top:bottom, right + near : right + far],
    )
    levels = [abs(float(numpy.median(side)) - ground) for side in sides if side.size]
    return len(levels) >= 2 and min(levels) > _EDGE
