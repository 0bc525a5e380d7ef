"""Capital letters and digits of openly licensed fonts, one mask each, for words in scenes."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from mm.data.artwork import fetch

CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
SIZE = 64  # side of a mask
LEFT, BASELINE = 8, 52  # where the pen starts
CAP_HEIGHT = 40
LICENCES = ("OFL-1.1", "Apache-2.0")
TABLE = Path(__file__).parent / "fonts.yaml"
SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class Letter:
    """One drawn character: its mask uint8 [64, 64] and the pixels to the next one's pen."""

    character: str
    mask: NDArray[np.uint8]
    advance: int


@cache
def load_fonts(path: Path = TABLE) -> dict[str, Any]:
    """Read the table of fonts."""
    import yaml

    data: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return data


def font_data(name: str, weight: int, cache: Path, subset: str = "latin") -> bytes:
    """Fetch a font's file.

    Raises:
        FetchError: it can't be fetched.
        ValueError: its package states a licence that is not an open font licence known here.
    """
    folder = fetch.npm_package(f"@fontsource/{name}", load_fonts()["version"], cache)
    licence = json.loads((folder / "package.json").read_text(encoding="utf-8"))["license"]
    if licence not in LICENCES:
        raise ValueError(f"font '{name}' says its licence is {licence}: correct fonts.yaml")
    return (folder / "files" / f"{name}-{subset}-{weight}-normal.woff").read_bytes()


def letters(font: bytes) -> Iterator[Letter]:
    """Draw every character at one size: capitals 40 px high, unless the widest then can't fit."""
    large = ImageFont.truetype(io.BytesIO(font), 200)
    _, top, _, bottom = large.getbbox("H", anchor="ls")
    widest = max(large.getbbox(character, anchor="ls")[2] for character in CHARACTERS)
    scale = min(CAP_HEIGHT / (bottom - top), (SIZE - LEFT - 1) / widest)
    sized = ImageFont.truetype(io.BytesIO(font), 200 * scale)
    for character in CHARACTERS:
        image = Image.new("L", (SIZE, SIZE))
        ImageDraw.Draw(image).text((LEFT, BASELINE), character, 255, font=sized, anchor="ls")
        yield Letter(character, np.asarray(image), round(sized.getlength(character)))
