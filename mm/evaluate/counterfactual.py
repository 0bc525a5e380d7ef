"""The same scene with one attribute swapped, and how many answers change that should not.

The artwork shows no people. What can be asked of it is whether a model that names, counts and
places things depends on the tone that a flat icon is drawn in: each scene of icons is drawn in the
first of ten skin tones and in another, with all else the same to the pixel, and the model is asked
about neither colour.

Ref: Monk 2022, The Monk skin tone scale, for the tones.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mm.data.scenes.artwork import Artwork
from mm.data.scenes.batch import SceneBatch, collate_scenes
from mm.data.scenes.language import examine
from mm.data.scenes.layout import SceneConfig
from mm.data.scenes.render import Renderer
from mm.data.scenes.style import PLAIN_STYLE
from mm.errors import UsageError
from mm.evaluate.fairness import changed_answers
from mm.evaluate.intervals import Estimate
from mm.evaluate.questions import Question
from mm.evaluate.records import Record

TONES = (
    (246, 237, 228), (243, 231, 219), (247, 234, 208), (234, 218, 186), (215, 189, 150),
    (160, 126, 86), (130, 92, 67), (96, 65, 52), (58, 49, 42), (41, 36, 32),
)  # fmt: skip
SIZE, SEED = 256, 40_000
# Answers to a batch of pictures uint8 [B, 3, H, W] and the questions of each.
Answer = Callable[[Tensor, Sequence[Sequence[Question]]], Sequence[Sequence[str]]]


@dataclass(frozen=True)
class Swapped:
    """Answers to the same questions in every tone, and the share that changed from the first."""

    records: tuple[tuple[Record, ...], ...]  # of each tone
    changed: Mapping[str, Estimate]  # by tone, and by language over all tones


def swap_tones(artwork: Artwork, answer: Answer, scenes: int = 64, batch_size: int = 16) -> Swapped:
    """Ask about scenes whose icons are drawn in each of the tones.

    Raises:
        UsageError: the artwork has no flat icons.
    """
    if not artwork.mono_rows:
        raise UsageError("the artwork has no icons of one colour, whose tone could be swapped")
    rng = random.Random(SEED)
    config = SceneConfig(shape_share=0, word_share=0, mono_share=1, pairs="any")
    sampler, renderer = artwork.sampler(config), Renderer(artwork, "cpu")
    records: list[list[Record]] = [[] for _ in TONES]
    for start in range(0, scenes, batch_size):
        drawn = [sampler.draw(rng) for _ in range(min(batch_size, scenes - start))]
        batch = collate_scenes(drawn, artwork, rng, PLAIN_STYLE)
        asked = [
            [
                Question(e.question, e.answer, (f"{e.kind}.{e.language}",),
                         tags={"kind": e.kind, "language": e.language})
                for e in examine(scene, rng) if e.kind != "colour"
            ]
            for scene in drawn
        ]  # fmt: skip
        for tone, found in zip(TONES, records, strict=True):
            generator = torch.Generator().manual_seed(SEED + start)
            toned = _in_tone(batch, artwork, tone)
            pictures, _ = renderer.draw(toned, SIZE, PLAIN_STYLE, generator)
            for row, texts in enumerate(answer(pictures, asked)):
                for number, (question, said) in enumerate(zip(asked[row], texts, strict=True)):
                    item = str(start + row)
                    tags = question.tags
                    found.append(Record(item, f"{number}", tags, said, (question.answer,)))
    changed = {
        f"tone {number}": changed_answers(records[0], row)
        for number, row in enumerate(records[1:], 2)
    }
    for language in ("en", "ko"):
        rows = [[r for r in row if r.tags["language"] == language] for row in records]
        # Questions of all tones are cases of the one scene.
        many = [replace(r, question=f"{n}/{r.question}") for n in range(1, 10) for r in rows[0]]
        swapped = [replace(r, question=f"{n}/{r.question}") for n in range(1, 10) for r in rows[n]]
        changed[f"language {language}"] = changed_answers(many, swapped)
    return Swapped(tuple(tuple(row) for row in records), changed)


def _in_tone(batch: SceneBatch, artwork: Artwork, tone: tuple[int, int, int]) -> SceneBatch:
    """The batch with its flat icons drawn in a tone."""
    rows = torch.tensor([int(row) in artwork.mono_rows for row in batch.sprite.tolist()])
    tint = batch.tint.clone()
    tint[rows] = torch.tensor([*(value / 255 for value in tone), 1.0])
    return replace(batch, tint=tint)
