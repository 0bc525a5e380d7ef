"""Made-up documents for the model to decline.

Everything follows from a seed: words are syllables put together, in Latin letters or Hangul, so
that no text of anybody's is used. The pages that are measured on come from real manuals
(`photographs.py`), apart from Korean pages, whose test split differs in font and layout.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterator

from PIL import Image, ImageDraw, ImageFont

Font = ImageFont.FreeTypeFont
Layout = Callable[[ImageDraw.ImageDraw, "Writer", tuple[int, int]], None]

_ONSETS = "b c d f g h j l m n p r s t v w br st tr pl ch th".split()
_NUCLEI = "a e i o u ai ea io ou".split()
_CODAS = ["", "", "", "n", "r", "s", "t", "l", "nd", "st", "m"]
_HANGUL = 0xAC00  # syllables are _HANGUL + (onset * 21 + vowel) * 28 + coda


class Writer:
    """Writes made-up words with a handful of fonts."""

    def __init__(self, random_: random.Random, fonts: list[bytes], korean: bool) -> None:
        """Choose a body font and a heading font from the files given."""
        self.random = random_
        self.korean = korean
        self._body, self._heading = random_.choice(fonts), random_.choice(fonts)
        self.ink = random_.choice([(20, 20, 20), (45, 45, 60), (30, 30, 90), (60, 50, 40)])

    def font(self, size: int, heading: bool = False) -> Font:
        """The body or heading font at a size in pixels."""
        return ImageFont.truetype(io.BytesIO(self._heading if heading else self._body), size)

    def word(self) -> str:
        """One made-up word, sometimes a number."""
        choose = self.random.choice
        if self.random.random() < 0.06:
            return str(self.random.randint(1, 2999))
        if self.korean:
            return "".join(self._syllable() for _ in range(self.random.choice([1, 2, 2, 3, 4])))
        count = choose([1, 1, 2, 2, 3])
        return "".join(choose(_ONSETS) + choose(_NUCLEI) + choose(_CODAS) for _ in range(count))

    def words(self, count: int) -> str:
        """A line of words, the first one capitalised."""
        line = " ".join(self.word() for _ in range(count))
        return line[:1].upper() + line[1:]

    def _syllable(self) -> str:
        # Common letters only: the font's subset has the syllables in daily use.
        onset = self.random.choice([0, 2, 3, 5, 6, 7, 9, 11, 12, 18])
        vowel = self.random.choice([0, 4, 8, 13, 18, 20])
        coda = self.random.choice([0, 0, 0, 0, 1, 4, 8, 16, 21])
        return chr(_HANGUL + (onset * 21 + vowel) * 28 + coda)


def pages(
    count: int, seed: int, fonts: list[bytes], korean: bool = False, layouts: int = 0
) -> Iterator[Image.Image]:
    """Draw `count` document pages.

    Args:
        count: how many.
        seed: the same seed draws the same pages.
        fonts: font files to write with.
        korean: write Hangul.
        layouts: leave out this many of the first layouts, for pages unlike those of training.
    """
    random_ = random.Random(seed)
    usable = list(_LAYOUTS.values())[layouts:]
    for number in range(count):
        width = random_.randint(240, 380)
        size = (width, round(width * random_.choice([0.75, 1.0, 1.3, 1.41])))
        tint = random_.randint(236, 255)
        warm = random_.choice([0, 0, 0, 8, 14])
        image = Image.new("RGB", size, (tint, tint - warm // 3, tint - warm))
        writer = Writer(random_, fonts, korean)
        usable[number % len(usable)](ImageDraw.Draw(image), writer, size)
        yield image


def _paragraph(
    draw: ImageDraw.ImageDraw, writer: Writer, box: tuple[int, int, int, int], size: int
) -> int:
    """Fill a box (left, top, right, bottom) with lines; return where the text ends."""
    left, top, right, bottom = box
    font = writer.font(size)
    spacing = round(size * writer.random.uniform(1.15, 1.5))
    while top + spacing < bottom:
        line, last = "", writer.random.random() < 0.12
        limit = (right - left) * (writer.random.uniform(0.3, 0.8) if last else 1.0)
        while True:
            longer = f"{line} {writer.word()}".strip()
            if font.getlength(longer) > limit:
                break
            line = longer
        draw.text((left, top), line, writer.ink, font=font)
        top += spacing * (2 if last else 1)
    return top


def _article(draw: ImageDraw.ImageDraw, writer: Writer, size: tuple[int, int]) -> None:
    width, height = size
    margin = round(width * writer.random.uniform(0.06, 0.14))
    heading = writer.font(writer.random.randint(15, 24), heading=True)
    draw.text((margin, margin), writer.words(3), writer.ink, font=heading)
    body = writer.random.randint(7, 12)
    _paragraph(draw, writer, (margin, margin + 34, width - margin, height - margin), body)


def _columns(draw: ImageDraw.ImageDraw, writer: Writer, size: tuple[int, int]) -> None:
    width, height = size
    count, margin, gap = writer.random.choice([2, 2, 3]), 16, 10
    heading = writer.font(writer.random.randint(16, 28), heading=True)
    draw.text((margin, margin), writer.words(4), writer.ink, font=heading)
    draw.line((margin, margin + 36, width - margin, margin + 36), writer.ink)
    step = (width - 2 * margin + gap) // count
    for left in range(margin, margin + count * step, step):
        box = (left, margin + 42, left + step - gap, height - margin)
        _paragraph(draw, writer, box, writer.random.randint(6, 9))


def _table(draw: ImageDraw.ImageDraw, writer: Writer, size: tuple[int, int]) -> None:
    width, height = size
    margin, columns = 14, writer.random.randint(3, 6)
    font = writer.font(writer.random.randint(8, 12))
    row_height = writer.random.randint(16, 26)
    shade = writer.random.choice([(225, 225, 235), (230, 240, 225), (240, 230, 220)])
    for row, top in enumerate(range(margin, height - margin - row_height, row_height)):
        if row == 0 or (row % 2 and writer.ink[0] == 20):
            draw.rectangle((margin, top, width - margin, top + row_height), fill=shade)
        for column in range(columns):
            left = margin + 4 + column * (width - 2 * margin) // columns
            text = writer.word() if column == 0 or row == 0 else str(writer.random.randint(0, 999))
            draw.text((left, top + 4), text, writer.ink, font=font)
        draw.line((margin, top, width - margin, top), (150, 150, 150))


def _code(draw: ImageDraw.ImageDraw, writer: Writer, size: tuple[int, int]) -> None:
    width, height = size
    dark = writer.random.random() < 0.5
    draw.rectangle((0, 0, width, height), fill=(28, 30, 38) if dark else (250, 250, 246))
    font = writer.font(writer.random.randint(8, 12))
    colours = [(230, 150, 90), (120, 180, 240), (150, 200, 120), (200, 200, 200)]
    if not dark:
        colours = [(160, 60, 20), (20, 70, 160), (30, 110, 40), (40, 40, 40)]
    indent = 0
    for top in range(10, height - 14, 15):
        indent = max(0, min(4, indent + writer.random.choice([-1, 0, 0, 1])))
        left = 10.0 + indent * 16
        for _ in range(writer.random.randint(0, 5)):
            text = writer.word() + writer.random.choice([" ", " = ", "(", ") ", ".", ": "])
            draw.text((left, top), text, writer.random.choice(colours), font=font)
            left += font.getlength(text)


def _receipt(draw: ImageDraw.ImageDraw, writer: Writer, size: tuple[int, int]) -> None:
    width, height = size
    font = writer.font(11)
    heading = writer.font(18, heading=True)
    draw.text((width // 2, 16), writer.words(2), writer.ink, font=heading, anchor="mt")
    for top in range(48, height - 24, 18):
        if writer.random.random() < 0.12:
            draw.line((16, top + 6, width - 16, top + 6), writer.ink)
            continue
        draw.text((16, top), writer.words(2), writer.ink, font=font)
        price = f"{writer.random.uniform(0.5, 99):.2f}"
        draw.text((width - 16, top), price, writer.ink, font=font, anchor="ra")


def _list(draw: ImageDraw.ImageDraw, writer: Writer, size: tuple[int, int]) -> None:
    width, height = size
    font = writer.font(writer.random.randint(9, 14))
    draw.text((20, 14), writer.words(2), writer.ink, font=writer.font(20, heading=True))
    for number, top in enumerate(range(50, height - 24, writer.random.randint(18, 28)), start=1):
        draw.text((20, top), f"{number}.", writer.ink, font=font)
        draw.text((44, top), writer.words(writer.random.randint(2, 5)), writer.ink, font=font)


def _form(draw: ImageDraw.ImageDraw, writer: Writer, size: tuple[int, int]) -> None:
    width, height = size
    draw.text((18, 12), writer.words(3), writer.ink, font=writer.font(17, heading=True))
    font = writer.font(10)
    for top in range(48, height - 34, 34):
        draw.text((18, top), writer.words(2), writer.ink, font=font)
        middle = writer.random.randint(width // 3, width // 2)
        draw.rectangle((middle, top - 4, width - 18, top + 18), outline=(130, 130, 130))
        if writer.random.random() < 0.5:
            draw.text((middle + 6, top), writer.word(), (60, 60, 120), font=font)


_LAYOUTS: dict[str, Layout] = {
    "article": _article,
    "columns": _columns,
    "table": _table,
    "code": _code,
    "receipt": _receipt,
    "list": _list,
    "form": _form,
}
