"""How queries attend to keys: which of PyTorch's kernels runs, and what each needs.

B batch, T new tokens (queries), S keys/values (cached + new), H query heads, K key/value heads,
Dh head width.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

Mask: TypeAlias = "Tensor | BlockMask | None"


def attend_unfused(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Attend as two matrix products with a float32 softmax between them; `[..., T, Dh]`."""
    scores = (q @ k.mT).float() * q.shape[-1] ** -0.5 + bias
    return torch.matmul(scores.softmax(-1).to(v.dtype), v)


def attend(q_BHTDh: Tensor, k_BKSDh: Tensor, v_BKSDh: Tensor, mask: Mask, causal: bool) -> Tensor:
    """Attend with `H / K` query heads to each key/value head; returns `[B, H, T, Dh]`.

    Args:
        mask: bool, broadcastable to `[B, 1, T, S]`, True where a query may attend. A query that
            may attend nothing (padding) gets the mean of the values, never NaN. Or a BlockMask,
            by which only blocks that hold something to attend are computed.
        causal: whether query i sees keys up to i; needs `T == S` and no mask.
    """
    B, H, T, Dh = q_BHTDh.shape
    K = k_BKSDh.shape[1]
    if mask is not None and not isinstance(mask, Tensor):
        return attend_blocks(q_BHTDh, k_BKSDh, v_BKSDh, mask)
    bias = None
    if mask is not None:
        # A finite bias, as -inf makes NaN out of rows that may attend nothing. Half the smallest
        # number, as some kernels scale it by log2(e).
        lowest = torch.finfo(q_BHTDh.dtype).min / 2
        bias = torch.zeros_like(mask, dtype=q_BHTDh.dtype).masked_fill(~mask, lowest)
    if T == 1:
        # The query heads of one key/value head see the same keys: make them one head's queries,
        # and the cache is read once, as it lies.
        folded = q_BHTDh.reshape(B, K, H // K, Dh)
        if bias is not None and q_BHTDh.is_cuda and torch.compiler.is_compiling():
            # The fused kernels that take a mask do not split a long cache among blocks.
            out = attend_unfused(folded, k_BKSDh, v_BKSDh, bias)
        else:
            out = F.scaled_dot_product_attention(folded, k_BKSDh, v_BKSDh, attn_mask=bias)
        return out.reshape(B, H, T, Dh)
    if bias is None:
        return F.scaled_dot_product_attention(
            q_BHTDh, k_BKSDh, v_BKSDh, is_causal=causal, enable_gqa=H != K
        )
    # The fused kernels that take a mask have no grouped form, and enable_gqa would fall back to
    # the unfused one.
    k_BHSDh = k_BKSDh.repeat_interleave(H // K, dim=1)
    v_BHSDh = v_BKSDh.repeat_interleave(H // K, dim=1)
    return F.scaled_dot_product_attention(q_BHTDh, k_BHSDh, v_BHSDh, attn_mask=bias)


def attend_blocks(q_BHTDh: Tensor, k_BKSDh: Tensor, v_BKSDh: Tensor, mask: BlockMask) -> Tensor:
    """Attend where a block mask says; time and memory are those of the blocks that it names.

    Ref: "FlexAttention" (arXiv 2412.05496). On a CPU it has no backward pass.
    """
    # Imported here, as it takes long and few need it.
    from torch.nn.attention.flex_attention import flex_attention

    run: Any = flex_attention  # typed as if it gave its statistics too
    if q_BHTDh.is_cuda and not torch.compiler.is_compiling():
        run = _compiled_flex()
    grouped = q_BHTDh.shape[1] != k_BKSDh.shape[1]
    return run(q_BHTDh, k_BKSDh, v_BKSDh, block_mask=mask, enable_gqa=grouped)  # type: ignore[no-any-return]


@functools.cache
def _compiled_flex() -> Any:
    """FlexAttention as a kernel: as it comes, it writes down every score."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)
