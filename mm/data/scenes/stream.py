"""Training batches of composed scenes: one per step number, always the same for that number.

A batch holds one picture per row: first scenes, then pictures of another data set (from scrubbed
shards), then pictures to decline. The counts per batch are fixed, so shapes never change.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import Dataset

from mm.data.packing import Encoded, PackedBatch, Row, collate, place
from mm.data.sample import Sample
from mm.data.scenes.artwork import Artwork
from mm.data.scenes.batch import OtherPicture, SceneBatch, collate_scenes
from mm.data.scenes.concepts import LANGUAGES
from mm.data.scenes.language import DECLINE, QUESTIONS, Exchange, ask_caption, converse
from mm.data.scenes.layout import Scene, SceneConfig
from mm.data.scenes.style import StyleConfig
from mm.errors import ConfigError
from mm.text.chat import IMAGE_MARKER, Turn, encode_prefix_and_turns
from mm.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class StreamConfig:
    """What a batch holds.

    Attributes:
        rows: pictures of a batch.
        row_length: tokens of a row; exchanges are added until none fits.
        exchanges: the most exchanges about one picture.
        other_share, picture_share, texture_share: of the rows; the rest are scenes.
    """

    rows: int = 256
    row_length: int = 192
    exchanges: int = 9
    other_share: float = 0.06
    picture_share: float = 0.09
    texture_share: float = 0.02

    def __post_init__(self) -> None:
        if self.other_share + self.picture_share + self.texture_share >= 1:
            raise ValueError(
                "other_share, picture_share and texture_share leave no room for scenes"
            )


@dataclass
class Batch:
    """What one training step reads."""

    step: int
    packed: PackedBatch
    scenes: SceneBatch

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The same batch on another device."""
        return Batch(
            self.step,
            self.packed.to(device, non_blocking),
            self.scenes.to(device, non_blocking),
        )

    def pin_memory(self) -> Batch:
        """The same batch in pinned memory; the data loader calls it."""
        return Batch(self.step, self.packed.pin_memory(), self.scenes.pin_memory())


class SceneStream(Dataset[Batch]):
    """A data set whose item `step` is the batch of that step.

    Args:
        artwork: what scenes are composed of.
        scene_config, style: their distribution and look.
        config: what a batch holds.
        tokenizer, num_image_tokens: how conversations become tokens.
        seed: with the step number, all that a batch depends on.
        num_steps: length of the data set.
        others: samples of another data set; `others[i]` asks about the renderer's picture i.
    """

    def __init__(
        self,
        artwork: Artwork,
        scene_config: SceneConfig,
        style: StyleConfig,
        config: StreamConfig,
        tokenizer: Tokenizer,
        num_image_tokens: int,
        seed: int,
        num_steps: int,
        others: Sequence[Sample] = (),
    ) -> None:
        self.artwork = artwork
        self.sampler = artwork.sampler(scene_config)
        self.style = style
        self.config = config
        self.tokenizer = tokenizer
        self.num_image_tokens = num_image_tokens
        self.seed = seed
        self.num_steps = num_steps
        self.others = [_pairs(sample.turns) for sample in others]
        shares = {
            "other": config.other_share if self.others else 0.0,
            "picture": config.picture_share if len(artwork.pictures) else 0.0,
            "texture": config.texture_share,
        }
        self.counts = {kind: round(config.rows * share) for kind, share in shares.items()}

    def __len__(self) -> int:
        return self.num_steps

    def __getitem__(self, step: int) -> Batch:
        rng = random.Random(f"{self.seed}/scenes/{step}")
        pictures: list[Scene | OtherPicture] = []
        talks: list[list[Turn]] = []
        for _ in range(self.config.rows - sum(self.counts.values())):
            scene = self.sampler.draw(rng)
            pictures.append(scene)
            talks.append(_turns(converse(scene, rng, self.config.exchanges)))
        for _ in range(self.counts["other"]):
            row = rng.randrange(len(self.others))
            pictures.append(OtherPicture("other", row))
            pairs = self.others[row]
            talks.append([turn for pair in rng.sample(pairs, len(pairs)) for turn in pair])
        for kind in ("picture", "texture"):
            for _ in range(self.counts[kind]):
                row = rng.randrange(len(self.artwork.pictures)) if kind == "picture" else 0
                pictures.append(OtherPicture(kind, row))
                talks.append(_turns(self._declines(rng)))
        rows: list[Row] = []
        for index, talk in enumerate(talks):
            talk[0] = (talk[0][0], IMAGE_MARKER + talk[0][1])
            prefix, items = encode_prefix_and_turns(self.tokenizer, talk, self.num_image_tokens)
            rows.append(Row())
            place(rows[-1], Encoded(index, prefix, items), self.config.row_length)
        if not any(row.parts for row in rows):
            raise ConfigError(
                f"data.stream.row_length is {self.config.row_length}, which holds no question about"
                f" a picture of {self.num_image_tokens} tokens: raise it, or have the projector"
                " make fewer"
            )
        pad = self.tokenizer.token_id("<|endoftext|>")
        return Batch(
            step,
            collate(rows, self.config.row_length, pad),
            collate_scenes(pictures, self.artwork, rng, self.style),
        )

    def _declines(self, rng: random.Random) -> list[Exchange]:
        """Questions that some scene would answer, all declined."""
        scene = self.sampler.draw(rng)
        exchanges = [ask_caption(scene, language, rng, False) for language in LANGUAGES]
        while len(exchanges) < self.config.exchanges:
            ask, _ = rng.choice(QUESTIONS)
            exchange = ask(scene, rng.choice(LANGUAGES), rng, False)
            if exchange:
                exchanges.append(exchange)
        return [Exchange("decline", e.language, e.question, DECLINE[e.language]) for e in exchanges]


def _turns(exchanges: Sequence[Exchange]) -> list[Turn]:
    return [
        turn
        for exchange in exchanges
        for turn in (("user", exchange.question), ("assistant", exchange.answer))
    ]


def _pairs(turns: Sequence[Turn]) -> list[tuple[Turn, Turn]]:
    """Question and answer pairs of a sample, without the picture's marker."""
    plain = [(role, text.replace(IMAGE_MARKER, "").strip()) for role, text in turns]
    return list(zip(plain[::2], plain[1::2], strict=True))
