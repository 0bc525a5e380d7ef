"""Before and after, side by side: what scrubbing does to the first pictures of a source."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from PIL import Image, ImageDraw

from mm.data.sample import Record
from mm.privacy import door
from mm.privacy.errors import DoorError
from mm.privacy.policy import Policy
from mm.privacy.scrub import Found, Refusal, Report, scrub_sample

_CELL = 256
_MARGIN = 8
_LINE = 14
_COLUMNS = 2


@dataclass(frozen=True)
class Row:
    """One record: pictures before and after, and what was done, as counts."""

    before: list[Image.Image]
    after: list[Image.Image]
    notes: list[str]


def preview(
    records: Iterable[Record], policy: Policy, number: int, key: bytes | None = None
) -> tuple[list[Row], Report]:
    """Scrub the first records without writing anything.

    Returns:
        A row per record, and the counts of all.
    """
    rows, report = [], Report()
    for index, record in enumerate(islice(records, number)):
        raw = record.load(policy.limits.max_bytes)
        result = scrub_sample(raw, policy, index, key)
        report.add(result)
        if isinstance(result, Refusal):
            rows.append(Row(_opened(raw.images, policy), [], [f"{index}: {result.reason}"]))
        else:
            clean, found = result
            after = _opened(clean.images, policy)
            rows.append(Row(_opened(raw.images, policy), after, [f"{index}:", *_words(found)]))
    return rows, report


def draw(rows: list[Row]) -> bytes:
    """Draw a contact sheet as PNG: per record, each picture before (left) and after (right)."""
    pairs = [
        (row.before[k] if k < len(row.before) else None, row.after[k] if row.after else None, row)
        for row in rows
        for k in range(max(1, len(row.before)))
    ]
    width, height = 2 * _CELL + 3 * _MARGIN, _CELL + 5 * _LINE
    lines = -(-len(pairs) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * width, max(1, lines) * height), "white")
    pen = ImageDraw.Draw(sheet)
    for place, (before, after, row) in enumerate(pairs):
        x, y = place % _COLUMNS * width + _MARGIN, place // _COLUMNS * height + _MARGIN
        for side, image in enumerate((before, after)):
            left = x + side * (_CELL + _MARGIN)
            if image is None:
                pen.rectangle((left, y, left + _CELL, y + _CELL), outline="grey")
                pen.text((left + _MARGIN, y + _MARGIN), "left out", fill="grey")
            else:
                sheet.paste(image, (left, y))
        for number, words in enumerate(_wrapped(row.notes, 80)[:3]):
            pen.text((x, y + _CELL + 2 + number * _LINE), words, fill="black")
    return door.encode_png(sheet)


def _opened(pictures: list[bytes], policy: Policy) -> list[Image.Image]:
    opened = []
    for data in pictures:
        try:
            image = door.open_image(data, limits=policy.limits, background=policy.background)
        except DoorError:
            continue
        image.thumbnail((_CELL, _CELL))
        opened.append(image)
    return opened


def _words(found: Found) -> list[str]:
    counts = found.metadata + found.text + found.visible
    return [f"{number} {kind}" for kind, number in sorted(counts.items())] or ["nothing found"]


def _wrapped(words: list[str], width: int) -> list[str]:
    lines = [""]
    for word in words:
        if len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] += word + "  "
    return lines
