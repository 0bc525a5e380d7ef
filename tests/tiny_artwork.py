"""A handful of made-up drawings, letters and pictures, in memory and as scrubbed shards."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mm.data.sample import Sample
from mm.data.scenes.artwork import SPRITE, Artwork, load_artwork
from mm.data.scenes.concepts import concepts
from mm.data.scenes.words import ALPHABET
from mm.data.shards import write_shards
from mm.privacy.door import encode_png
from mm.privacy.policy import Policy

NUM_CONCEPTS = 24


def _sprite(index: int) -> tuple[Image.Image, Image.Image]:
    """A disc with a colour and a hole of its own."""
    axis = np.arange(SPRITE) - SPRITE / 2
    y, x = np.meshgrid(axis, axis, indexing="ij")
    radius = np.hypot(x, y)
    mask = (radius < 44) & (np.hypot(x - 20 + index, y) > 8)
    colour = np.zeros((SPRITE, SPRITE, 3), np.uint8)
    colour[:] = [(index * 37) % 256, (index * 91) % 256, (index * 53) % 256]
    alpha = np.repeat((mask * 255).astype(np.uint8)[:, :, None], 3, axis=2)
    return Image.fromarray(colour), Image.fromarray(alpha)


def _letter(letter: str) -> Image.Image:
    mask = np.zeros((64, 64, 3), np.uint8)
    mask[12:52, 8:14] = 255
    mask[12 + ord(letter) % 30 : 20 + ord(letter) % 30, 8:30] = 255
    return Image.fromarray(mask)


def samples() -> list[Sample]:
    """Artwork as its shards hold it: two sets of drawings, one font, two photographs."""
    found = []

    def add(images: list[Image.Image], **tags: str) -> None:
        data = [encode_png(image) for image in images]
        found.append(Sample(data, [], {"split": "train", **tags}, f"{len(found):064x}"))

    for concept in concepts()[:NUM_CONCEPTS]:
        for number, name in enumerate(("discs", "icons")):
            mono = {"mono": "yes"} if name == "icons" else {}
            images = list(_sprite(concept.index + 100 * number))
            add(images, kind="object", concept=concept.english, set=name, **mono)
    for letter in ALPHABET:
        add([_letter(letter)], kind="letter", letter=letter, font="sticks", advance="24")
    rng = np.random.default_rng(0)
    for size in ((60, 90), (80, 40)):
        noise = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        add([Image.fromarray(noise)], kind="photo", set="noise")
    return found


def write_artwork(directory: Path) -> Path:
    """Scrub the artwork into shards."""
    write_shards(samples(), directory, Policy(name="artwork", longest_side=None))
    return directory


def tiny_artwork(directory: Path) -> Artwork:
    """The artwork in memory, read back from shards."""
    torch.manual_seed(0)
    return load_artwork([write_artwork(directory)])
