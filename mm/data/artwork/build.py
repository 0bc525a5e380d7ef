"""Compose the artwork folder: pictures, their index `artwork.jsonl`, the licence manifest.

Every line of the index is one item in the form the `jsonl` source reads: `images`, `turns`, `tags`.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFont

from mm.data.artwork import (
    charts,
    fetch,
    icons,
    letters,
    licences,
    pages,
    photographs,
    textures,
    vector,
)
from mm.data.artwork.sets import ArtworkSet, load_concepts, load_table, slug
from mm.privacy import door

BOOKS = ("noto", "fluent-emoji-flat", "fluent-emoji-high-contrast", "twemoji")
INDEX, DRAWINGS, PICTURES = "artwork.jsonl", "drawings.jsonl", "pictures.jsonl"
PAGE_FONTS = (
    "roboto open-sans lato merriweather pt-serif eb-garamond roboto-mono courier-prime".split()
)


@dataclass(frozen=True)
class Item:
    """One line of the index; `images` are paths relative to the artwork folder."""

    images: tuple[str, ...]
    answer: str
    tags: Mapping[str, str]

    def line(self) -> str:
        """Write the item as one JSON line."""
        question = "<image>" * len(self.images)
        record = {
            "images": list(self.images),
            "turns": [["user", question], ["assistant", self.answer]],
            "tags": dict(self.tags),
        }
        return json.dumps(record, ensure_ascii=False)


def save_png(pixels: NDArray[np.uint8], path: Path) -> None:
    """Write uint8 [H, W] or [H, W, 3] as an optimised PNG with nothing but pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, format="PNG", optimize=True)


def drawings(cache: Path, output: Path, only: Iterable[str] = ()) -> Iterator[Item]:
    """Draw every set of `sets.yaml` (or those named) into `output`, yielding their items."""
    table, wanted = load_table(), set(only)
    books = _books(cache)
    for artwork in table.sets.values():
        if wanted and artwork.name not in wanted:
            continue
        package = fetch.npm_package(artwork.package, artwork.version, cache)
        jobs = list(_jobs(artwork, package, books))
        with ThreadPoolExecutor() as pool:
            found = pool.map(functools.partial(_draw, artwork, output), jobs)
            yield from (item for item in found if item is not None)


def fonts(cache: Path, output: Path) -> Iterator[Item]:
    """Draw the letters of every font of `fonts.yaml`."""
    table = letters.load_fonts()
    for split in letters.SPLITS:
        for name, weight in table[split].items():
            for letter in letters.letters(letters.font_data(name, weight, cache)):
                path = f"letters/{name}/{letter.character}.mask.png"
                save_png(letter.mask, output / path)
                tags = {"kind": "letter", "letter": letter.character, "font": name}
                tags |= {"advance": str(letter.advance), "split": split}
                yield Item((path,), letter.character, tags)


def declined(cache: Path, output: Path, skip: Iterable[str] = ()) -> Iterator[Item]:
    """Save the photographs, pages, charts and textures that the model learns to decline."""
    left_out = set(skip)
    for source in photographs.load_sources():
        if source.name in left_out or source.manager in left_out:
            continue
        for found in photographs.pictures(source, cache):
            yield _picture(found, output)
    yield from (_picture(found, output) for found in _generated(cache))


def _generated(cache: Path) -> Iterator[photographs.Picture]:
    table = letters.load_fonts()
    latin = [letters.font_data(name, table["train"][name], cache) for name in PAGE_FONTS]
    korean = {
        split: [letters.font_data(name, fonts[name], cache, "korean") for name in fonts]
        for split, fonts in table["korean"].items()
    }
    batches = [
        ("page", "generator", "train", pages.pages(84, 1, latin)),
        ("page", "generator-korean", "train", pages.pages(42, 2, korean["train"], korean=True)),
        ("page", "generator-korean-test", "test", pages.pages(16, 3, korean["test"], True, 4)),
        ("chart", "generator", "train", charts.charts(90, 4)),
        ("texture", "generator", "train", textures.textures(36, 5)),
    ]
    for kind, source, split, images in batches:
        for number, image in enumerate(images):
            yield photographs.Picture(f"{kind}-{number:03d}", kind, source, split, image)


def _picture(found: photographs.Picture, output: Path) -> Item:
    """Save flat pictures losslessly and others as JPEG."""
    flat = found.kind in ("page", "chart")
    path = Path(found.kind) / found.source / f"{found.name}{'.png' if flat else '.jpg'}"
    if flat:
        # 32 levels a channel: nothing to see, and half the size.
        coarse = np.asarray(found.image) // 8 * 8
        save_png(coarse + (coarse >> 5), output / path)
    else:
        (output / path).parent.mkdir(parents=True, exist_ok=True)
        (output / path).write_bytes(door.encode_jpeg(found.image, photographs.QUALITY))
    tags = {"kind": found.kind, "source": found.source, "split": found.split}
    return Item((path.as_posix(),), found.kind, tags)


def prepare(
    output: Path, cache: Path, only: Iterable[str] = (), skip: Iterable[str] = ()
) -> dict[str, int]:
    """Build the whole artwork folder anew; return the number of items per kind, source and split.

    Args:
        output: the folder to fill; one from an earlier run is replaced.
        cache: where fetched packages are kept.
        only: names of the sets to draw and nothing else, for a quick look; everything if empty.
        skip: sources of pictures to leave out, by name or by package manager (`debian`).

    Raises:
        FetchError: a package could not be fetched.
        FileExistsError: `output` holds something else.
        ValueError: `only` or `skip` names nothing known, or a package's licence has changed.
    """
    sources = photographs.load_sources()
    known = {"only": set(load_table().sets)}
    known["skip"] = {source.name for source in sources} | {source.manager for source in sources}
    for option, names in (("only", only), ("skip", skip)):
        if unknown := sorted(set(names) - known[option]):
            choices = ", ".join(sorted(known[option]))
            raise ValueError(f"--{option} {unknown[0]}: no such name; known: {choices}")
    clean(output)
    cache = cache.resolve()
    items = [drawings(cache, output, only)]
    if not set(only):
        items += [fonts(cache, output), declined(cache, output, skip)]
    counts = write(itertools.chain(*items), output)
    (output / "LICENSES.md").write_text(licences.manifest(), encoding="utf-8")
    return counts


def write(items: Iterable[Item], output: Path) -> dict[str, int]:
    """Write the index atomically and count the items per kind, set and split.

    The same lines also come parted: drawings and letters, which should stay lossless, and
    pictures, which may be scrubbed into JPEG.
    """
    counts: dict[str, int] = {}
    names = (INDEX, DRAWINGS, PICTURES)
    with contextlib.ExitStack() as stack:
        parts = (output / f"{name}.part" for name in names)
        index, drawn, seen = (
            stack.enter_context(part.open("w", encoding="utf-8")) for part in parts
        )
        for item in items:
            kind = item.tags["kind"]
            for file in (index, drawn if kind in ("object", "letter") else seen):
                file.write(item.line() + "\n")
            source = item.tags.get("set") or item.tags.get("font") or item.tags.get("source", "")
            key = f"{kind}\t{source}\t{item.tags['split']}"
            counts[key] = counts.get(key, 0) + 1
    for name in names:
        (output / f"{name}.part").replace(output / name)
    return counts


def clean(output: Path) -> None:
    """Empty the output folder, but refuse a folder that this script did not make.

    Raises:
        FileExistsError: the folder holds other things than an earlier run's.
    """
    if output.exists() and any(output.iterdir()):
        if not any((output / name).exists() for name in (INDEX, INDEX + ".part")):
            raise FileExistsError(f"{output} is not empty and holds no {INDEX}: name a new folder")
        shutil.rmtree(output)
    output.mkdir(parents=True, exist_ok=True)


def _books(cache: Path) -> list[dict[str, str]]:
    sets = load_table().sets
    packages = (fetch.npm_package(sets[n].package, sets[n].version, cache) for n in BOOKS)
    return [icons.IconSet(package).characters for package in packages]


Job = tuple[icons.Icon, Callable[[], vector.Bytes]]  # an icon and what draws it


def _jobs(artwork: ArtworkSet, package: Path, books: list[dict[str, str]]) -> Iterator[Job]:
    if artwork.match == "font":
        font = ImageFont.truetype(package / artwork.names["file"], vector.RENDER)
        for icon in icons.by_font(artwork, package, load_concepts(), load_table()):
            character = chr(int(icon.glyph.partition("-")[0], 16))
            yield icon, functools.partial(vector.glyph_pixels, font, character)
        return
    icon_set = icons.IconSet(package)
    for icon in icons.select(artwork, icon_set, load_concepts(), load_table(), books):
        yield icon, functools.partial(vector.svg_pixels, icon_set.svg(icon.name))


def _draw(artwork: ArtworkSet, output: Path, job: Job) -> Item | None:
    icon, draw = job
    drawing = vector.cut_out(draw())
    if drawing is None:
        return None
    # The set's own icon name tells variants of one emoji apart.
    number = icon.name if icon.name != slug(icon.concept) else ""
    stem = "-".join(part for part in (slug(icon.concept), icon.glyph, number) if part)
    colour, mask = f"{artwork.name}/{stem}.colour.png", f"{artwork.name}/{stem}.mask.png"
    flat = np.full_like(drawing.colour, icons.FLAT)
    save_png(flat if artwork.mono else drawing.colour, output / colour)
    save_png(drawing.mask, output / mask)
    tags: dict[str, Any] = {"kind": "object", "concept": icon.concept, "set": artwork.name}
    tags |= {"glyph": icon.glyph, "icon": icon.name, "split": artwork.split}
    if artwork.mono:
        tags["mono"] = "yes"
    return Item((colour, mask), icon.concept, {key: tags[key] for key in tags if tags[key]})
