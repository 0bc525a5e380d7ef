"""Training batches from scrubbed shards: shuffled by seed and epoch, packed, reproducible."""

from __future__ import annotations

import hashlib
import random
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from mm.data.packing import (
    Encoded,
    Grid,
    PackedBatch,
    Packer,
    PackingCounts,
    PlaceTokens,
    Row,
    collate,
)
from mm.data.sample import Sample
from mm.data.shards import ShardReader
from mm.errors import ConfigError, UsageError
from mm.text.chat import IMAGE_MARKER, encode_chat, encode_prefix_and_turns
from mm.text.tokenizer import Tokenizer

REMEMBERED = 4096  # conversations kept as tokens, so that small data sets are encoded once
TURNS = ("independent", "together")
LEFT_OUT = (
    "too_long", "too_many_pictures", "malformed", "unanswered", "unseeable",
)  # fmt: skip
Cursor = dict[str, Any]  # plain data, as JSON holds it


@dataclass(frozen=True)
class ShardStreamConfig:
    """How shards become batches.

    Attributes:
        rows, row_length: of a batch.
        images_per_row: the most pictures of a row.
        lookahead: rows that are open at a time.
        turns: "independent": the questions about a single picture do not see each other, and the
            picture is encoded once for all. "together": later turns see the earlier ones. A
            conversation of several pictures, or that a system's turn opens, is always together.
    """

    rows: int = 32
    row_length: int = 256
    images_per_row: int = 4
    lookahead: int = 16
    turns: str = "independent"

    def __post_init__(self) -> None:
        for name in ("rows", "row_length", "images_per_row"):
            if getattr(self, name) < 1:
                raise ConfigError(f"stream.{name} is {getattr(self, name)}; it starts at 1")
        if self.turns not in TURNS:
            raise ConfigError(f"stream.turns is {self.turns!r}; known: {', '.join(TURNS)}")


@dataclass(frozen=True)
class Sight:
    """What a model makes of pictures, as far as the stream must know.

    Args:
        prepare: a picture's bytes to a uint8 tensor [3, height, width] (through the door).
        num_tokens: how many tokens every picture takes; None if that depends on its size.
        grids: (height, width) of a picture to the grids of the tokens of its views.
        place_tokens: of a decoder with M-RoPE.
    """

    prepare: Callable[[bytes], Tensor]
    num_tokens: int | None = None
    grids: Callable[[int, int], tuple[Grid, ...]] | None = None
    place_tokens: PlaceTokens | None = None


@dataclass
class StreamCounts(PackingCounts):
    """What became of an epoch's samples so far."""

    malformed: int = 0  # roles, markers and pictures that do not fit together, left out
    without_picture: int = 0  # text alone, learned like the rest
    unanswered: int = 0  # nothing to learn, left out
    unseeable: int = 0  # with a picture of a size that the encoder refuses, left out
    rows: int = 0
    tokens: int = 0  # of these rows, padding apart


@dataclass
class ShardBatch:
    """Packed rows and their pictures in the order of the rows.

    Attributes:
        images: uint8 [I, 3, S, S], or a list of [3, height, width] if sizes differ; of rows of
            text alone an empty list.
        sources: `source_id` of every conversation, in the order of the rows.
        counts: of the epoch up to this batch.
        cursor: where the stream stands after this batch, for `ShardStream.seek`.
    """

    step: int
    packed: PackedBatch
    images: Tensor | list[Tensor]
    sources: tuple[str, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)
    cursor: Cursor = field(default_factory=dict)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> ShardBatch:
        """The same batch on another device."""
        return self._moved(
            self.packed.to(device, non_blocking),
            lambda image: image.to(device, non_blocking=non_blocking),
        )

    def pin_memory(self) -> ShardBatch:
        """The same batch in pinned memory; the data loader calls it."""
        return self._moved(self.packed.pin_memory(), lambda image: image.pin_memory())

    def measured(self) -> dict[str, float]:
        """How full the epoch's rows are so far, and what was left out of them, for the log."""
        length = self.packed.input_ids.shape[1]
        left_out = sum(self.counts[reason] for reason in LEFT_OUT)
        fill = self.counts["tokens"] / (self.counts["rows"] * length)
        reasons = {f"left_out/{reason}": float(self.counts[reason]) for reason in LEFT_OUT}
        return {"fill": fill, "left_out": left_out, **{k: n for k, n in reasons.items() if n}}

    def _moved(self, packed: PackedBatch, move: Callable[[Tensor], Tensor]) -> ShardBatch:
        if isinstance(self.images, Tensor):
            images: Tensor | list[Tensor] = move(self.images)
        else:
            images = [move(image) for image in self.images]
        return ShardBatch(self.step, packed, images, self.sources, self.counts, self.cursor)


class ShardStream(Dataset[ShardBatch]):
    """A data set whose item `step` is the batch of that step; epochs follow one another.

    It reads on from where it stands and holds the open rows only. A step that lies behind is read
    from the start of its epoch, or from a cursor.

    Args:
        readers: opened shard directories.
        seed: with the epoch, decides the order.
        num_steps: length of the data set.
    """

    def __init__(
        self,
        readers: Sequence[ShardReader],
        tokenizer: Tokenizer,
        sight: Sight,
        config: ShardStreamConfig,
        seed: int,
        num_steps: int,
    ) -> None:
        self.readers = list(readers)
        self.tokenizer = tokenizer
        self.sight = sight
        self.config = config
        self.seed = seed
        self.num_steps = num_steps
        self.pad_id = tokenizer.token_id("<|endoftext|>")
        self._firsts = [0, *accumulate(len(reader) for reader in self.readers)]
        self._encoded: dict[int, Encoded | str] = {}
        self._epoch, self._order = -1, [0]
        about = (seed, config, [reader.ledger["self_hash"] for reader in self.readers])
        self._about = hashlib.sha256(repr(about).encode()).hexdigest()[:16]
        start: Cursor = {"about": self._about, "step": 0, "epoch": 0, "taken": 0}
        start |= {"ready": [], "open": [], "counts": {}}
        self._starts = [start]
        self.seek(start)

    def __len__(self) -> int:
        return self.num_steps

    def __getitem__(self, step: int) -> ShardBatch:
        if step < self._step:
            self.seek(max((s for s in self._starts if s["step"] <= step), key=lambda s: s["step"]))
        while self._step < step:
            self._next_rows()
        rows = self._next_rows()
        samples = [self._sample(part.picture) for row in rows for part in row.parts]
        images = [self.sight.prepare(image) for sample in samples for image in sample.images]
        alike = self.sight.num_tokens is not None
        return ShardBatch(
            step,
            collate(rows, self.config.row_length, self.pad_id, self.sight.place_tokens),
            torch.stack(images) if alike and images else images,
            tuple(sample.source_id for sample in samples),
            asdict(self.counts),
            self.cursor(),
        )

    def conversations(self, most: int) -> Iterator[Encoded | str]:
        """The epoch's first conversations as tokens, or why one is left out before packing."""
        return map(self._encode, self._order[:most])

    def cursor(self) -> Cursor:
        """Where the stream stands: numbers of samples and of their turns, and no content."""
        return {
            "about": self._about,
            "step": self._step,
            "epoch": self._epoch,
            "taken": self._taken,
            "ready": [_numbers(row) for row in self._ready],
            "open": [_numbers(row) for row in self._packer.open_rows],
            "counts": asdict(self.counts),
        }

    def seek(self, cursor: Cursor) -> None:
        """Stand where `cursor` says, without reading what comes before.

        Raises:
            ConfigError: the cursor is of other shards, another `data.stream` or seed, so that
                going on would repeat some samples and lose others.
        """
        if cursor["about"] != self._about:
            raise ConfigError(
                "the checkpoint was made with other shards, another data.stream or another"
                " recipe.seed: put them back, or start a new run with another output"
            )
        self._step, self._taken = int(cursor["step"]), int(cursor["taken"])
        self._shuffle(int(cursor["epoch"]))
        self._ready = [self._row(numbers) for numbers in cursor["ready"]]
        self._new_packer(StreamCounts(**cursor["counts"]))
        self._packer.open_rows = [self._row(numbers) for numbers in cursor["open"]]
        if all(start["step"] > self._step for start in self._starts):
            self._starts.append(cursor)

    def _new_packer(self, counts: StreamCounts) -> None:
        config = self.config
        self.counts = counts
        self._packer = Packer(
            config.row_length,
            images_per_row=config.images_per_row,
            lookahead=config.lookahead,
            counts=counts,
        )

    def _shuffle(self, epoch: int) -> None:
        if epoch != self._epoch:
            size = self._firsts[-1]
            rng = random.Random(f"{self.seed}/shards/{epoch}")
            self._epoch, self._order = epoch, rng.sample(range(size), size)

    def _next_rows(self) -> list[Row]:
        """The rows of the next step; the last rows of an epoch that fill no batch go to none."""
        wanted, ended = self.config.rows, False
        while len(self._ready) < wanted:
            if self._taken < len(self._order):
                number = self._order[self._taken]
                self._taken += 1
                self._ready += self._pack(number)
            elif self._packer.open_rows:
                self._ready += self._packer.flush()
            else:
                if ended or not self.counts.rows:
                    raise ValueError(
                        f"the shards fill {len(self._ready)} rows, a batch takes {wanted}: lower"
                        f" stream.rows (of an epoch's samples: {self.counts})"
                    )
                ended = True
                self._shuffle(self._epoch + 1)
                self._taken, self._ready = 0, []
                self._new_packer(StreamCounts())
                if self._starts[-1]["step"] < self._step:
                    self._starts.append(self.cursor())
        rows, self._ready = self._ready[:wanted], self._ready[wanted:]
        self._step += 1
        self.counts.rows += len(rows)
        self.counts.tokens += sum(row.length for row in rows)
        return rows

    def _pack(self, number: int) -> list[Row]:
        encoded = self._encode(number)
        if isinstance(encoded, Encoded):
            self.counts.without_picture += not encoded.num_pictures
            return self._packer.add(encoded)
        self.counts.pictures += 1
        setattr(self.counts, encoded, getattr(self.counts, encoded) + 1)
        return []

    def _row(self, numbers: Sequence[tuple[int, Sequence[int]]]) -> Row:
        row = Row()
        for number, chosen in numbers:
            encoded = self._encode(number)
            if not isinstance(encoded, Encoded):
                raise ConfigError(
                    "the checkpoint was made with a model that takes other pictures: put it back,"
                    " or start a new run with another output"
                )
            part = encoded.choose(chosen)
            row.parts.append(part)
            row.length += len(part.prefix) + sum(len(item[0]) for item in part.items)
        return row

    def _sample(self, number: int) -> Sample:
        reader = bisect_right(self._firsts, number) - 1
        return self.readers[reader][number - self._firsts[reader]]

    def _encode(self, number: int) -> Encoded | str:
        """A sample as tokens, or the count of those that are left out for the same reason."""
        found = self._encoded.get(number)
        if found is None:
            found = self._encode_sample(number, self._sample(number))
            if len(self._encoded) < REMEMBERED:
                self._encoded[number] = found
        return found

    def _encode_sample(self, number: int, sample: Sample) -> Encoded | str:
        grids: tuple[Grid, ...] = ()
        if self.sight.num_tokens is not None:
            sizes = [self.sight.num_tokens] * len(sample.images)
        if self.sight.grids is not None:
            sizes = []
            for image in sample.images:
                try:
                    views = self.sight.grids(*self.sight.prepare(image).shape[-2:])
                except ValueError:
                    return "unseeable"
                sizes.append(sum(rows * columns for rows, columns in views))
                grids += views
        try:
            if self.config.turns == "independent" and _separable(sample):
                prefix, items = encode_prefix_and_turns(self.tokenizer, sample.turns, sizes[0])
            else:
                chat = encode_chat(self.tokenizer, sample.turns, num_image_tokens=sizes)
                prefix, items = [], [(chat.input_ids, chat.labels_mask)]
        except UsageError:
            return "malformed"
        if not any(any(learned) for _, learned in items):
            return "unanswered"
        return Encoded(number, prefix, items, len(sample.images), grids)


def _separable(sample: Sample) -> bool:
    """Whether a sample is questions about one picture, each with an answer."""
    roles = [role for role, _ in sample.turns]
    shown = [text.count(IMAGE_MARKER) for role, text in sample.turns if role == "user"]
    return (
        len(sample.images) == 1
        and roles == ["user", "assistant"] * (len(roles) // 2)
        and shown[:1] == [1]
        and not any(shown[1:])
        and sample.turns[0][1].startswith(IMAGE_MARKER)
    )


def _numbers(row: Row) -> list[tuple[int, tuple[int, ...]]]:
    return [(part.picture, part.chosen) for part in row.parts]
