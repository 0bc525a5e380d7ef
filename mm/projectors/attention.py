"""Attention of learnt queries to image tokens, which several projectors share.

B pictures, T queries, S image tokens, H heads, Dh head width.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def attend(query: Tensor, key: Tensor, value: Tensor, num_heads: int) -> Tensor:
    """Let projected queries `[B, T, D]` read projected keys and values `[B, S, D]`: `[B, T, D]`."""
    q_BHTDh, k_BHSDh, v_BHSDh = (
        x.unflatten(-1, (num_heads, -1)).transpose(1, 2) for x in (query, key, value)
    )
    out_BHTDh = F.scaled_dot_product_attention(q_BHTDh, k_BHSDh, v_BHSDh)
    return out_BHTDh.transpose(1, 2).flatten(2)
