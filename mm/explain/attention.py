"""Attention weights of a decoder, computed again from what entered its layers.

The model runs as it always does, by whatever kernel: hooks only note each layer's input and what
its heads gave, from which weights and their gradients follow.

B rows, T tokens, S keys, D width, H query heads, K key/value heads, Dh head width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mm.decoder.qwen3 import Attention, Qwen3ForCausalLM, apply_rope


@dataclass
class Attended:
    """What one layer's attention read and gave.

    Args:
        module: the layer's attention.
        x: its input `[B, T, D]`, and `rope`, the cosines and sines of its positions.
        heads: `[B, T, H Dh]`, what its heads gave, before the output projection.
    """

    module: Attention
    x: Tensor
    rope: tuple[Tensor, Tensor]
    heads: Tensor

    @torch.no_grad()
    def weights(self) -> Tensor:
        """Return the weights `[B, H, T, S]` of causal attention, float32; rows sum to 1."""
        one = self.module
        split = (-1, one.head_dim)
        q_BTHDh = apply_rope(one.q_norm(one.q_proj(self.x).unflatten(-1, split)), *self.rope)
        k_BTKDh = apply_rope(one.k_norm(one.k_proj(self.x).unflatten(-1, split)), *self.rope)
        k_BTHDh = _for_queries(k_BTKDh, q_BTHDh.shape[2])
        scores = torch.einsum("bthd,bshd->bhts", q_BTHDh.float(), k_BTHDh.float())
        T = self.x.shape[1]
        ahead = torch.ones(T, T, dtype=torch.bool, device=scores.device).triu(1)
        scores = (scores * one.head_dim**-0.5).masked_fill(ahead, float("-inf"))
        return scores.softmax(-1)  # type: ignore[no-any-return]

    @torch.no_grad()
    def weight_gradients(self, heads_gradient: Tensor) -> Tensor:
        """Return the gradient of the weights, `[B, H, T, S]`, from that of `heads`.

        Heads are weights times values, so a weight's gradient is the value times that of the head.
        """
        one = self.module
        gradient_BTHDh = heads_gradient.float().unflatten(-1, (-1, one.head_dim))
        v_BTKDh = one.v_proj(self.x).float().unflatten(-1, (-1, one.head_dim))
        v_BTHDh = _for_queries(v_BTKDh, gradient_BTHDh.shape[2])
        return torch.einsum("bthd,bshd->bhts", gradient_BTHDh, v_BTHDh)


def _for_queries(keys: Tensor, num_heads: int) -> Tensor:
    """Repeat `[B, T, K, Dh]` so that every query head has its own, `[B, T, H, Dh]`."""
    return keys.repeat_interleave(num_heads // keys.shape[2], dim=2)


@contextmanager
def watched(decoder: Qwen3ForCausalLM) -> Iterator[list[Attended]]:
    """Note in a list what each layer's attention does while the block runs, in order."""
    seen: list[Attended] = []
    inputs: dict[nn.Module, tuple[Tensor, tuple[Tensor, Tensor]]] = {}
    handles = []

    def enter(module: nn.Module, args: tuple[Any, ...]) -> None:
        inputs[module] = args[0], args[1]

    for layer in decoder.model.layers:
        attention: Any = layer.self_attn

        def leave(_: nn.Module, args: tuple[Any, ...], attention: Any = attention) -> None:
            seen.append(Attended(attention, *inputs.pop(attention), args[0]))

        handles.append(attention.register_forward_pre_hook(enter))
        handles.append(attention.o_proj.register_forward_pre_hook(leave))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
