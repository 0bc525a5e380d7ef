"""Scenes as tensors: what the renderer reads, made on the host by the data loader's workers.

B pictures   S sprites of a batch   W words of a batch
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from mm.data.scenes.artwork import WORD_SHAPE, Artwork, decline_crop
from mm.data.scenes.concepts import COLOURS, SHAPES, concept_by_name, concepts
from mm.data.scenes.layout import GROUND_KINDS, Scene, Thing
from mm.data.scenes.style import StyleConfig

SLOTS = 4  # layers of sprites: a picture shows at most four things


@dataclass
class SceneBatch:
    """Scenes as tensors. Positions and sizes are fractions of the side; colours are 0..1."""

    # Sprites lie in layers: a picture has at most one in each, and later layers cover earlier ones.
    layers: Tensor  # [L + 1] int64 on the host: layer k is sprites layers[k] .. layers[k + 1]
    sprite: Tensor  # [S] int64, row of the atlas
    owner: Tensor  # [S] int64, the picture that shows it
    label: Tensor  # [S, 3] int64, what the patches of the thing are to say: see `patch_labels`
    box: Tensor  # [S, 4] float32: x, y, width, height
    tilt: Tensor  # [S] float32, degrees
    flip: Tensor  # [S] float32, 1 or -1
    tint: Tensor  # [S, 4] float32: r, g, b, and 1 where the thing has that one colour
    word: Tensor  # [W, 64, 320] uint8
    word_owner: Tensor  # [W] int64, the picture that shows it; a picture shows one at most
    word_box: Tensor  # [W, 4] float32
    word_tint: Tensor  # [W, 3] float32
    word_label: Tensor  # [W, 3] int64
    ground: Tensor  # [B] int64, index of GROUND_KINDS
    ground_colour: Tensor  # [B, 2, 3] float32
    # Pictures that are no scenes. Their rows are listed here so that drawing needs no look at the
    # values on the device, which would make the host wait for it.
    picture_rows: Tensor  # [P] int64, which of the B show a crop of `Artwork.pictures`
    other_rows: Tensor  # [O] int64, which show a picture of another data set
    texture_rows: Tensor  # [X] int64, which show a random texture
    picture: Tensor  # [P] int64, row of `Artwork.pictures`
    other: Tensor  # [O] int64, row of the renderer's other pictures
    crop: Tensor  # [P, 4] float32

    def to(self, device: torch.device | str, non_blocking: bool = False) -> SceneBatch:
        """The same batch on another device."""
        moved = {
            f.name: getattr(self, f.name).to(device, non_blocking=non_blocking)
            for f in fields(self)
            if f.name != "layers"
        }
        moved["layers"] = self.layers
        return SceneBatch(**moved)

    def pin_memory(self) -> SceneBatch:
        """The same batch in pinned host memory, from where copies need not be waited for."""
        return SceneBatch(*(getattr(self, f.name).pin_memory() for f in fields(self)))


@dataclass(frozen=True)
class OtherPicture:
    """No scene: a `picture` of the artwork's, one of an `other` data set, or a `texture`."""

    kind: str
    row: int = 0


def patch_classes() -> tuple[int, int, int]:
    """How many values each of a patch's three labels has; see `patch_labels`."""
    return len(concepts()) + len(SHAPES) + 2, SLOTS, SLOTS


def thing_class(thing: Thing) -> int:
    """What the thing is: every concept, every shape, a word, and (no thing's) last the ground."""
    if thing.kind == "art":
        return concept_by_name()[thing.name].index
    if thing.kind == "word":
        return len(concepts()) + len(SHAPES)
    return len(concepts()) + list(SHAPES).index(thing.name)


def patch_labels(scene: Scene) -> list[tuple[int, int, int]]:
    """What the patches of each thing are to say in the auxiliary patch loss.

    What it is, how many others are like it, and how many stand to the left of it. The last two make
    the encoder compare things across the picture, which counting and ordering need.
    """
    alike = Counter(thing.key for thing in scene.things)
    return [
        (thing_class(thing), alike[thing.key] - 1, place)
        for place, thing in enumerate(scene.things)
    ]


def collate_scenes(
    scenes: Sequence[Scene | OtherPicture],
    artwork: Artwork,
    rng: random.Random,
    style: StyleConfig,
) -> SceneBatch:
    """Turn scenes, and pictures that are none, into tensors."""
    batch, mono_rows = len(scenes), artwork.mono_rows
    rows: dict[str, list[int]] = {"picture": [], "other": [], "texture": []}
    sources: dict[str, list[int]] = {"picture": [], "other": [], "texture": []}
    crops: list[tuple[float, ...]] = []
    # For each layer a list of (sprite, owner, label, box, tilt, flip, tint).
    Label = tuple[int, int, int]
    Sprite = tuple[int, int, Label, tuple[float, ...], float, float, tuple[float, ...]]
    layers: list[list[Sprite]] = [[] for _ in range(SLOTS)]
    ground = np.zeros(batch, np.int64)
    ground_colour = np.zeros((batch, 2, 3), np.float32)
    words: list[tuple[np.ndarray, int, Thing, tuple[float, ...], Label]] = []
    for b, scene in enumerate(scenes):
        if isinstance(scene, OtherPicture):
            rows[scene.kind].append(b)
            sources[scene.kind].append(scene.row)
            if scene.kind == "picture":
                crops.append(decline_crop(rng, artwork.aspects[scene.row]))
            continue
        ground[b] = GROUND_KINDS.index(scene.ground)
        base = _jitter(COLOURS[scene.ground_colour][1], rng)
        ground_colour[b] = base, _neighbour(base, rng)
        slot = 0
        for thing, label in zip(scene.things, patch_labels(scene), strict=True):
            if thing.kind == "word":
                mask = artwork.word_mask(thing.name, thing.font)
                colour = _jitter(COLOURS[thing.colour][1], rng)
                words.append((mask, b, thing, colour, label))
                continue
            width = thing.size / max(1.0, thing.stretch)
            height = thing.size * min(1.0, thing.stretch)
            tilt, flip = 0.0, 1.0
            tint: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
            if thing.kind == "shape":
                tint = (*_jitter(COLOURS[thing.colour][1], rng), 1.0)
                tilt = rng.uniform(-6, 6) if style.tilt_degrees else 0.0
            else:
                tilt = max(-40.0, min(40.0, rng.gauss(0, style.tilt_degrees)))
                flip = -1.0 if rng.random() < style.flip else 1.0
                share = style.mono_icons if thing.sprite in mono_rows else style.mono
                if rng.random() < share:
                    tint = (*_mono_colour(base, rng), 1.0)
            box = (thing.x, thing.y, width, height)
            layers[slot].append((thing.sprite, b, label, box, tilt, flip, tint))
            slot += 1
    count = len(words)
    word = np.zeros((count, *WORD_SHAPE), np.uint8)
    owner = np.zeros(count, np.int64)
    word_box = np.zeros((count, 4), np.float32)
    word_tint = np.zeros((count, 3), np.float32)
    word_label = np.zeros((count, 3), np.int64)
    for w, (mask, b, thing, ink, label) in enumerate(words):
        word[w], owner[w], word_tint[w], word_label[w] = mask, b, ink, label
        inked = np.flatnonzero(mask.any(axis=0))
        share = (inked[-1] + 1) / WORD_SHAPE[1]  # ink fills this share of the mask's width
        # The ink, not the mask, gets the slot's width; two-letter words would else grow too tall.
        width = min(thing.size / share, 0.40 * WORD_SHAPE[1] / WORD_SHAPE[0])
        centre = thing.x + (0.5 - share / 2) * width
        word_box[w] = centre, thing.y, width, width * WORD_SHAPE[0] / WORD_SHAPE[1]
    sprites = [sprite for layer in layers for sprite in layer]
    bounds = np.cumsum([0, *(len(layer) for layer in layers)])
    columns = list(zip(*sprites, strict=True)) or [()] * 7
    shapes = ((), (), (3,), (4,), (), (), (4,))
    kinds = (np.int64, np.int64, np.int64, np.float32, np.float32, np.float32, np.float32)
    arrays = (
        bounds.astype(np.int64),
        *(
            np.array(column, kind).reshape(len(sprites), *shape)
            for column, kind, shape in zip(columns, kinds, shapes, strict=True)
        ),
        word, owner, word_box, word_tint, word_label, ground, ground_colour,
        *(np.array(rows[kind], np.int64) for kind in ("picture", "other", "texture")),
        *(np.array(sources[kind], np.int64) for kind in ("picture", "other")),
        np.array(crops, np.float32).reshape(-1, 4),
    )  # fmt: skip
    return SceneBatch(*(torch.from_numpy(array) for array in arrays))


def _jitter(colour: tuple[int, int, int], rng: random.Random) -> tuple[float, float, float]:
    r, g, b = (min(1.0, max(0.0, (c + rng.uniform(-14, 14)) / 255)) for c in colour)
    return (r, g, b)


def _neighbour(
    colour: tuple[float, float, float], rng: random.Random
) -> tuple[float, float, float]:
    """The other end of a gradient: the same colour, lighter or darker."""
    goal, amount = (
        (1.0, rng.uniform(0.2, 0.4)) if sum(colour) < 1.6 else (0.0, rng.uniform(0.12, 0.3))
    )
    r, g, b = (c + (goal - c) * amount for c in colour)
    return (r, g, b)


def _mono_colour(
    ground: tuple[float, float, float], rng: random.Random
) -> tuple[float, float, float]:
    """A flat colour that stands out from the ground."""
    for _ in range(8):
        colour = (rng.random(), rng.random(), rng.random())
        if sum(abs(a - b) for a, b in zip(colour, ground, strict=True)) > 0.7:
            return colour
    return (0.0, 0.0, 0.0) if sum(ground) > 1.5 else (1.0, 1.0, 1.0)
