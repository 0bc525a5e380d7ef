"""Scenes to pixels, a batch at a time, on whatever device the artwork lies.

The same function draws held-out files on a CPU and training batches on a GPU. What is random in
here (style, noise, grounds) comes from the generator that is passed in and never changes the
answer to a question: it may tilt, recolour or blur a dog, but not move it or turn it into a cat.

    B pictures   S sprites of a batch   W words of a batch
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mm.data.scenes.artwork import WORD_SHAPE, Artwork, decline_crop
from mm.data.scenes.concepts import COLOURS, SHAPES, concept_by_name, concepts
from mm.data.scenes.layout import GROUND_KINDS, Scene, Thing

GRAIN = 128  # cells per side of a noisy ground's grain
SLOTS = 4  # layers of sprites: a picture shows at most four things


@dataclass
class SceneBatch:
    """Scenes as tensors. Positions and sizes are fractions of the side; colours are 0..1."""

    # Sprites lie in layers: a picture has at most one in each, and later layers cover earlier ones.
    layers: Tensor  # [L + 1] int64 on the host: layer k is sprites layers[k] .. layers[k + 1]
    sprite: Tensor  # [S] int64, row of the atlas
    owner: Tensor  # [S] int64, the picture that shows it
    label: Tensor  # [S] int64, class of the thing, for the patch loss
    box: Tensor  # [S, 4] float32: x, y, width, height
    tilt: Tensor  # [S] float32, degrees
    flip: Tensor  # [S] float32, 1 or -1
    tint: Tensor  # [S, 4] float32: r, g, b, and 1 where the thing has that one colour
    word: Tensor  # [W, 64, 320] uint8
    word_owner: Tensor  # [W] int64, the picture that shows it; a picture shows one at most
    word_box: Tensor  # [W, 4] float32
    word_tint: Tensor  # [W, 3] float32
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


@dataclass(frozen=True)
class OtherPicture:
    """No scene: a `picture` of the artwork's, one of an `other` data set, or a `texture`."""

    kind: str
    row: int = 0


@dataclass(frozen=True)
class StyleConfig:
    """How strongly the look of things varies. A number is a probability unless it says more."""

    tilt_degrees: float = 12.0  # standard deviation
    flip: float = 0.4
    mono: float = 0.06  # one flat colour, as an icon
    mono_icons: float = 0.8  # another flat colour, for what has one anyway
    grey: float = 0.06
    hue: float = 0.35
    tone: float = 0.5  # contrast, saturation and brightness
    outline: float = 0.2
    warp: float = 0.5
    stretch: float = 0.5
    occlude: float = 0.15
    shade: float = 0.3
    edges: float = 0.05  # dark lines on a light fill
    blur: float = 0.25
    noise: float = 0.35
    jpeg: float = 0.4


PLAIN_STYLE = StyleConfig(
    tilt_degrees=0.0, flip=0.0, mono=0.0, mono_icons=0.0, grey=0.0, hue=0.0, tone=0.0,
    outline=0.0, warp=0.0, stretch=0.0, occlude=0.0, shade=0.0, edges=0.0, blur=0.0, noise=0.0,
    jpeg=0.0,
)  # fmt: skip


def num_patch_classes() -> int:
    """Classes of the patch loss: every concept, every shape, a word, and last the ground."""
    return len(concepts()) + len(SHAPES) + 2


def thing_class(thing: Thing) -> int:
    """The class a patch of this thing has in the auxiliary patch loss."""
    if thing.kind == "art":
        return concept_by_name()[thing.name].index
    return len(concepts()) + list(SHAPES).index(thing.name)


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
    Sprite = tuple[int, int, int, tuple[float, ...], float, float, tuple[float, ...]]
    layers: list[list[Sprite]] = [[] for _ in range(SLOTS)]
    ground = np.zeros(batch, np.int64)
    ground_colour = np.zeros((batch, 2, 3), np.float32)
    words: list[tuple[np.ndarray, int, tuple[float, ...], tuple[float, ...]]] = []
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
        for thing in scene.things:
            if thing.kind == "word":
                mask = artwork.word_mask(thing.name, thing.font)
                colour = _jitter(COLOURS[thing.colour][1], rng)
                words.append((mask, b, (thing.x, thing.y, thing.size, 0.0), colour))
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
            layers[slot].append((thing.sprite, b, thing_class(thing), box, tilt, flip, tint))
            slot += 1
    count = len(words)
    word = np.zeros((count, *WORD_SHAPE), np.uint8)
    owner = np.zeros(count, np.int64)
    word_box = np.zeros((count, 4), np.float32)
    word_tint = np.zeros((count, 3), np.float32)
    for w, (mask, b, place, ink) in enumerate(words):
        word[w], owner[w], word_tint[w] = mask, b, ink
        inked = np.flatnonzero(mask.any(axis=0))
        share = (inked[-1] + 1) / WORD_SHAPE[1]  # ink fills this share of the mask's width
        # The ink, not the mask, gets the slot's width; two-letter words would else grow too tall.
        width = min(place[2] / share, 0.40 * WORD_SHAPE[1] / WORD_SHAPE[0])
        centre = place[0] + (0.5 - share / 2) * width
        word_box[w] = centre, place[1], width, width * WORD_SHAPE[0] / WORD_SHAPE[1]
    sprites = [sprite for layer in layers for sprite in layer]
    bounds = np.cumsum([0, *(len(layer) for layer in layers)])
    columns = list(zip(*sprites, strict=True)) or [()] * 7
    shapes = ((), (), (), (4,), (), (), (4,))
    kinds = (np.int64, np.int64, np.int64, np.float32, np.float32, np.float32, np.float32)
    arrays = (
        bounds.astype(np.int64),
        *(
            np.array(column, kind).reshape(len(sprites), *shape)
            for column, kind, shape in zip(columns, kinds, shapes, strict=True)
        ),
        word, owner, word_box, word_tint, ground, ground_colour,
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


class Renderer:
    """Draws scene batches. Holds the atlas on a device.

    Args:
        artwork: what is drawn.
        others: further pictures, uint8 [Q, 3, S, S], for `OTHER_GROUND`.
    """

    def __init__(
        self, artwork: Artwork, device: torch.device | str, others: Tensor | None = None
    ) -> None:
        self.device = torch.device(device)
        self.sprites = artwork.sprites.to(self.device)
        self.pictures = artwork.pictures.to(self.device)
        self.others = None if others is None else others.to(self.device)

    @torch.no_grad()
    def draw(
        self, scenes: SceneBatch, size: int, style: StyleConfig, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Draw every scene.

        Returns:
            The pictures, uint8 [B, 3, size, size], and for every 16th of a side the class of what
            is seen there, int64 [B, 16, 16] (the last class is the ground).
        """
        canvas = self._grounds(scenes, size, generator)
        labels = torch.full((len(canvas), 16, 16), num_patch_classes() - 1, device=self.device)
        if len(scenes.sprite):
            textures = _prefilter(self._style(scenes, style, generator), scenes.box, size)
            grid = _grid(scenes.box, scenes.tilt, scenes.flip, size)
            grid = self._warp(grid, style, generator)
            sampled = F.grid_sample(textures, grid, mode="bilinear", align_corners=False)
            seen = F.adaptive_avg_pool2d(sampled[:, 3], 16) > 0.2
            bounds = scenes.layers.tolist()
            for start, end in zip(bounds, bounds[1:], strict=False):
                rows = scenes.owner[start:end]
                colour, alpha = sampled[start:end, :3], sampled[start:end, 3:]
                canvas[rows] = torch.lerp(canvas[rows], colour, alpha)
                label = scenes.label[start:end, None, None]
                labels[rows] = torch.where(seen[start:end], label, labels[rows])
        canvas, labels = self._words(canvas, labels, scenes, size)
        canvas = self._photograph(canvas, style, generator)
        return (canvas.clamp(0, 1) * 255).round().to(torch.uint8), labels

    def _grounds(self, scenes: SceneBatch, size: int, generator: torch.Generator) -> Tensor:
        batch, device = scenes.ground.shape[0], self.device
        first, second = scenes.ground_colour[:, 0], scenes.ground_colour[:, 1]
        axis = torch.linspace(-1, 1, size, device=device)
        angle = torch.rand(batch, generator=generator, device=device) * 2 * math.pi
        # A ramp across the canvas in each picture's own direction, 0..1.
        ramp = (
            axis[None, None, :] * angle.cos()[:, None, None]
            + axis[None, :, None] * angle.sin()[:, None, None]
        )
        ramp = (ramp / 1.42 + 1) / 2
        ramp = ramp * (scenes.ground == GROUND_KINDS.index("gradient"))[:, None, None]
        canvas = first[:, :, None, None] + ramp[:, None] * (second - first)[:, :, None, None]
        coarse = _smooth_noise(batch, 1, 24, size, generator, device)
        # The grain is a share of the side, so that a picture looks the same at every size.
        fine = torch.randn(batch, 1, GRAIN, GRAIN, generator=generator, device=device)
        fine = F.interpolate(fine, size=(size, size), mode="nearest")
        speckle = 0.05 * coarse + 0.06 * fine
        canvas = (
            canvas + speckle * (scenes.ground == GROUND_KINDS.index("noisy"))[:, None, None, None]
        )
        if len(scenes.texture_rows):
            canvas[scenes.texture_rows] = self._textures(len(scenes.texture_rows), size, generator)
        if len(scenes.other_rows):
            assert self.others is not None, "a batch of other pictures needs Renderer(others=...)"
            others = self.others[scenes.other].float() / 255
            canvas[scenes.other_rows] = F.interpolate(others, (size, size), mode="bilinear")
        if len(scenes.picture_rows):
            # Light, contrast and colour vary as if the picture had been taken elsewhere.
            canvas[scenes.picture_rows] = _tone(self._crops(scenes, size), 0.5, generator)
        return canvas.clamp(0, 1)

    def _crops(self, scenes: SceneBatch, size: int) -> Tensor:
        crop = scenes.crop
        theta = torch.zeros(crop.shape[0], 2, 3, device=self.device)
        theta[:, 0, 0], theta[:, 1, 1] = crop[:, 2], crop[:, 3]
        theta[:, 0, 2], theta[:, 1, 2] = crop[:, 0] * 2 - 1, crop[:, 1] * 2 - 1
        grid = F.affine_grid(theta, [crop.shape[0], 3, size, size], align_corners=False)
        texels = self.pictures[scenes.picture].float() / 255
        return F.grid_sample(texels, grid, padding_mode="border", align_corners=False)

    def _textures(self, batch: int, size: int, generator: torch.Generator) -> Tensor:
        """Random textures: smooth noise at several scales, banded, in random colours."""
        device = self.device
        field = sum(
            _smooth_noise(batch, 3, cells, size, generator, device) / weight
            for cells, weight in ((3, 1.0), (9, 1.5), (27, 2.5), (64, 4.0))
        )
        assert isinstance(field, Tensor)
        bands = torch.randint(1, 9, (batch, 1, 1, 1), generator=generator, device=device)
        banded = torch.sin(field * bands) * 0.5 + 0.5
        mix = torch.rand(batch, 3, 3, generator=generator, device=device)
        mixed = torch.einsum("bij,bjhw->bihw", mix / mix.sum(2, keepdim=True), banded)
        return mixed + 0.05 * torch.randn(mixed.shape, generator=generator, device=device)

    def _style(self, scenes: SceneBatch, style: StyleConfig, generator: torch.Generator) -> Tensor:
        """Every sprite, recoloured, outlined, shaded and cut: float [S, 4, 96, 96]."""
        layer = self.sprites[scenes.sprite].float() / 255
        colour, alpha = layer[:, :3], layer[:, 3:]
        count, device = colour.shape[0], self.device
        tint = scenes.tint
        free = (tint[:, 3] == 0).float()  # things whose colour says nothing may change it

        def happens(probability: float) -> Tensor:
            drawn = torch.rand(count, generator=generator, device=device) < probability
            return (drawn * free).to(torch.float32)[:, None, None, None]

        def uniform(low: float, high: float) -> Tensor:
            value = torch.rand(count, 1, 1, 1, generator=generator, device=device)
            return low + (high - low) * value

        if style.hue:
            colour = torch.lerp(colour, _rotate_hue(colour, 0.35, generator), happens(style.hue))
        if style.tone:
            colour = torch.lerp(colour, _tone(colour, 0.4, generator), happens(style.tone))
        if style.grey:
            grey = colour.mean(1, keepdim=True).expand_as(colour)
            colour = torch.lerp(colour, grey, happens(style.grey))
        if style.edges:
            smooth = F.avg_pool2d(colour.mean(1, keepdim=True), 3, 1, 1)
            contrast = (F.max_pool2d(smooth, 5, 1, 2) + F.max_pool2d(-smooth, 5, 1, 2)) * 2.5
            rim = alpha + F.max_pool2d(-alpha, 5, 1, 2)
            drawing = (uniform(0.85, 1.0) - torch.maximum(contrast, rim.clamp(0, 1))).clamp(0, 1)
            colour = torch.lerp(colour, drawing.expand_as(colour), happens(style.edges))
        colour = torch.lerp(
            colour, tint[:, :3, None, None].expand_as(colour), tint[:, 3, None, None, None]
        )
        if style.shade:
            axis = torch.linspace(-1, 1, colour.shape[-1], device=device)
            ramp = (
                uniform(-1, 1) * axis[None, None, None, :]
                + uniform(-1, 1) * axis[None, None, :, None]
            )
            colour = (colour * (1 + 0.3 * ramp * happens(style.shade))).clamp(0, 1)
        if style.outline:
            wide = F.max_pool2d(alpha, 5, 1, 2)
            line = torch.rand(count, 1, 1, 1, generator=generator, device=device).round()
            on = happens(style.outline)
            colour = torch.where((on > 0) & (wide > alpha), line + (colour - line) * alpha, colour)
            alpha = torch.lerp(alpha, wide, on)
        if style.blur:
            soft = F.avg_pool2d(torch.cat([colour, alpha], 1), 3, 1, 1, count_include_pad=False)
            on = happens(style.blur)
            colour, alpha = torch.lerp(colour, soft[:, :3], on), torch.lerp(alpha, soft[:, 3:], on)
        if style.occlude:
            axis = torch.linspace(0, 1, colour.shape[-1], device=device)
            cut_x = (axis[None, None, None, :] - uniform(0, 1)).abs() < uniform(0.08, 0.22)
            cut_y = (axis[None, None, :, None] - uniform(0, 1)).abs() < uniform(0.08, 0.22)
            alpha = alpha * (1 - (cut_x & cut_y).float() * happens(style.occlude))
        return torch.cat([colour, alpha], 1)

    def _warp(self, grid: Tensor, style: StyleConfig, generator: torch.Generator) -> Tensor:
        """Bend and stretch each sprite a little; the middle stays where it is."""
        batch, size = grid.shape[0], grid.shape[1]
        if style.warp:
            on = torch.rand(batch, 1, 1, 1, generator=generator, device=self.device) < style.warp
            bend = _smooth_noise(batch, 2, 4, size, generator, self.device).permute(0, 2, 3, 1)
            grid = grid + 0.07 * bend * on
        if style.stretch:
            on = torch.rand(batch, 1, 1, 1, generator=generator, device=self.device) < style.stretch
            amount = torch.rand(batch, 1, 1, 2, generator=generator, device=self.device) * 0.35
            shear = (
                torch.rand(batch, 1, 1, 1, generator=generator, device=self.device) - 0.5
            ) * 0.3
            grid = grid * (1 + amount * on)
            sheared = grid[..., :1] + shear * on * grid[..., 1:]
            grid = torch.cat([sheared, grid[..., 1:]], -1)
        return grid

    def _words(
        self, canvas: Tensor, labels: Tensor, scenes: SceneBatch, size: int
    ) -> tuple[Tensor, Tensor]:
        owner = scenes.word_owner
        if not len(owner):
            return canvas, labels
        still = torch.zeros(len(owner), device=self.device)
        grid = _grid(scenes.word_box, still, still + 1, size)
        ink = F.grid_sample(scenes.word[:, None].float() / 255, grid, align_corners=False)
        # Ink that stands out: on a ground of nearly its own colour a word is drawn black or white.
        ground = canvas[owner].mean((2, 3))
        clash = (scenes.word_tint - ground).abs().sum(1, keepdim=True) < 0.55
        contrast = (ground.sum(1, keepdim=True) < 1.5).float().expand_as(ground)
        tint = torch.where(clash, contrast, scenes.word_tint)[:, :, None, None]
        seen = F.adaptive_avg_pool2d(ink, 16)[:, 0] > 0.1
        labels[owner] = torch.where(seen, num_patch_classes() - 2, labels[owner])
        canvas[owner] = canvas[owner] + ink * (tint - canvas[owner])
        return canvas, labels

    def _photograph(self, canvas: Tensor, style: StyleConfig, generator: torch.Generator) -> Tensor:
        """What a file does to a picture: slight exposure, noise, and JPEG blocks."""
        batch, device = canvas.shape[0], self.device

        def happens(probability: float) -> Tensor:
            drawn = torch.rand(batch, 1, 1, 1, generator=generator, device=device)
            return (drawn < probability).float()

        if style.noise:
            level = torch.rand(batch, 1, 1, 1, generator=generator, device=device) * 0.05
            grain = torch.randn(canvas.shape, generator=generator, device=device)
            canvas = canvas + grain * level * happens(style.noise)
        if style.jpeg:
            canvas = torch.lerp(canvas, _jpeg(canvas.clamp(0, 1), generator), happens(style.jpeg))
        return canvas


def _grid(box: Tensor, tilt: Tensor, flip: Tensor, size: int) -> Tensor:
    """Sampling grid that puts a sprite into its box, tilted: [B, size, size, 2]."""
    radians = tilt * (math.pi / 180)
    cos, sin = radians.cos(), radians.sin()
    width, height = box[:, 2].clamp_min(1e-3), box[:, 3].clamp_min(1e-3)
    x, y = box[:, 0] * 2 - 1, box[:, 1] * 2 - 1
    theta = torch.zeros(box.shape[0], 2, 3, device=box.device)
    theta[:, 0, 0], theta[:, 0, 1] = flip * cos / width, flip * sin / width
    theta[:, 1, 0], theta[:, 1, 1] = -sin / height, cos / height
    theta[:, 0, 2] = -flip * (cos * x + sin * y) / width
    theta[:, 1, 2] = (sin * x - cos * y) / height
    return F.affine_grid(theta, [box.shape[0], 1, size, size], align_corners=False)


def _prefilter(sprites: Tensor, box: Tensor, size: int) -> Tensor:
    """Blur sprites that will be drawn much smaller than they are, so that nothing is skipped.

    Bilinear sampling reads two texels per axis; one that is drawn at under 3/4 of its size is
    first averaged over 2 x 2, which is right down to 3/8.
    """
    side = sprites.shape[-1]
    small = F.interpolate(
        F.avg_pool2d(sprites, 2), size=(side, side), mode="bilinear", align_corners=False
    )
    is_small = (box[:, 2:].amax(1) * size < 0.75 * side)[:, None, None, None]
    return torch.where(is_small, small, sprites)


def _smooth_noise(
    batch: int,
    channels: int,
    cells: int,
    size: int,
    generator: torch.Generator,
    device: torch.device,
) -> Tensor:
    """Gaussian noise on a coarse lattice, interpolated: [batch, channels, size, size]."""
    coarse = torch.randn(batch, channels, cells, cells, generator=generator, device=device)
    return F.interpolate(coarse, size=(size, size), mode="bilinear", align_corners=False)


def _rotate_hue(colour: Tensor, turns: float, generator: torch.Generator) -> Tensor:
    """Rotate colours about the grey axis by up to `turns` of a circle, mostly by little."""
    count = colour.shape[0]
    amount = torch.randn(count, generator=generator, device=colour.device).clamp(-2, 2) / 2
    angle = amount.abs().pow(1.5) * amount.sign() * turns * 2 * math.pi
    cos, sin = angle.cos(), angle.sin()
    third, root = (1 - cos) / 3, sin / math.sqrt(3)
    same, left, right = cos + third, third - root, third + root
    matrix = torch.stack([same, left, right, right, same, left, left, right, same], 1)
    return torch.einsum("nij,njhw->nihw", matrix.unflatten(1, (3, 3)), colour).clamp(0, 1)


def _tone(colour: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Contrast, saturation and brightness, each by up to `strength`."""

    def factor() -> Tensor:
        drawn = torch.rand(colour.shape[0], 1, 1, 1, generator=generator, device=colour.device)
        return 1 + (drawn * 2 - 1) * strength

    grey = colour.mean(1, keepdim=True)
    colour = grey + (colour - grey) * factor()
    colour = 0.5 + (colour - 0.5) * factor()
    return (colour * factor()).clamp(0, 1)


def _dct_matrix(device: torch.device) -> Tensor:
    """The orthonormal 8-point DCT-II."""
    n = torch.arange(8, device=device, dtype=torch.float32)
    matrix = torch.cos((2 * n[None, :] + 1) * n[:, None] * math.pi / 16) * 0.5
    matrix[0] /= math.sqrt(2)
    return matrix


def _jpeg(canvas: Tensor, generator: torch.Generator) -> Tensor:
    """Blocks and ringing of a JPEG file: DCT coefficients of 8x8 blocks rounded to random steps."""
    batch, _, size, _ = canvas.shape
    dct = _dct_matrix(canvas.device)
    blocks = canvas.unflatten(3, (size // 8, 8)).unflatten(2, (size // 8, 8)).transpose(3, 4)
    coefficients = dct @ blocks @ dct.T  # [B, 3, h, w, 8, 8]
    index = torch.arange(8, device=canvas.device, dtype=torch.float32)
    # Steps grow with frequency, as in the tables of ITU-T T.81 annex K; 16/255 is quality 50.
    steps = (1 + 0.6 * (index[:, None] + index[None, :])) * (16 / 255)
    quality = torch.rand(batch, 1, 1, 1, 1, 1, generator=generator, device=canvas.device)
    steps = steps * (0.05 + 0.9 * quality**2)
    rounded = (coefficients / steps).round() * steps
    blocks = dct.T @ rounded @ dct
    restored: Tensor = blocks.transpose(3, 4).flatten(4, 5).flatten(2, 3).clamp(0, 1)
    return restored
