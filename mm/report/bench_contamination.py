"""Measure how surely copies of evaluation pictures are found among training pictures, and how fast.

Composed scenes are hard for this: large plain areas, and thousands of others that show the same
drawings. Of the evaluation scenes some are hidden among the training scenes, each changed in one of
twelve ways; every other pair that is reported is false.
"""

from __future__ import annotations

import io
import os
import random
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageFilter

from mm.data.scenes.artwork import Artwork, load_artwork
from mm.data.scenes.batch import collate_scenes
from mm.data.scenes.layout import SceneConfig
from mm.data.scenes.render import Renderer
from mm.data.scenes.style import PLAIN_STYLE
from mm.evaluate.contamination.pictures import PictureIndex, thumbnail
from mm.evaluate.intervals import Proportion
from mm.privacy.door import open_image

SIZE, BATCH = 224, 64
Change = Callable[[Image.Image, random.Random], Image.Image]


def _cut(image: Image.Image, rng: random.Random) -> Image.Image:
    """Up to a tenth of the width and of the height, from any sides."""
    width, height = image.size
    across, down = rng.uniform(0, width / 10), rng.uniform(0, height / 10)
    left, top = rng.uniform(0, across), rng.uniform(0, down)
    right, bottom = width - across + left, height - down + top
    return image.crop((round(left), round(top), round(right), round(bottom)))


def _corner(image: Image.Image, rng: random.Random) -> Image.Image:
    width, height = image.size
    left, top = rng.choice((0, width // 10)), rng.choice((0, height // 10))
    return image.crop((left, top, left + width - width // 10, top + height - height // 10))


def _encoded(image: Image.Image, kind: str, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, kind, quality=quality)
    return open_image(file.getvalue())


def _lit(image: Image.Image, rng: random.Random) -> Image.Image:
    lit = ImageEnhance.Brightness(image).enhance(rng.uniform(0.75, 1.25))
    return ImageEnhance.Contrast(lit).enhance(rng.uniform(0.8, 1.2))


def _noisy(image: Image.Image, rng: random.Random) -> Image.Image:
    blurred = np.asarray(image.filter(ImageFilter.GaussianBlur(1.2)), np.float32)
    noise = np.random.default_rng(rng.getrandbits(32)).normal(0, 10, blurred.shape)
    return Image.fromarray(np.clip(blurred + noise, 0, 255).astype(np.uint8))


def _mirrored(image: Image.Image) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


CHANGES: dict[str, Change] = {
    "half the size": lambda image, _: image.resize((image.width // 2, image.height // 2)),
    "another shape": lambda image, _: image.resize((384, 288)),
    "JPEG, quality 30": lambda image, _: _encoded(image, "JPEG", 30),
    "WebP, quality 40": lambda image, _: _encoded(image, "WEBP", 40),
    "cropped by up to 10 %": _cut,
    "cropped by 10 % at a corner": _corner,
    "mirrored": lambda image, _: _mirrored(image),
    "mirrored, cropped, JPEG": lambda image, rng: _encoded(_cut(_mirrored(image), rng), "JPEG", 50),
    "cropped, half the size": lambda image, rng: _cut(image, rng).resize((112, 112)),
    "light and contrast": _lit,
    "grey": lambda image, _: image.convert("L").convert("RGB"),
    "blurred and noisy": _noisy,
}


def scenes(artwork: Artwork, count: int, seed: int) -> Iterator[Image.Image]:
    """Draw scenes."""
    sampler, renderer = artwork.sampler(SceneConfig(pairs="any")), Renderer(artwork, "cpu")
    for start in range(0, count, BATCH):
        rng = random.Random(f"{seed}/contamination/{start}")
        drawn = [sampler.draw(rng) for _ in range(min(BATCH, count - start))]
        batch = collate_scenes(drawn, artwork, rng, PLAIN_STYLE)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + start)
        for picture in renderer.draw(batch, SIZE, PLAIN_STYLE, generator)[0]:
            yield Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())


def as_jpeg(image: Image.Image, quality: int = 92) -> bytes:
    """Encode a picture."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def run(
    words: list[str], conf: Path, *, pictures: int = 20_000, copies: int = 100, seed: int = 1
) -> dict[str, Any]:
    """Hide copies among pictures, look for them, and count.

    Args:
        words: a folder of scrubbed artwork (default: data/artwork).
        pictures: to look through, besides the copies.
        copies: of each change; as many evaluation pictures again have no copy.
    """
    artwork = load_artwork(words or ["data/artwork"], splits=("train", "dev", "test"))
    changes = list(CHANGES)
    wanted = list(scenes(artwork, 2 * copies * len(changes), seed + 1))
    rng = random.Random(seed)
    copied = []  # (encoded, number of the original)
    for number in range(copies * len(changes)):
        change = CHANGES[changes[number % len(changes)]]
        copied.append((as_jpeg(change(wanted[number], rng)), number))
    index = PictureIndex(np.stack([thumbnail(as_jpeg(image)) for image in wanted]))
    hits: dict[int, float] = {}  # likeness of each copy that was found
    false: list[float] = []
    opened = matched = 0.0
    stream = _mixed(scenes(artwork, pictures, seed), copied, pictures)
    while batch := list(islice(stream, 256)):
        began = time.perf_counter()
        thumbnails = np.stack([thumbnail(data) for data, _ in batch])
        between = time.perf_counter()
        for match in index.search(thumbnails):
            if batch[match.looked_through][1] == match.searched_for:
                hits[match.searched_for] = match.likeness
            else:
                false.append(match.likeness)
        opened += between - began
        matched += time.perf_counter() - between
    looked_through = pictures + len(copied)
    by_change = {
        name: Proportion(sum(n % len(changes) == i for n in hits), copies)
        for i, name in enumerate(changes)
    }
    return {
        "pictures": looked_through,
        "searched_for": len(wanted),
        "recall": {name: _facts(share) for name, share in by_change.items()},
        "recall_all": _facts(Proportion(len(hits), len(copied))),
        "precision": _facts(Proportion(len(hits), len(hits) + len(false))),
        "opened_per_s": looked_through / opened,
        "matched_per_s": looked_through / matched,
        "per_s": looked_through / (opened + matched),
        "likeness": {"copies": sorted(hits.values()), "others": sorted(false)},
        "index_bytes": index.num_bytes,
        "cpus": os.cpu_count(),
    }


def table(result: dict[str, Any]) -> str:
    """The result as text."""
    lines = [
        f"{result['pictures']:,} pictures looked through for {result['searched_for']:,},"
        f" half of which have a copy; 95 % intervals"
    ]
    rows = {**result["recall"], "all": result["recall_all"], "precision": result["precision"]}
    for name, share in rows.items():
        low, high = share["interval"]
        lines.append(f"  {name:<28} {share['value']:.4f} [{low:.4f}, {high:.4f}] n={share['n']}")
    lines.append(
        f"{result['per_s']:.0f} pictures/s: opened {result['opened_per_s']:.0f}/s, matched"
        f" {result['matched_per_s']:.0f}/s; index {result['index_bytes'] / 2**20:.0f} MiB"
    )
    return "\n".join(lines)


def _mixed(
    images: Iterator[Image.Image], copied: list[tuple[bytes, int]], count: int
) -> Iterator[tuple[bytes, int]]:
    """Pictures with the copies spread evenly among them; -1 stands for no copy."""
    every = max(1, count // max(len(copied), 1))
    waiting = iter(copied)
    for number, image in enumerate(images):
        if number % every == 0:
            yield from islice(waiting, 1)
        yield as_jpeg(image), -1
    yield from waiting


def _facts(share: Proportion) -> dict[str, Any]:
    return {"value": share.value, "interval": share.interval, "n": share.n}
