"""Made-up textures for the model to decline, from a seed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def textures(count: int, seed: int, side: int = 256) -> Iterator[Image.Image]:
    """Draw `count` square textures: wood, marble, cloth, tiles, stripes and spots."""
    random_ = np.random.default_rng(seed)
    for number in range(count):
        light, dark = np.sort(random_.uniform(30, 240, (2, 3)), axis=0)[::-1]
        mix = _TEXTURES[number % len(_TEXTURES)](random_, side)[..., None]
        pixels = dark + (light - dark) * np.clip(mix, 0, 1) + random_.normal(0, 3, (side, side, 1))
        yield Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _noise(random_: np.random.Generator, side: int, cells: tuple[int, int]) -> NDArray[np.float64]:
    """Smooth noise in 0..1 with about so many bumps down and across."""
    coarse = Image.fromarray(random_.uniform(size=cells).astype(np.float32))
    return np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), dtype=np.float64)


def _wood(random_: np.random.Generator, side: int) -> NDArray[np.float64]:
    rings = _noise(random_, side, (4, 12)) * random_.uniform(3, 9)
    grain = 0.5 + 0.5 * np.sin(rings * 6) * _noise(random_, side, (3, 120))
    return np.asarray(grain, dtype=np.float64)


def _marble(random_: np.random.Generator, side: int) -> NDArray[np.float64]:
    total = sum(_noise(random_, side, (2**k, 2**k)) / 2**k for k in range(2, 7))
    waves = np.sin(np.asarray(total, dtype=np.float64) * random_.uniform(8, 20))
    return np.asarray(np.abs(waves), dtype=np.float64)


def _cloth(random_: np.random.Generator, side: int) -> NDArray[np.float64]:
    down, across = np.mgrid[:side, :side] / random_.uniform(2, 6)
    threads = 0.5 + 0.25 * (np.sin(down) + np.sin(across)) * _noise(random_, side, (40, 40))
    return np.asarray(threads, dtype=np.float64)


def _tiles(random_: np.random.Generator, side: int) -> NDArray[np.float64]:
    height, width = random_.integers(18, 60, 2)
    down, across = np.mgrid[:side, :side]
    shifted = across + (down // height % 2) * (width // 2)
    joint = (down % height < 3) | (shifted % width < 3)
    shade = random_.uniform(0.5, 1.0, (side // height + 2, side // width + 3))
    return np.where(joint, 0.05, shade[down // height, shifted // width])


def _stripes(random_: np.random.Generator, side: int) -> NDArray[np.float64]:
    down, across = np.mgrid[:side, :side]
    angle = random_.uniform(0, np.pi)
    wave = (np.cos(angle) * across + np.sin(angle) * down) / random_.uniform(3, 14)
    return np.asarray(np.sin(wave + 3 * _noise(random_, side, (4, 4))) > 0, dtype=np.float64)


def _spots(random_: np.random.Generator, side: int) -> NDArray[np.float64]:
    cells = int(random_.integers(14, 40))
    bumps = _noise(random_, side, (cells, cells))
    return np.asarray(bumps > random_.uniform(0.45, 0.7), dtype=np.float64)


_TEXTURES = [_wood, _marble, _cloth, _tiles, _stripes, _spots]
