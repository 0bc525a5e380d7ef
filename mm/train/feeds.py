"""The two feeds of the training loop: scenes composed on the device, and pictures from shards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from mm.data.shard_stream import ShardBatch, ShardStream, ShardStreamConfig
from mm.data.shards import ShardReader
from mm.encoders.pixels import square, to_uint8
from mm.privacy.door import open_image
from mm.text.tokenizer import Tokenizer

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
        side, resample: pictures are resized to this square while loading, as the encoder would.
        shortest_edge: of an encoder that cuts out the middle of a picture rather than squash it:
            the square that is kept has this side, of which the encoder cuts out its own.
    """

    patch_classes: tuple[int, ...] = ()

    def __init__(
        self,
        directories: Sequence[str | Path],
        stream: ShardStreamConfig,
        tokenizer: Tokenizer,
        num_image_tokens: int,
        side: int,
        resample: str,
        seed: int,
        num_steps: int,
        shortest_edge: int | None = None,
    ) -> None:
        readers = [ShardReader(directory) for directory in directories]
        self.ledgers: Mapping[str, str] = {
            Path(directory).name: reader.ledger["self_hash"]
            for directory, reader in zip(directories, readers, strict=True)
        }
        self.side, self.resample, self.shortest_edge = side, resample, shortest_edge
        self.dataset = ShardStream(
            readers, tokenizer, num_image_tokens, self._prepare, stream, seed, num_steps
        )

    def _prepare(self, data: bytes) -> Tensor:
        return square(
            [open_image(data)],
            self.shortest_edge or self.side,
            self.resample,
            shortest_edge=self.shortest_edge,
        )[0]

    def pixels(self, batch: ShardBatch, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """The batch's pictures; see `Feed`."""
        return batch.images, None
