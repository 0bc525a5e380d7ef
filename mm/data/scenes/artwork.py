"""Scrubbed artwork in memory: an atlas of sprites, letters for words, and pictures to decline.

Artwork comes through the same door as everything else: this module reads scrubbed shards only.
Tags say what a sample is: `kind` is `object` (colour + mask), `letter` (mask), or one of the
declined kinds (`photo`, `page`, `chart`, `texture`); `set` or `font` and `split` say whence it is.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mm.data.sample import Sample
from mm.data.scenes.concepts import SHAPES, concept_by_name
from mm.data.scenes.layout import SceneConfig, SceneSampler
from mm.data.scenes.words import ALPHABET
from mm.data.shards import ShardReader
from mm.privacy.door import open_image

SPRITE = 96  # side of an atlas entry in pixels
PICTURE = 320  # side of a declined picture in memory
WORD_SHAPE = (64, 320)  # height, width of a word's mask; letters are 64 px high
DECLINED_KINDS = ("photo", "page", "chart", "texture")


@dataclass
class Artwork:
    """What scenes are made of.

    Attributes:
        sprites: uint8 [N, 4, 96, 96], colour and alpha; the last rows are the plain shapes.
        catalogue: concept index -> set -> rows of `sprites`.
        letters: font -> letter -> (uint8 [64, 64] mask, advance in pixels).
        pictures: uint8 [P, 3, 320, 320], photographs, pages and the like, squashed to a square.
        mono_sets: sets drawn in one flat colour, which may be any.
        aspects: width over height of each picture before it was squashed.
        ledgers: hashes of the ledgers that were read, for the run's record.
    """

    sprites: Tensor
    catalogue: dict[int, dict[str, list[int]]]
    shape_rows: dict[str, int]
    tints: list[tuple[float, float, float]]
    letters: dict[str, dict[str, tuple[np.ndarray, int]]]
    pictures: Tensor
    aspects: list[float]
    mono_sets: set[str] = field(default_factory=set)
    ledgers: dict[str, str] = field(default_factory=dict)

    @functools.cached_property
    def mono_rows(self) -> set[int]:
        """Rows of `sprites` that are drawn in one flat colour."""
        sets = (rows for by_set in self.catalogue.values() for rows in by_set.items())
        return {row for name, rows in sets if name in self.mono_sets for row in rows}

    def sampler(self, config: SceneConfig) -> SceneSampler:
        """A sampler of scenes that this artwork can show."""
        return SceneSampler(
            self.catalogue,
            self.shape_rows,
            sorted(self.letters),
            self.tints,
            self.mono_sets,
            config,
        )

    def word_mask(self, text: str, font: str) -> np.ndarray:
        """Coverage of a word in a font, uint8 [64, 320], tight against the left edge."""
        mask = np.zeros(WORD_SHAPE, dtype=np.uint8)
        x = 0
        for letter in text:
            glyph, advance = self.letters[font][letter]
            width = min(glyph.shape[1], mask.shape[1] - x)
            window = mask[:, x : x + width]
            np.maximum(window, glyph[:, :width], out=window)
            x += advance
        columns = np.flatnonzero(mask.any(axis=0))
        return np.roll(mask, -int(columns[0]), axis=1) if columns.size else mask


def load_artwork(
    directories: Iterable[str | Path],
    *,
    splits: Sequence[str] = ("train",),
    letter_splits: Sequence[str] | None = None,
) -> Artwork:
    """Read artwork of the given splits from scrubbed shards.

    Args:
        directories: scrubbed shard directories.
        splits: which splits; letters may have their own.

    Raises:
        LedgerError: if a directory is not scrubbed, or was edited since.
    """
    objects: list[np.ndarray] = []
    catalogue: dict[int, dict[str, list[int]]] = {}
    letters: dict[str, dict[str, tuple[np.ndarray, int]]] = {}
    pictures: list[np.ndarray] = []
    aspects: list[float] = []
    mono_sets: set[str] = set()
    ledgers: dict[str, str] = {}
    for directory in directories:
        reader = ShardReader(directory)
        ledgers[Path(directory).name] = reader.ledger["self_hash"]
        for sample in reader:
            kind, split = sample.tags["kind"], sample.tags["split"]
            if kind == "object" and split in splits:
                concept = concept_by_name()[sample.tags["concept"]]
                rows = catalogue.setdefault(concept.index, {}).setdefault(sample.tags["set"], [])
                rows.append(len(objects))
                if sample.tags.get("mono") == "yes":
                    mono_sets.add(sample.tags["set"])
                objects.append(_sprite(sample))
            elif kind == "letter" and split in (letter_splits or splits):
                font = letters.setdefault(sample.tags["font"], {})
                font[sample.tags["letter"]] = (
                    _pixels(sample.images[0])[:, :, 0],
                    int(sample.tags["advance"]),
                )
            elif kind in DECLINED_KINDS and split in splits:
                image = open_image(sample.images[0])
                aspects.append(image.width / image.height)
                pictures.append(np.asarray(image.resize((PICTURE, PICTURE))))
    # Digits and fonts with gaps cannot spell every word.
    letters = {font: glyphs for font, glyphs in letters.items() if set(ALPHABET) <= set(glyphs)}
    shape_rows = {}
    for name in SHAPES:
        shape_rows[name] = len(objects)
        objects.append(_shape(name))
    sprites = torch.from_numpy(np.stack(objects))
    stacked = np.stack(pictures) if pictures else np.zeros((0, PICTURE, PICTURE, 3), np.uint8)
    return Artwork(
        sprites=sprites,
        catalogue=catalogue,
        shape_rows=shape_rows,
        tints=_tints(sprites),
        letters=letters,
        pictures=torch.from_numpy(stacked).permute(0, 3, 1, 2).contiguous(),
        aspects=aspects,
        mono_sets=mono_sets,
        ledgers=ledgers,
    )


def _pixels(data: bytes) -> np.ndarray:
    return np.asarray(open_image(data))


def _sprite(sample: Sample) -> np.ndarray:
    colour, mask = _pixels(sample.images[0]), _pixels(sample.images[1])[:, :, :1]
    return np.concatenate([colour, mask], axis=2).transpose(2, 0, 1)


def _shape(name: str) -> np.ndarray:
    """A white shape with an anti-aliased mask, filling its cell but for a margin of 2 pixels."""
    fine = 4  # supersampling
    axis = (np.arange(SPRITE * fine) + 0.5) / (SPRITE * fine) * 2 - 1
    y, x = np.meshgrid(axis / (1 - 4 / SPRITE), axis / (1 - 4 / SPRITE), indexing="ij")
    if name == "circle":
        inside = x**2 + y**2 <= 1
    elif name == "rectangle":
        inside = (abs(x) <= 1) & (abs(y) <= 1)
    elif name == "triangle":
        inside = (y <= 0.87) & (abs(x) <= (y + 0.87) / 1.74)
    elif name == "diamond":
        inside = abs(x) * 1.35 + abs(y) <= 1
    else:  # hexagon with two vertical sides
        inside = (abs(x) <= 0.866) & (abs(y) + abs(x) * 0.577 <= 1)
    mask = inside.reshape(SPRITE, fine, SPRITE, fine).mean(axis=(1, 3)) * 255
    return np.concatenate([np.full((3, SPRITE, SPRITE), 255.0), mask[None]]).astype(np.uint8)


def _tints(sprites: Tensor) -> list[tuple[float, float, float]]:
    colour, alpha = sprites[:, :3].float(), sprites[:, 3:].float() / 255
    mean = (colour * alpha).sum((2, 3)) / alpha.sum((2, 3)).clamp_min(1)
    return [(float(r), float(g), float(b)) for r, g, b in mean.tolist()]


def decline_crop(rng: random.Random, aspect: float, closest: float = 0.25) -> tuple[float, ...]:
    """A crop of a declined picture: centre x, centre y, width, height as shares of the picture.

    The crop is square in the picture's own pixels unless that would leave it.
    """
    share = rng.uniform(closest, 1.0)
    width, height = (share / aspect, share) if aspect > 1 else (share, share * aspect)
    if rng.random() < 0.3:  # the whole picture, squashed, as a fixed-size encoder sees it
        width = height = 1.0
    return (
        rng.uniform(width / 2, 1 - width / 2),
        rng.uniform(height / 2, 1 - height / 2),
        width,
        height,
    )
