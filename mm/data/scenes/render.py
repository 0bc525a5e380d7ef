"""Scenes to pixels, a batch at a time, on whatever device the artwork lies.

The same function draws held-out files on a CPU and training batches on a GPU. What is random in
here (style, noise, grounds) comes from the generator that is passed in and never changes the
answer to a question: it may tilt, recolour or blur a dog, but not move it or turn it into a cat.

    B pictures   S sprites of a batch   W words of a batch
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mm.data.scenes.artwork import Artwork
from mm.data.scenes.batch import SceneBatch, patch_classes
from mm.data.scenes.layout import GROUND_KINDS
from mm.data.scenes.style import StyleConfig, photograph, restyle, smooth_noise, tone

GRAIN = 128  # cells per side of a noisy ground's grain


class Renderer:
    """Draws scene batches. Holds the atlas on a device.

    Args:
        artwork: what is drawn.
        others: further pictures, uint8 [Q, 3, S, S], for rows that show another data set's.
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
            The pictures, uint8 [B, 3, size, size], and for every 16th of a side the three labels
            of what is seen there, int64 [B, 3, 16, 16]: see `patch_labels`. The ground is the last
            class and has no other label (-100).
        """
        canvas = self._grounds(scenes, size, generator)
        labels = torch.full((len(canvas), 3, 16, 16), -100, device=self.device)
        labels[:, 0] = patch_classes()[0] - 1
        if len(scenes.sprite):
            sprites = self.sprites[scenes.sprite].float() / 255
            textures = restyle(sprites, scenes.tint, style, generator)
            textures = _prefilter(textures, scenes.box, size)
            grid = _grid(scenes.box, scenes.tilt, scenes.flip, size)
            grid = self._warp(grid, style, generator)
            sampled = F.grid_sample(textures, grid, mode="bilinear", align_corners=False)
            seen = F.adaptive_avg_pool2d(sampled[:, 3:], 16) > 0.2
            bounds = scenes.layers.tolist()
            for start, end in zip(bounds, bounds[1:], strict=False):
                rows = scenes.owner[start:end]
                colour, alpha = sampled[start:end, :3], sampled[start:end, 3:]
                canvas[rows] = torch.lerp(canvas[rows], colour, alpha)
                label = scenes.label[start:end, :, None, None]
                labels[rows] = torch.where(seen[start:end], label, labels[rows])
        canvas, labels = self._words(canvas, labels, scenes, size)
        canvas = photograph(canvas, style, generator)
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
        coarse = smooth_noise(batch, 1, 24, size, generator, device)
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
            canvas[scenes.picture_rows] = tone(self._crops(scenes, size), 0.5, generator)
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
            smooth_noise(batch, 3, cells, size, generator, device) / weight
            for cells, weight in ((3, 1.0), (9, 1.5), (27, 2.5), (64, 4.0))
        )
        assert isinstance(field, Tensor)
        bands = torch.randint(1, 9, (batch, 1, 1, 1), generator=generator, device=device)
        banded = torch.sin(field * bands) * 0.5 + 0.5
        mix = torch.rand(batch, 3, 3, generator=generator, device=device)
        mixed = torch.einsum("bij,bjhw->bihw", mix / mix.sum(2, keepdim=True), banded)
        return mixed + 0.05 * torch.randn(mixed.shape, generator=generator, device=device)

    def _warp(self, grid: Tensor, style: StyleConfig, generator: torch.Generator) -> Tensor:
        """Bend and stretch each sprite a little; the middle stays where it is."""
        batch, size = grid.shape[0], grid.shape[1]
        if style.warp:
            on = torch.rand(batch, 1, 1, 1, generator=generator, device=self.device) < style.warp
            bend = smooth_noise(batch, 2, 4, size, generator, self.device).permute(0, 2, 3, 1)
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
        masks = _prefilter_words(scenes.word[:, None].float() / 255, scenes.word_box, size)
        ink = F.grid_sample(masks, grid, align_corners=False)
        # Ink that stands out: on a ground of nearly its own colour a word is drawn black or white.
        ground = canvas[owner].mean((2, 3))
        clash = (scenes.word_tint - ground).abs().sum(1, keepdim=True) < 0.55
        contrast = (ground.sum(1, keepdim=True) < 1.5).float().expand_as(ground)
        tint = torch.where(clash, contrast, scenes.word_tint)[:, :, None, None]
        seen = F.adaptive_avg_pool2d(ink, 16) > 0.1
        labels[owner] = torch.where(seen, scenes.word_label[:, :, None, None], labels[owner])
        canvas[owner] = canvas[owner] + ink * (tint - canvas[owner])
        return canvas, labels


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
    is_small = (box[:, 2:].amax(1) * size < 0.75 * side)[:, None, None, None]
    return torch.where(is_small, _averaged(sprites, 2), sprites)


def _prefilter_words(words: Tensor, box: Tensor, size: int) -> Tensor:
    """The same for words, which shrink more: up to eight letters share 320 texels."""
    shrink = (words.shape[-1] / (box[:, 2] * size))[:, None, None, None]
    words = torch.where(shrink > 3.2, _averaged(words, 4), words)
    return torch.where((shrink > 1.8) & (shrink <= 3.2), _averaged(words, 2), words)


def _averaged(texels: Tensor, factor: int) -> Tensor:
    """Means of `factor` x `factor` texels, interpolated to the size they had."""
    means = F.avg_pool2d(texels, factor)
    return F.interpolate(means, texels.shape[-2:], mode="bilinear", align_corners=False)
