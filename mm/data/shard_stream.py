"""Training batches from scrubbed shards: shuffled by seed and epoch, packed, reproducible."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

from mm.data.packing import Encoded, PackedBatch, PackingCounts, Row, collate, pack
from mm.data.shards import ShardReader
from mm.text.chat import encode_prefix_and_turns
from mm.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class ShardStreamConfig:
    """How shards become batches."""

    rows: int = 32
    row_length: int = 256
    images_per_row: int = 4
    lookahead: int = 16


@dataclass
class ShardBatch:
    """Packed rows and their pictures in the order of the rows: uint8 [I, 3, S, S]."""

    step: int
    packed: PackedBatch
    images: Tensor

    def to(self, device: torch.device | str, non_blocking: bool = False) -> ShardBatch:
        """The same batch on another device."""
        packed = self.packed.to(device, non_blocking)
        return ShardBatch(self.step, packed, self.images.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> ShardBatch:
        """The same batch in pinned memory; the data loader calls it."""
        return ShardBatch(self.step, self.packed.pin_memory(), self.images.pin_memory())


class ShardStream(Dataset[ShardBatch]):
    """A data set whose item `step` is the batch of that step; epochs follow one another.

    Args:
        readers: opened shard directories; each sample has one picture and independent turns.
        prepare: a sample's picture bytes to a uint8 [3, S, S] tensor (through the door).
        seed: with the epoch, decides the order.
        num_steps: length of the data set.
    """

    def __init__(
        self,
        readers: Sequence[ShardReader],
        tokenizer: Tokenizer,
        num_image_tokens: int,
        prepare: Callable[[bytes], Tensor],
        config: ShardStreamConfig,
        seed: int,
        num_steps: int,
    ) -> None:
        self.readers = list(readers)
        self.prepare = prepare
        self.config = config
        self.seed = seed
        self.num_steps = num_steps
        self.pad_id = tokenizer.token_id("<|endoftext|>")
        self.counts = PackingCounts()
        self.where = [(r, i) for r, reader in enumerate(self.readers) for i in range(len(reader))]
        self.encoded: list[Encoded] = []
        for number, (r, i) in enumerate(self.where):
            sample = self.readers[r][i]
            prefix, items = encode_prefix_and_turns(tokenizer, sample.turns, num_image_tokens)
            self.encoded.append(Encoded(number, prefix, items))
        self._epochs: list[list[list[Row]]] = []  # epoch -> batch -> rows

    def __len__(self) -> int:
        return self.num_steps

    def __getitem__(self, step: int) -> ShardBatch:
        epoch, index = 0, step
        while True:
            if epoch == len(self._epochs):
                self._epochs.append(self._pack_epoch(epoch))
            if index < len(self._epochs[epoch]):
                break
            index -= len(self._epochs[epoch])
            epoch += 1
        rows = self._epochs[epoch][index]
        pictures = []
        for row in rows:
            for part in row.parts:
                reader, i = self.where[part.picture]
                pictures.append(self.prepare(self.readers[reader][i].images[0]))
        packed = collate(rows, self.config.row_length, self.pad_id)
        return ShardBatch(step, packed, torch.stack(pictures))

    def _pack_epoch(self, epoch: int) -> list[list[Row]]:
        """The epoch's rows in batches; the last rows that fill no batch go to no step."""
        config = self.config
        rng = random.Random(f"{self.seed}/shards/{epoch}")
        order = rng.sample(self.encoded, len(self.encoded))
        counts = PackingCounts()
        rows = list(
            pack(
                order,
                config.row_length,
                images_per_row=config.images_per_row,
                lookahead=config.lookahead,
                counts=counts,
            )
        )
        self.counts = counts
        if len(rows) < config.rows:
            raise ValueError(
                f"the shards fill {len(rows)} rows, a batch takes {config.rows}: lower stream.rows"
            )
        return [
            rows[i : i + config.rows] for i in range(0, len(rows) - config.rows + 1, config.rows)
        ]
