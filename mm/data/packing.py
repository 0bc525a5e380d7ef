"""Conversations about pictures packed into rows of fixed length, without padding waste or leaks.

A picture's conversation is a *prefix* (the opening of the turn and the picture's tokens) and one or
more *items* (a question and its answer). Items of one picture do not see each other: each attends
to the prefix and to itself, at the positions it would have alone. So a picture is encoded once,
whatever is asked about it, and a packed row computes exactly what separate rows would:

    row      prefix A | item A1 | item A2 | prefix B | item B1 | padding
    segment      1         2         3          4         5         0
    sees         1        1,2       1,3         4        4,5        0
    position  0 .. p    p+1 ..    p+1 ..     0 .. q     q+1 ..      0

A conversation whose later turns see the earlier ones, with its pictures at their places, is one
item with an empty prefix.

R rows, T tokens of a row, L labelled tokens of the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np
import torch
from torch import Tensor

Item = tuple[list[int], list[bool]]  # token ids, and which of them are to be learned
Grid = tuple[int, int]  # rows and columns of the image tokens of a view
# Token ids, and the grids of their views, to positions [3, T] and the next position.
PlaceTokens = Callable[[list[int], Sequence[Grid]], tuple[Tensor, int]]


@dataclass(frozen=True)
class Encoded:
    """A conversation as tokens.

    Args:
        picture: the caller's name for its picture or pictures.
        prefix: what every item sees; empty if there is but one item.
        items: what do not see each other.
        num_pictures: how many pictures it has, all in the prefix, or in the one item.
        grids: of the image tokens of their views, where positions depend on them.
        chosen: which of the conversation's items these are; empty for all of them.
    """

    picture: int
    prefix: list[int]
    items: Sequence[Item]
    num_pictures: int = 1
    grids: tuple[Grid, ...] = ()
    chosen: tuple[int, ...] = ()

    def choose(self, numbers: Sequence[int]) -> Encoded:
        """Return those of a whole conversation's items that have these numbers."""
        return replace(self, items=[self.items[n] for n in numbers], chosen=tuple(numbers))


@dataclass
class Row:
    """Conversations that share a row."""

    parts: list[Encoded] = field(default_factory=list)
    length: int = 0

    @property
    def num_pictures(self) -> int:
        """How many pictures the row's conversations have together."""
        return sum(part.num_pictures for part in self.parts)


@dataclass
class PackedBatch:
    """Packed rows as tensors.

    Attributes:
        input_ids: int64 [R, T].
        position_ids: int64 [R, T], or [3, R, T] of a decoder with M-RoPE.
        segment_ids: int64 [R, T], 0 for padding.
        prefix_ids: int64 [R, T], the segment that a token sees beside its own (its own if none).
        label_positions: int64 [L], index into the flattened R * T of the token *before* each
            labelled one, whose hidden state predicts it.
        label_ids: int64 [L].
    """

    input_ids: Tensor
    position_ids: Tensor
    segment_ids: Tensor
    prefix_ids: Tensor
    label_positions: Tensor
    label_ids: Tensor

    def to(self, device: torch.device | str, non_blocking: bool = False) -> PackedBatch:
        """The same batch on another device."""
        tensors = (
            getattr(self, f.name).to(device, non_blocking=non_blocking) for f in fields(self)
        )
        return PackedBatch(*tensors)

    def pin_memory(self) -> PackedBatch:
        """The same batch in pinned host memory, from where copies need not be waited for."""
        return PackedBatch(*(getattr(self, f.name).pin_memory() for f in fields(self)))

    @property
    def fill(self) -> float:
        """Share of the tokens that are not padding."""
        return float((self.segment_ids > 0).float().mean())


@dataclass
class PackingCounts:
    """What packing did, so that nothing is lost silently."""

    pictures: int = 0  # conversations, in all
    items: int = 0
    repeated_prefixes: int = 0  # a picture whose items went to more than one row
    too_long: int = 0  # items that no row could hold, left out
    too_many_pictures: int = 0  # conversations of more pictures than a row may have, left out


def attention_mask(segment_ids: Tensor, prefix_ids: Tensor) -> Tensor:
    """Which token may attend to which: bool [R, 1, T, T], True where it may.

    A token sees earlier tokens of its own segment and of its prefix. Padding sees padding, so that
    no row of the mask is empty.
    """
    T = segment_ids.shape[1]
    key = segment_ids[:, None, :]
    same = (key == segment_ids[:, :, None]) | (key == prefix_ids[:, :, None])
    causal = torch.ones(T, T, dtype=torch.bool, device=segment_ids.device).tril()
    return (same & causal)[:, None]


class Packer:
    """Pack conversations into rows, in order, keeping `lookahead` rows open (first fit).

    Nothing is cut: an item that does not fit into a row goes to another one, with its picture.
    What no row can hold is left out and counted.
    """

    def __init__(
        self,
        row_length: int,
        *,
        images_per_row: int,
        lookahead: int = 8,
        counts: PackingCounts | None = None,
    ) -> None:
        self.row_length = row_length
        self.images_per_row = images_per_row
        self.lookahead = lookahead
        self.counts = PackingCounts() if counts is None else counts
        self.open_rows: list[Row] = []

    def add(self, conversation: Encoded) -> list[Row]:
        """Place a whole conversation; return the rows that this closes."""
        counts = self.counts
        counts.pictures += 1
        if conversation.num_pictures > self.images_per_row:
            counts.too_many_pictures += 1
            return []
        room = self.row_length - len(conversation.prefix)
        waiting = [n for n, item in enumerate(conversation.items) if len(item[0]) <= room]
        counts.too_long += len(conversation.items) - len(waiting)
        counts.items += len(waiting)
        closed: list[Row] = []
        first = True
        while waiting:
            part = conversation.choose(waiting)
            row = self._first_fit(part)
            if row is None:
                row = Row()
                self.open_rows.append(row)
            waiting = _place(row, part, self.row_length)
            counts.repeated_prefixes += not first
            first = False
            if len(self.open_rows) > self.lookahead:
                fullest = max(self.open_rows, key=lambda r: r.length)
                # By identity: rows that are equal are still two.
                self.open_rows = [r for r in self.open_rows if r is not fullest]
                closed.append(fullest)
        return closed

    def flush(self) -> list[Row]:
        """Close all rows."""
        rows, self.open_rows = self.open_rows, []
        return rows

    def _first_fit(self, conversation: Encoded) -> Row | None:
        shortest = len(conversation.prefix) + min(len(item[0]) for item in conversation.items)
        for row in self.open_rows:
            fits = row.length + shortest <= self.row_length
            if fits and row.num_pictures + conversation.num_pictures <= self.images_per_row:
                return row
        return None


def pack(
    conversations: Iterable[Encoded],
    row_length: int,
    *,
    images_per_row: int,
    lookahead: int = 8,
    counts: PackingCounts | None = None,
) -> Iterator[Row]:
    """Pack conversations into rows as a `Packer` does."""
    packer = Packer(row_length, images_per_row=images_per_row, lookahead=lookahead, counts=counts)
    for conversation in conversations:
        yield from packer.add(conversation)
    yield from packer.flush()


def place(row: Row, conversation: Encoded, row_length: int) -> list[Item]:
    """Put a conversation into a row, each item that fits; return the items that did not."""
    whole = conversation.choose(range(len(conversation.items)))
    return [conversation.items[number] for number in _place(row, whole, row_length)]


def _place(row: Row, part: Encoded, row_length: int) -> list[int]:
    """Put what fits of a conversation's chosen items into a row; return the others' numbers."""
    length = row.length + len(part.prefix)
    taken: list[int] = []
    left: list[int] = []
    for index, item in enumerate(part.items):
        if length + len(item[0]) <= row_length:
            taken.append(index)
            length += len(item[0])
        else:
            left.append(index)
    if taken:
        chosen = tuple(part.chosen[index] for index in taken)
        row.parts.append(replace(part, items=[part.items[i] for i in taken], chosen=chosen))
        row.length = length
    return [part.chosen[index] for index in left]


def collate(
    rows: Sequence[Row], row_length: int, pad_id: int, place_tokens: PlaceTokens | None = None
) -> PackedBatch:
    """Lay rows out as tensors.

    Args:
        place_tokens: of a decoder with M-RoPE, where tokens lie; else they count on.
    """
    shape = (len(rows), row_length)
    input_ids = np.full(shape, pad_id, np.int64)
    position_ids = np.zeros((3 if place_tokens else 1, *shape), np.int64)
    segment_ids = np.zeros(shape, np.int64)
    prefix_ids = np.zeros(shape, np.int64)
    label_positions: list[int] = []
    label_ids: list[int] = []
    for r, row in enumerate(rows):
        at, segment = 0, 0
        for part in row.parts:
            segment += 1
            prefix_segment, grids = segment, part.grids
            end, start = at + len(part.prefix), 0
            if part.prefix:
                input_ids[r, at:end] = part.prefix
                position_ids[:, r, at:end], start = _positions(part.prefix, grids, place_tokens)
                segment_ids[r, at:end] = prefix_ids[r, at:end] = segment
                grids = ()
            last_of_prefix, at = end - 1, end
            for ids, learned in part.items:
                segment += 1
                end = at + len(ids)
                input_ids[r, at:end] = ids
                position_ids[:, r, at:end] = start + _positions(ids, grids, place_tokens)[0]
                segment_ids[r, at:end] = segment
                prefix_ids[r, at:end] = prefix_segment if part.prefix else segment
                for i, is_learned in enumerate(learned):
                    if is_learned and (i or part.prefix):  # nothing predicts a first token
                        # The first token of an item is predicted from the end of its prefix.
                        before = at + i - 1 if i else last_of_prefix
                        label_positions.append(r * row_length + before)
                        label_ids.append(ids[i])
                at = end
    return PackedBatch(
        torch.from_numpy(input_ids),
        torch.from_numpy(position_ids if place_tokens else position_ids[0]),
        torch.from_numpy(segment_ids),
        torch.from_numpy(prefix_ids),
        torch.tensor(label_positions, dtype=torch.int64),
        torch.tensor(label_ids, dtype=torch.int64),
    )


def _positions(
    ids: list[int], grids: Sequence[Grid], place_tokens: PlaceTokens | None
) -> tuple[np.typing.NDArray[np.int64], int]:
    """Positions from 0 on, [1 or 3, T], and the next one."""
    if place_tokens is None or not grids:
        return np.arange(len(ids))[None], len(ids)
    positions, following = place_tokens(ids, grids)
    return positions.numpy(), following
