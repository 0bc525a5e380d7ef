"""Held-out scenes as ordinary files with a JSONL index, to be scrubbed like anybody's pictures.

The files are made dirty on purpose: EXIF with a place, a serial number and a name, and a note with
an e-mail address, a phone number and a card number, all invented. What `scripts/scrub.py` makes of
them must hold none of it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from mm.data.scenes.artwork import Artwork
from mm.data.scenes.batch import collate_scenes
from mm.data.scenes.language import Exchange, examine
from mm.data.scenes.layout import Scene, SceneConfig
from mm.data.scenes.render import Renderer
from mm.data.scenes.style import PLAIN_STYLE
from mm.text.chat import IMAGE_MARKER

# Invented: a reserved domain, a number of the range kept for fiction, a card number for testing.
PLANTED_TEXTS = {
    "e-mail": "jane.roe@example.com",
    "phone": "+1 202-555-0143",
    "card": "4111 1111 1111 1111",
}
PLANTED_EXIF = {
    0x010E: "PLANTED-DESCRIPTION of Jane Roe",  # ImageDescription
    0x013B: "PLANTED-ARTIST Jane Roe",  # Artist
    0xA431: "PLANTED-SERIAL-000042",  # BodySerialNumber
}
PLANTED_PLACE = (37.0, 33.0, 59.88)  # GPSLatitude in degrees, minutes, seconds
_GPS_IFD, _GPS_LATITUDE_REF, _GPS_LATITUDE = 0x8825, 1, 2
_BATCH = 32


@dataclass(frozen=True)
class FileConfig:
    """How many scenes, how large, and what they are drawn from."""

    count: int = 1000
    size: int = 256
    seed: int = 1


def write_scenes(directory: Path, artwork: Artwork, scene: SceneConfig, config: FileConfig) -> Path:
    """Write `config.count` scenes as JPEG files and `scenes.jsonl`; return the index's path.

    Every question of a scene is labelled with its kind and language, and captions also with the
    number of things: `caption.en+caption.en.2`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    index = directory / "scenes.jsonl"
    with index.open("w", encoding="utf-8") as file:
        for number, (drawn, image) in enumerate(_draw(artwork, scene, config)):
            name = f"{number:05d}.jpg"
            image.save(directory / name, quality=92, exif=_dirty_exif())
            rng = random.Random(f"{config.seed}/questions/{number}")
            exchanges = examine(drawn, rng)
            turns = [
                turn for e in exchanges for turn in (["user", e.question], ["assistant", e.answer])
            ]
            turns[0][1] = IMAGE_MARKER + turns[0][1]
            tags = {
                "labels": " ".join(_labels(e, drawn) for e in exchanges),
                "note": "by {e-mail}, call {phone}, card {card}".format(**PLANTED_TEXTS),
            }
            record = {"images": [name], "turns": turns, "tags": tags}
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
    return index


def _draw(
    artwork: Artwork, scene: SceneConfig, config: FileConfig
) -> Iterator[tuple[Scene, Image.Image]]:
    sampler, renderer = artwork.sampler(scene), Renderer(artwork, "cpu")
    for start in range(0, config.count, _BATCH):
        rng = random.Random(f"{config.seed}/scenes/{start}")
        scenes = [sampler.draw(rng) for _ in range(min(_BATCH, config.count - start))]
        batch = collate_scenes(scenes, artwork, rng, PLAIN_STYLE)
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + start)
        pictures, _ = renderer.draw(batch, config.size, PLAIN_STYLE, generator)
        for drawn, picture in zip(scenes, pictures, strict=True):
            yield drawn, Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())


def _labels(exchange: Exchange, scene: Scene) -> str:
    label = f"{exchange.kind}.{exchange.language}"
    if exchange.kind == "caption":
        return f"{label}+{label}.{len(scene.things)}"
    return label


def _dirty_exif() -> Image.Exif:
    exif = Image.Exif()
    for tag, value in PLANTED_EXIF.items():
        exif[tag] = value
    gps = exif.get_ifd(_GPS_IFD)
    gps[_GPS_LATITUDE_REF], gps[_GPS_LATITUDE] = "N", PLANTED_PLACE
    return exif
