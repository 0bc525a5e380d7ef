"""Made-up personal data written on signs and photographs, and number plates, to measure on.

Fonts are those of the artwork; values are those that the text rules are measured on.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from mm.data.artwork.letters import font_data
from mm.report.labelled import values
from mm.report.visible_scenes import Box, Planted, Scene, background, finished, paste_sheet

ENGLISH_FONTS = (
    ("roboto", 400), ("open-sans", 700), ("lato", 400), ("merriweather", 400),
    ("roboto-mono", 500), ("work-sans", 600), ("libre-baskerville", 400),
)  # fmt: skip
KOREAN_FONTS = (("nanum-gothic", 400), ("nanum-myeongjo", 400))


class Pen:
    """Write Latin and Hangul with two files of one typeface, at one size."""

    def __init__(self, latin: bytes, hangul: bytes | None, size: int) -> None:
        self._latin = ImageFont.truetype(io.BytesIO(latin), size)
        self._hangul = ImageFont.truetype(io.BytesIO(hangul), size) if hangul else self._latin

    def _font(self, character: str) -> ImageFont.FreeTypeFont:
        return self._hangul if "\uac00" <= character <= "\ud7a3" else self._latin

    def length(self, text: str) -> float:
        """Return the width of a text in pixels."""
        return sum(self._font(character).getlength(character) for character in text)

    def write(
        self, draw: ImageDraw.ImageDraw, x: float, y: float, text: str, ink: tuple[int, int, int]
    ) -> Box:
        """Write on the base line y from x on; return the box of the ink."""
        boxes = []
        for character in text:
            font = self._font(character)
            draw.text((x, y), character, ink, font=font, anchor="ls")
            if not character.isspace():
                boxes.append(draw.textbbox((x, y), character, font=font, anchor="ls"))
            x += font.getlength(character)
        lefts, tops, rights, bottoms = zip(*boxes, strict=True)
        return (int(min(lefts)), int(min(tops)), int(max(rights)) + 1, int(max(bottoms)) + 1)


@cache
def _font_files(name: str, weight: int, korean: bool, store: Path) -> tuple[bytes, bytes | None]:
    hangul = font_data(name, weight, store, "korean") if korean else None
    return font_data(name, weight, store), hangul


def _digits(random_: random.Random, pattern: str) -> str:
    """Fill in a pattern: # any digit, * one from 2 to 9."""
    return "".join(
        random_.choice("0123456789" if c == "#" else "23456789") if c in "#*" else c
        for c in pattern
    )


# language -> (kind, words before it, how it is made up)
PERSONAL: dict[str, tuple[tuple[str, str, Callable[[random.Random, str], str]], ...]] = {
    "en": (
        ("email", "Mail:", values.email),
        ("phone", "Call", values.phone),
        ("card", "Card", values.card),
        ("us_ssn", "SSN", values.us_ssn),
        ("person", "Name:", values.person),
        ("address", "Address:", values.address),
    ),
    "ko": (
        ("email", "이메일:", values.email),
        ("phone", "연락처:", values.phone),
        ("card", "카드번호", values.card),
        ("resident_number", "주민등록번호", values.resident_number),
        ("person", "이름:", values.person),
        ("address", "주소:", values.address),
    ),
}
HARMLESS = {
    "en": ("Opening hours 9:30 - 18:00", "Mind the step", "Total 24.90 EUR", "Room 204, floor 3"),
    "ko": ("영업시간 9:30 - 18:00", "계단을 조심하세요", "합계 24,900원", "3층 204호"),
}
GROUNDS = {  # ground and ink; None leaves the photograph
    "dark on light": ((242, 238, 228), (25, 25, 35)),
    "light on dark": ((30, 60, 110), (245, 245, 240)),
    "grey on white": ((255, 255, 255), (120, 120, 120)),
    "white on photo": (None, (255, 255, 255)),
}


def text_scenes(
    count: int, seed: int, store: Path, sizes: tuple[int, ...] = (12, 16, 24, 40)
) -> Iterator[Scene]:
    """Write one personal line and two harmless ones onto a sign or a photograph.

    Args:
        count: scenes per language, kind of data, size and ground.
        seed: the same seed draws the same scenes.
        store: folder that keeps fetched fonts.
        sizes: of the letters in pixels, from the top of a capital to the foot of a small g.
    """
    random_ = random.Random(seed)
    for language, fonts in (("en", ENGLISH_FONTS), ("ko", KOREAN_FONTS)):
        for kind, before, made_up in PERSONAL[language]:
            for ground_name, (ground, ink) in GROUNDS.items():
                for size in sizes:
                    for _ in range(count):
                        name, weight = random_.choice(fonts)
                        pen = Pen(*_font_files(name, weight, language == "ko", store), size)
                        image = background(random_, (1024, 680))
                        personal = made_up(random_, language)
                        while pen.length(f"{before} {personal}") > 1000 - 2 * size:
                            personal = made_up(random_, language)
                        lines = random_.sample(HARMLESS[language], 2)
                        lines.insert(random_.randint(0, 2), f"{before} {personal}")
                        sheet, box = _sheet(pen, lines, f"{before} ", personal, ground, ink, size)
                        angle = random_.choice([0.0, 0.0, 2.0, -2.0])
                        box = paste_sheet(random_, image, sheet, box, angle)
                        groups = (f"{language} {kind}", f"{language} {size} px", ground_name)
                        yield Scene(finished(random_, image), Planted(groups, box))


def _sheet(
    pen: Pen,
    lines: list[str],
    before: str,
    personal: str,
    ground: tuple[int, int, int] | None,
    ink: tuple[int, int, int],
    size: int,
) -> tuple[Image.Image, Box]:
    """Write lines on a sheet, see-through without a ground; return the personal one's box too."""
    margin, step = size, round(size * 1.6)
    width = round(max(pen.length(line) for line in lines)) + 2 * margin
    sheet = Image.new("RGBA", (width, step * len(lines) + margin))
    if ground:
        sheet.paste((*ground, 255), (0, 0, *sheet.size))
    else:  # letters over a photograph keep a transparent ground of their own colour
        sheet.paste((*ink, 0), (0, 0, *sheet.size))
    draw, box = ImageDraw.Draw(sheet), (0, 0, 0, 0)
    for place, line in enumerate(lines):
        y = margin // 2 + step * place + round(size * 1.1)
        if line == before + personal:
            pen.write(draw, margin, y, before, ink)
            box = pen.write(draw, margin + pen.length(before), y, personal, ink)
        else:
            pen.write(draw, margin, y, line, ink)
    return sheet, box


PLATES: dict[str, tuple[Callable[[random.Random], str], tuple[int, int, int], tuple[int, int, int]]]
PLATES = {
    "Korean": (
        lambda r: _digits(r, "*##") + r.choice("가나다라마거너더러머버서어저고노도로모보소오조")
        + " " + _digits(r, "####"),
        (245, 245, 245), (20, 20, 20),
    ),
    "Korean, two digits": (
        lambda r: _digits(r, "*#") + r.choice("가나다라마거너더러머버서어저고노도로모보소오조")
        + " " + _digits(r, "####"),
        (245, 245, 245), (20, 20, 20),
    ),
    "British": (
        lambda r: f"{_capitals(r, 2)}{_digits(r, '##')} {_capitals(r, 3)}",
        (245, 205, 30), (20, 20, 20),
    ),
    "German": (
        lambda r: f"{_capitals(r, 2)} {_capitals(r, 2)} {_digits(r, '*###')}",
        (248, 248, 248), (15, 15, 15),
    ),
    "American": (
        lambda r: f"{_digits(r, '*')}{_capitals(r, 3)}{_digits(r, '###')}",
        (235, 240, 250), (20, 40, 120),
    ),
}  # fmt: skip


def _capitals(random_: random.Random, count: int) -> str:
    return "".join(random_.choice("ABCDEFGHJKLMNPRSTUVWXYZ") for _ in range(count))


def plate_scenes(
    count: int, seed: int, store: Path, sizes: tuple[int, ...] = (16, 24, 40)
) -> Iterator[Scene]:
    """Paste drawn number plates, turned a little and in perspective, onto photographs.

    Args:
        count: scenes per kind of plate and size.
        seed: the same seed draws the same scenes.
        store: folder that keeps fetched fonts.
        sizes: of the letters in pixels.
    """
    random_ = random.Random(seed)
    for name, (made_up, ground, ink) in PLATES.items():
        korean = name.startswith("Korean")
        font = ("nanum-gothic", 700) if korean else ("oswald", 500)
        for size in sizes:
            pen = Pen(*_font_files(*font, korean, store), size)
            for _ in range(count):
                text = made_up(random_)
                width, height = round(pen.length(text) + size), round(size * 1.7)
                plate = Image.new("RGBA", (width, height), (*ground, 255))
                draw = ImageDraw.Draw(plate)
                draw.rectangle((1, 1, width - 2, height - 2), outline=(*ink, 255), width=2)
                box = pen.write(draw, size / 2, size * 1.25, text, ink)
                slant = random_.uniform(-0.12, 0.12)  # as seen from the side
                corners = (0, slant * height, 0, height, width, height, width, -slant * height)
                plate = plate.transform(
                    plate.size, Image.Transform.QUAD, corners, Image.Resampling.BICUBIC
                )
                image = background(random_, (900, 640))
                box = paste_sheet(random_, image, plate, box, random_.uniform(-5, 5))
                groups = (name, f"{size} px high")
                yield Scene(finished(random_, image), Planted(groups, box))
