"""Attention over views that lie one after the other in one row, each for itself.

N patches of all views together, H heads, Dh head width, D = H * Dh.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Packed:
    """How the patches of a row fall into views; made once for all layers.

    Args:
        lengths: how many patches each view has.
        offsets: where each begins, and where the last ends, as int32 on the GPU; None elsewhere.
    """

    lengths: tuple[int, ...]
    offsets: Tensor | None = None

    @classmethod
    def of(cls, grids: Sequence[tuple[int, int]], device: torch.device) -> Packed:
        """Describe views of these grids."""
        lengths = tuple(rows * columns for rows, columns in grids)
        if device.type != "cuda" or len(set(lengths)) == 1:
            return cls(lengths)
        if not torch.compiler.is_compiling() and torch.cuda.get_device_capability(device) < (8, 0):
            return cls(lengths)  # too old for the kernel
        ends = torch.tensor((0, *lengths), dtype=torch.int32).cumsum(0, dtype=torch.int32)
        return cls(lengths, ends.to(device, non_blocking=True))


def attend_packed(q_HNDh: Tensor, k_HNDh: Tensor, v_HNDh: Tensor, packed: Packed) -> Tensor:
    """Every patch attends to all patches of its view; heads are joined again: `[N, D]`.

    No mask and no padding: views of one length are a batch; of several lengths, one kernel for
    all where there is one (half precision on a GPU), or one view after the other.
    """
    if len(set(packed.lengths)) == 1:
        q, k, v = (
            x_HNDh.unflatten(1, (len(packed.lengths), -1)).transpose(0, 1)
            for x_HNDh in (q_HNDh, k_HNDh, v_HNDh)
        )
        out_VHnDh = F.scaled_dot_product_attention(q, k, v)
        return out_VHnDh.transpose(1, 2).flatten(2).flatten(0, 1)
    if packed.offsets is not None and _has_kernel(q_HNDh):
        from torch.nn.attention.varlen import varlen_attn

        ends, longest = packed.offsets, max(packed.lengths)
        # The kernels read rows of H * Dh numbers, which most callers' tensors are.
        q, k, v = (x_HNDh.transpose(0, 1).contiguous() for x_HNDh in (q_HNDh, k_HNDh, v_HNDh))
        found = varlen_attn(q, k, v, ends, ends, longest, longest)
        return found.flatten(1)  # type: ignore[union-attr]
    each = zip(
        *(x_HNDh.split(packed.lengths, 1) for x_HNDh in (q_HNDh, k_HNDh, v_HNDh)), strict=True
    )
    outs = [F.scaled_dot_product_attention(q[None], k[None], v[None])[0] for q, k, v in each]
    return torch.cat(outs, 1).transpose(0, 1).flatten(1)


def _has_kernel(q_HNDh: Tensor) -> bool:
    half = q_HNDh.dtype in (torch.bfloat16, torch.float16)
    return half and q_HNDh.shape[-1] % 8 == 0 and q_HNDh.shape[-1] <= 256
