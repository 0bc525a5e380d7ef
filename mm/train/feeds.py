"""The two feeds of the training loop: scenes composed on the device, and pictures from shards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from mm.data.sample import Sample
from mm.data.scenes.artwork import Artwork
from mm.data.scenes.batch import patch_classes
from mm.data.scenes.layout import SceneConfig
from mm.data.scenes.render import Renderer
from mm.data.scenes.stream import Batch, SceneStream, StreamConfig
from mm.data.scenes.style import StyleConfig
from mm.data.shard_stream import ShardBatch, ShardStream, ShardStreamConfig, Sight
from mm.data.shards import ShardReader
from mm.encoders import Grid
from mm.encoders.pixels import square, to_uint8
from mm.privacy.door import open_image
from mm.text.tokenizer import Tokenizer
from mm.vlm import ImageFeatures, VisionLanguageModel, build

CANVAS = 128  # side in pixels that training scenes are drawn at, before the encoder's own resize
HELD_OUT_CANVAS = 256  # held-out scenes are larger, as files are


class SceneFeed:
    """Scenes drawn on the training device out of scrubbed artwork.

    Args:
        others: directories of scrubbed shards whose pictures are mixed in, one to a row.
    """

    def __init__(
        self,
        artwork: Artwork,
        scene: SceneConfig,
        style: StyleConfig,
        stream: StreamConfig,
        tokenizer: Tokenizer,
        num_image_tokens: int,
        device: torch.device,
        seed: int,
        num_steps: int,
        others: Sequence[str | Path] = (),
    ) -> None:
        samples: list[Sample] = []
        self.ledgers = dict(artwork.ledgers)
        for directory in others:
            reader = ShardReader(directory)
            self.ledgers[Path(directory).name] = reader.ledger["self_hash"]
            samples += list(reader)
        pictures = None
        if samples:
            pictures = torch.stack([to_uint8(open_image(s.images[0])) for s in samples])
        self.patch_classes: tuple[int, ...] = patch_classes()
        self.style = style
        self.renderer = Renderer(artwork, device, pictures)
        self.dataset = SceneStream(
            artwork, scene, style, stream, tokenizer, num_image_tokens, seed, num_steps, samples
        )

    def pixels(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Draw the batch's pictures; see `Feed`."""
        return self.renderer.draw(batch.scenes, CANVAS, self.style, generator)


class ShardFeed:
    """Pictures and conversations as they lie in scrubbed shards.

    Args:
        directories: scrubbed shard directories.
        model: its shape alone matters; weights are left as they are.
    """

    patch_classes: tuple[int, ...] = ()

    def __init__(
        self,
        directories: Sequence[str | Path],
        stream: ShardStreamConfig,
        tokenizer: Tokenizer,
        model: VisionLanguageModel,
        seed: int,
        num_steps: int,
    ) -> None:
        readers = [ShardReader(directory) for directory in directories]
        self.ledgers: Mapping[str, str] = {
            Path(directory).name: reader.ledger["self_hash"]
            for directory, reader in zip(directories, readers, strict=True)
        }
        self.dataset = ShardStream(readers, tokenizer, sight_of(model), stream, seed, num_steps)

    def pixels(
        self, batch: ShardBatch, generator: torch.Generator
    ) -> tuple[Tensor | list[Tensor], Tensor | None]:
        """The batch's pictures; see `Feed`."""
        return batch.images, None


def square_side(model: VisionLanguageModel) -> int | None:
    """Side of the square that every picture becomes; None if their sizes decide their views.

    Some encoders have positions for a larger one.
    """
    encoder = model.encoder
    if not encoder.views(64, 64) == encoder.views(64, 128) == encoder.views(640, 480):
        return None
    return int(getattr(encoder, "picture_size", None) or encoder.config.image_size)


def sight_of(model: VisionLanguageModel) -> Sight:
    """What a stream must know of a model; loader processes are sent this, and no weights."""
    side = square_side(model)
    with torch.device("meta"):
        shape = build({**model.config, "image_token_id": model.image_token_id})
    places = bool(model.decoder.config.mrope_section)
    config = model.encoder.config
    edge = getattr(config, "shortest_edge", None)
    return Sight(
        prepare=_as_it_is if side is None else partial(_squared, side, config.resample, edge),
        num_tokens=None if side is None else model.num_image_tokens(side, side),
        grids=partial(_token_grids, shape) if places or side is None else None,
        place_tokens=partial(_place_tokens, shape) if places else None,
    )


def _as_it_is(data: bytes) -> Tensor:
    return to_uint8(open_image(data))


def _squared(side: int, resample: str, shortest_edge: int | None, data: bytes) -> Tensor:
    """Resize while loading, as the encoder would.

    An encoder that cuts out the middle of a picture rather than squash it is given a square of
    `shortest_edge`, of which it cuts out its own.
    """
    edge = shortest_edge
    return square([open_image(data)], edge or side, resample, shortest_edge=edge)[0]


def _token_grids(shape: VisionLanguageModel, height: int, width: int) -> tuple[Grid, ...]:
    return tuple(map(shape.projector.token_grid, shape.encoder.views(height, width)))


def _place_tokens(
    shape: VisionLanguageModel, ids: list[int], grids: Sequence[Grid]
) -> tuple[Tensor, int]:
    positions, following = shape.place([ids], ImageFeatures(torch.empty(0), (tuple(grids),)))
    return positions[0], following[0]
