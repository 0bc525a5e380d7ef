"""Number plates: rows of letters that read like one, as there is no detector with open weights.

Korean plates of every series, and the letter and digit patterns that most countries use.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from mm.privacy.visible.boxes import Finding, box_around
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


def find(lines: Sequence[Sequence[Word]], size: tuple[int, int]) -> list[Finding]:
    """Find what reads like a number plate.

    Args:
        lines: what `reading.read` returned.
        size: width and height of the picture.
    """
    found = []
    for line in lines:
        read = "".join(re.sub(r"[^\w가-힣]|_", "", word.text) for word in line)
        if _KOREAN.search(read.translate(_LIKE_DIGITS)) or (
            len(read) >= 5 and len(line) <= 4 and _OTHERS.fullmatch(read)
        ):
            corners = [corner for word in line for corner in (word.box[:2], word.box[2:])]
            height = max(word.box[3] - word.box[1] for word in line)
            box = box_around(corners, MARGIN * height, size)
            if box:
                found.append(Finding(KIND, box))
    return found
