"""Which things a scene shows and where: drawn from a seed, before any pixel exists."""

from __future__ import annotations

import functools
import math
import random
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from mm.data.scenes.concepts import COLOURS, SHAPES, concepts
from mm.data.scenes.words import draw_word

GROUND_KINDS = ("plain", "gradient", "noisy")
# Two centres closer than this along an axis are not called left/right (above/below) of each other.
RELATION_MARGIN = 0.15
# Centres differ at least this much along x, so that "from left to right" is always decided.
ORDER_MARGIN = 0.06


@dataclass(frozen=True)
class Thing:
    """Artwork of a concept, a plain shape, or a word. Lengths are fractions of the side."""

    kind: str  # "art", "shape" or "word"
    name: str  # the concept's English name, the shape's name, or the word itself
    x: float
    y: float
    size: float  # longest side
    sprite: int = -1  # row of the artwork's atlas; -1 for a word
    colour: str = ""  # of a shape or a word
    stretch: float = 1.0  # height over width, for rectangles
    font: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """Things with the same key are counted together in a caption."""
        return (self.kind, self.name, self.colour if self.kind == "shape" else "")


@dataclass(frozen=True)
class Scene:
    """Things on a ground, ordered from left to right."""

    things: tuple[Thing, ...]
    ground: str  # one of GROUND_KINDS
    ground_colour: str


@dataclass(frozen=True)
class SceneConfig:
    """How scenes are distributed. Weights are relative, shares are probabilities."""

    count_weights: Sequence[float] = (0.34, 0.3, 0.2, 0.16)  # one, two, three, four things
    shape_share: float = 0.14  # of things
    word_share: float = 0.22  # of scenes that show a word
    duplicate_share: float = 0.15  # of further things that repeat an earlier one
    pairs: str = "seen"  # "seen": no held-out pair; "unseen": at least one; "any"
    words: str = "train"  # which words: "train" or "test"
    mono_share: float = 0.3  # of artwork that comes from one-colour icon sets, where there are any


@functools.cache
def held_out_partners() -> tuple[tuple[int, ...], ...]:
    """For every concept the concepts it never meets in training: a tenth of all pairs, by hash."""
    n = len(concepts())
    partners: list[list[int]] = [[] for _ in range(n)]
    for a in range(n):
        for b in range(a + 1, n):
            if zlib.crc32(f"{a}-{b}".encode()) % 10 == 0:
                partners[a].append(b)
                partners[b].append(a)
    return tuple(tuple(row) for row in partners)


@functools.cache
def _held_out_sets() -> tuple[frozenset[int], ...]:
    return tuple(frozenset(row) for row in held_out_partners())


class SceneSampler:
    """Draws scenes.

    Args:
        catalogue: concept index -> artwork set -> rows of the atlas.
        shape_sprites: shape name -> row of the atlas.
        fonts: font names that words may use.
        tints: mean colour of every atlas row (0..255), to keep things off grounds like them.
        mono_sets: sets drawn in one flat colour.
    """

    def __init__(
        self,
        catalogue: Mapping[int, Mapping[str, Sequence[int]]],
        shape_sprites: Mapping[str, int],
        fonts: Sequence[str],
        tints: Sequence[tuple[float, float, float]],
        mono_sets: Collection[str],
        config: SceneConfig,
    ) -> None:
        # Rows by set, apart for sets in colour and in one flat colour.
        self.coloured = {
            c: [list(rows) for name, rows in sorted(sets.items()) if name not in mono_sets]
            for c, sets in catalogue.items()
        }
        self.mono = {
            c: [list(rows) for name, rows in sorted(sets.items()) if name in mono_sets]
            for c, sets in catalogue.items()
        }
        if not catalogue:
            raise ValueError("there is no artwork of the splits asked for")
        self.concept_ids = sorted(catalogue)
        self.shape_sprites = dict(shape_sprites)
        self.fonts = list(fonts)
        self.tints = tints
        self.config = config

    def draw(self, rng: random.Random, *, count: int | None = None) -> Scene:
        """A scene of `count` things (default: as the config's weights say)."""
        config = self.config
        if count is None:
            count = rng.choices((1, 2, 3, 4), weights=config.count_weights)[0]
        has_word = bool(self.fonts) and rng.random() < config.word_share
        names = self._names(rng, count - has_word)
        boxes = _place(rng, count, has_word)
        sizes = [box[2] for box in boxes]
        things: list[Thing] = []
        slots = list(range(count))
        if has_word:  # the widest slot was made for it
            slot = sizes.index(max(sizes))
            slots.remove(slot)
            x, y, size = boxes[slot]
            colour = rng.choice(tuple(COLOURS))
            word = draw_word(rng, config.words)
            things.append(
                Thing("word", word, x, y, size, colour=colour, font=rng.choice(self.fonts))
            )
        for slot, (kind, name, colour) in zip(slots, names, strict=True):
            x, y, size = boxes[slot]
            if kind == "shape":
                stretch = rng.choice((0.55, 0.75, 1.0, 1.33, 1.8)) if name == "rectangle" else 1.0
                sprite = self.shape_sprites[name]
                things.append(
                    Thing(kind, name, x, y, size * 0.85, sprite, colour=colour, stretch=stretch)
                )
            else:
                sprite = self._sprite(rng, int(name))
                things.append(Thing(kind, concepts()[int(name)].english, x, y, size, sprite))
        things.sort(key=lambda thing: thing.x)
        return Scene(tuple(things), rng.choice(GROUND_KINDS), self._ground_colour(rng, things))

    def _sprite(self, rng: random.Random, concept: int) -> int:
        """A drawing of the concept: the kind of set is drawn first, then the set, then the row."""
        coloured, mono = self.coloured[concept], self.mono[concept]
        wants_mono = bool(mono) and rng.random() < self.config.mono_share
        return rng.choice(rng.choice(mono if wants_mono or not coloured else coloured))

    def _names(self, rng: random.Random, count: int) -> list[tuple[str, str, str]]:
        """(kind, name or concept index, colour) of `count` things, honouring the pair rule."""
        config = self.config
        chosen: list[tuple[str, str, str]] = []
        arts: list[int] = []
        held_out = _held_out_sets()
        while len(chosen) < count:
            if chosen and rng.random() < config.duplicate_share:
                chosen.append(rng.choice(chosen))
                continue
            # In "unseen" scenes the first two things are a pair that training never showed.
            forced = config.pairs == "unseen" and len(arts) < 2 and count >= 2
            if not forced and rng.random() < config.shape_share:
                colour = rng.choice(tuple(COLOURS))
                chosen.append(("shape", rng.choice(tuple(SHAPES)), colour))
                continue
            if forced and arts:
                pool = [c for c in held_out_partners()[arts[0]] if c in self.coloured]
                concept = rng.choice(pool or self.concept_ids)
            else:
                concept = rng.choice(self.concept_ids)
            if config.pairs == "seen" and any(concept in held_out[other] for other in arts):
                continue
            if concept in arts:
                continue
            arts.append(concept)
            chosen.append(("art", str(concept), ""))
        rng.shuffle(chosen)
        return chosen

    def _ground_colour(self, rng: random.Random, things: Sequence[Thing]) -> str:
        """A ground on which everything can be seen."""
        taken = {thing.colour for thing in things if thing.colour}
        tints = [self.tints[thing.sprite] for thing in things if thing.kind == "art"]
        names = [name for name in COLOURS if name not in taken]
        for _ in range(8):
            name = rng.choice(names)
            r, g, b = COLOURS[name][1]
            if all(abs(r - t[0]) + abs(g - t[1]) + abs(b - t[2]) > 110 for t in tints):
                return name
        return rng.choice(names)


# Range of the longest side by the number of things.
_SIZES = {1: (0.38, 0.86), 2: (0.30, 0.50), 3: (0.26, 0.42), 4: (0.25, 0.37)}


def _place(rng: random.Random, count: int, has_word: bool) -> list[tuple[float, float, float]]:
    """`count` boxes (x, y, size) that hardly overlap and differ in x by ORDER_MARGIN or more."""
    low, high = _SIZES[count]
    for attempt in range(60):
        shrink = 1.0 - 0.005 * attempt
        boxes: list[tuple[float, float, float]] = []
        for i in range(count):
            wide = has_word and i == 0
            size = (rng.uniform(0.46, 0.62) if wide else rng.uniform(low, high)) * shrink
            half = size / 2
            vertical = half * 0.45 if wide else half
            x, y = rng.uniform(half, 1 - half), rng.uniform(vertical, 1 - vertical)
            for other_x, other_y, other_size in boxes:
                if abs(x - other_x) < ORDER_MARGIN:
                    break
                # Boxes may touch at their corners: artwork rarely fills them.
                if math.hypot(x - other_x, y - other_y) < 0.47 * (size + other_size):
                    break
            else:
                boxes.append((x, y, size))
                continue
            break
        if len(boxes) == count:
            return boxes
    # A row always fits.
    step = 1.0 / count
    return [((i + 0.5) * step, rng.uniform(0.35, 0.65), step * 0.95) for i in range(count)]
