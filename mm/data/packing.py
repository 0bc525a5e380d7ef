"""Conversations about pictures packed into rows of fixed length, without padding waste or leaks.

A picture's conversation is a *prefix* (the opening of the turn and the picture's tokens) and one or
more *items* (a question and its answer). Items of one picture do not see each other: each attends
to the prefix and to itself, at the positions it would have alone. So a picture is encoded once,
whatever is asked about it, and a packed row computes exactly what separate rows would:

    row      prefix A | item A1 | item A2 | prefix B | item B1 | padding
    segment      1         2         3          4         5         0
    sees         1        1,2       1,3         4        4,5        0
    position  0 .. p    p+1 ..    p+1 ..     0 .. q     q+1 ..      0

R rows, T tokens of a row, L labelled tokens of the batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields

import numpy as np
import torch
from torch import Tensor

Item = tuple[list[int], list[bool]]  # token ids, and which of them are to be learned


@dataclass(frozen=True)
class Encoded:
    """One picture's conversation as tokens; `picture` is the caller's name for the picture."""

    picture: int
    prefix: list[int]
    items: Sequence[Item]


@dataclass
class Row:
    """Conversations that share a row."""

    parts: list[Encoded] = field(default_factory=list)
    length: int = 0


@dataclass
class PackedBatch:
    """Packed rows as tensors.

    Attributes:
        input_ids: int64 [R, T].
        position_ids: int64 [R, T].
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

    pictures: int = 0
    items: int = 0
    repeated_prefixes: int = 0  # a picture whose items went to more than one row
    too_long: int = 0  # items that no row could hold, left out


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


def pack(
    conversations: Iterable[Encoded],
    row_length: int,
    *,
    images_per_row: int,
    lookahead: int = 8,
    counts: PackingCounts | None = None,
) -> Iterator[Row]:
    """Pack conversations into rows, in order, keeping `lookahead` rows open (first fit).

    Nothing is cut: an item that does not fit into a row goes to another one, with its picture.
    An item that no row can hold is left out and counted.
    """
    counts = PackingCounts() if counts is None else counts
    open_rows: list[Row] = []
    for conversation in conversations:
        counts.pictures += 1
        room = row_length - len(conversation.prefix)
        waiting = [item for item in conversation.items if len(item[0]) <= room]
        counts.too_long += len(conversation.items) - len(waiting)
        counts.items += len(waiting)
        first = True
        while waiting:
            row = _first_fit(open_rows, conversation.prefix, waiting, row_length, images_per_row)
            if row is None:
                row = Row()
                open_rows.append(row)
            waiting = place(
                row, Encoded(conversation.picture, conversation.prefix, waiting), row_length
            )
            counts.repeated_prefixes += not first
            first = False
            if len(open_rows) > lookahead:
                fullest = max(open_rows, key=lambda r: r.length)
                open_rows.remove(fullest)
                yield fullest
    yield from open_rows


def place(row: Row, conversation: Encoded, row_length: int) -> list[Item]:
    """Put a conversation into a row, each item that fits; return the items that did not."""
    length = row.length + len(conversation.prefix)
    taken: list[Item] = []
    left: list[Item] = []
    for item in conversation.items:
        if length + len(item[0]) <= row_length:
            taken.append(item)
            length += len(item[0])
        else:
            left.append(item)
    if taken:
        row.parts.append(Encoded(conversation.picture, conversation.prefix, taken))
        row.length = length
    return left


def _first_fit(
    rows: Sequence[Row], prefix: list[int], items: Sequence[Item], row_length: int, images: int
) -> Row | None:
    shortest = len(prefix) + min(len(item[0]) for item in items)
    for row in rows:
        if len(row.parts) < images and row.length + shortest <= row_length:
            return row
    return None


def collate(rows: Sequence[Row], row_length: int, pad_id: int) -> PackedBatch:
    """Lay rows out as tensors."""
    shape = (len(rows), row_length)
    input_ids = np.full(shape, pad_id, np.int64)
    position_ids = np.zeros(shape, np.int64)
    segment_ids = np.zeros(shape, np.int64)
    prefix_ids = np.zeros(shape, np.int64)
    label_positions: list[int] = []
    label_ids: list[int] = []
    for r, row in enumerate(rows):
        at, segment = 0, 0
        for part in row.parts:
            segment += 1
            prefix_segment, start = segment, len(part.prefix)
            end = at + start
            input_ids[r, at:end] = part.prefix
            position_ids[r, at:end] = np.arange(start)
            segment_ids[r, at:end] = prefix_ids[r, at:end] = segment
            last_of_prefix, at = end - 1, end
            for ids, learned in part.items:
                segment += 1
                end = at + len(ids)
                input_ids[r, at:end] = ids
                position_ids[r, at:end] = np.arange(start, start + len(ids))
                segment_ids[r, at:end] = segment
                prefix_ids[r, at:end] = prefix_segment
                for i, is_learned in enumerate(learned):
                    if is_learned:
                        # The first token of an item is predicted from the end of its prefix.
                        before = at + i - 1 if i else last_of_prefix
                        label_positions.append(r * row_length + before)
                        label_ids.append(ids[i])
                at = end
    return PackedBatch(
        torch.from_numpy(input_ids),
        torch.from_numpy(position_ids),
        torch.from_numpy(segment_ids),
        torch.from_numpy(prefix_ids),
        torch.tensor(label_positions, dtype=torch.int64),
        torch.tensor(label_ids, dtype=torch.int64),
    )
