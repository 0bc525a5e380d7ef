"""Questions about composed scenes whose right answer lies at a known place.

Is there a dog?          every dog
What is above the cup?   the thing that the answer names
What color is the star?  the star
What does the text say?  the word
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mm.data.scenes.artwork import Artwork, load_artwork
from mm.data.scenes.batch import collate_scenes
from mm.data.scenes.concepts import SHAPES
from mm.data.scenes.language import Exchange, examine, thing_name
from mm.data.scenes.layout import SceneConfig, SceneSampler, Thing
from mm.data.scenes.render import Renderer
from mm.data.scenes.style import PLAIN_STYLE

SIZE = 256
_COUNTS = (0.0, 0.4, 0.35, 0.25)  # one, two, three and four things: with one, all point alike


@dataclass(frozen=True)
class Case:
    """A question about a scene, and where its answer is seen.

    Args:
        scene: number of the scene; questions about one scene hang together.
        kind: of the question.
        image: uint8 `[3, SIZE, SIZE]`.
        target: bool `[16, 16]`, the parts of the picture in which the thing is seen.
    """

    scene: int
    kind: str
    language: str
    question: str
    answer: str
    image: Tensor
    target: Tensor


def cases(count: int, directories: Sequence[str | Path] = (), seed: int = 0) -> Iterator[Case]:
    """Draw scenes and yield their questions that have a place, in English and in Korean.

    Args:
        count: scenes.
        directories: scrubbed artwork, of which the test split is shown; without any, scenes are
            made of plain shapes, which need no file.
        seed: what scenes are drawn from.

    Raises:
        LedgerError: a directory is not scrubbed, or was edited since.
    """
    artwork = load_artwork(directories, splits=("test",), letter_splits=("test",))
    sampler = _sampler(artwork)
    renderer = Renderer(artwork, "cpu")
    for number in range(count):
        rng = random.Random(f"{seed}/explained/{number}")
        scene = sampler.draw(rng, count=rng.choices((1, 2, 3, 4), weights=_COUNTS)[0])
        batch = collate_scenes([scene], artwork, rng, PLAIN_STYLE)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + number)
        (image,), (labels,) = renderer.draw(batch, SIZE, PLAIN_STYLE, generator)
        for exchange in examine(scene, rng):
            places = [
                place for place, thing in enumerate(scene.things) if _is_meant(thing, exchange)
            ]
            target = torch.isin(labels[2], torch.tensor(places, dtype=labels.dtype))
            if len(places) < len(scene.things) and target.any():
                asked = (exchange.kind, exchange.language, exchange.question, exchange.answer)
                yield Case(number, *asked, image, target)


def _sampler(artwork: Artwork) -> SceneSampler:
    if artwork.catalogue:
        return artwork.sampler(SceneConfig(pairs="any", words="test", word_share=0.3))
    shapes = SceneConfig(shape_share=1.0, word_share=0.0, duplicate_share=0.0)
    unused: dict[int, dict[str, list[int]]] = {0: {}}  # a sampler wants at least one concept
    return SceneSampler(unused, artwork.shape_rows, (), artwork.tints, (), shapes)


def _is_meant(thing: Thing, exchange: Exchange) -> bool:
    """Whether the thing is what has to be looked at for the answer."""
    name = thing_name(thing, exchange.language)
    match exchange.kind:
        case "where":
            return name == exchange.answer
        case "presence_yes":
            return thing.kind == "art" and name in exchange.question
        case "reading":
            return thing.kind == "word"
        case "colour" if thing.kind == "shape":
            noun = thing.name if exchange.language == "en" else SHAPES[thing.name]
            return noun in exchange.question
    return False
