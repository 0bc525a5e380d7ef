"""Which token of a packed row may attend to which: token by token, or by blocks for long rows.

Written down token by token, the mask of a row of 16,384 takes a quarter of a gigabyte, and a kernel
that reads it computes every score. By blocks it takes a few kilobytes, and what no token of a block
may see is left out. Both say the same.

R rows, T tokens of a row, Q blocks of queries, S blocks of keys.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from mm.data.packing import attention_mask

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

BLOCK = 128  # tokens, as FlexAttention's kernels take them
DENSE = 512  # length of rows up to which a GPU is given the plain mask, too


def attention_structure(segment_ids: Tensor, prefix_ids: Tensor) -> Tensor | BlockMask:
    """What a packed row's decoder is given as `attention_mask`: blocks for long rows on a GPU."""
    if segment_ids.is_cuda and segment_ids.shape[1] > DENSE:
        return block_mask(segment_ids, prefix_ids)
    return attention_mask(segment_ids, prefix_ids)


def block_mask(segment_ids: Tensor, prefix_ids: Tensor) -> BlockMask:
    """`mm.data.packing.attention_mask` by blocks; made on the device, which is not waited for.

    Args:
        segment_ids: int64 `[R, T]`, rising along a row but for the padding's zeros at its end. In
            another order the result is right still, but names more blocks.
        prefix_ids: int64 `[R, T]`.
    """
    from torch.nn.attention.flex_attention import BlockMask

    T = segment_ids.shape[1]
    segments, prefixes = segment_ids.int(), prefix_ids.int()

    def may_attend(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        of = segments[row, key]
        seen = (of == segments[row, query]) | (of == prefixes[row, query])
        return seen & (key <= query)

    some, every = _blocks(segments, prefixes)
    number_some, which_some = _listed(some & ~every)
    number_every, which_every = _listed(every)
    return BlockMask.from_kv_blocks(
        number_some, which_some, number_every, which_every, BLOCK, may_attend, (T, T)
    )


def _blocks(segments: Tensor, prefixes: Tensor) -> tuple[Tensor, Tensor]:
    """Blocks that hold something to attend, and those that hold nothing else: bool `[R, Q, S]`."""
    T = segments.shape[1]
    last = torch.iinfo(segments.dtype).max  # padding, so that numbers rise to the end of the row
    of_key = F.pad(torch.where(segments == 0, last, segments), (0, -T % BLOCK), value=last)
    lowest, highest = of_key.unflatten(1, (-1, BLOCK)).aminmax(dim=2)  # [R, S]
    lowest, highest = lowest[:, None], highest[:, None]
    own = torch.where(segments == 0, last, segments)[..., None]  # [R, T, 1]
    prefix = torch.where(prefixes == 0, last, prefixes)[..., None]
    first = torch.arange(0, T, BLOCK, device=segments.device)  # key of a block
    query = torch.arange(T, device=segments.device)[:, None]
    # A block of several segments holds all between the lowest and the highest.
    within = ((lowest <= own) & (own <= highest)) | ((lowest <= prefix) & (prefix <= highest))
    some = within & (first <= query)
    alike = (lowest == highest) & ((lowest == own) | (lowest == prefix))
    every = alike & (first + BLOCK - 1 <= query)
    return (
        F.pad(some, (0, 0, 0, -T % BLOCK)).unflatten(1, (-1, BLOCK)).any(dim=2),
        F.pad(every, (0, 0, 0, -T % BLOCK)).unflatten(1, (-1, BLOCK)).all(dim=2),
    )


def _listed(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """How many blocks of keys each block of queries has `[R, 1, Q]`, and which, those first."""
    number = blocks.sum(dim=-1, dtype=torch.int32)
    which = blocks.int().argsort(dim=-1, descending=True, stable=True).int()
    return number[:, None], which[:, None]
