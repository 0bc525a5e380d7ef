"""Keys and values of the tokens read so far, so that each is computed once.

B batch, T new tokens, S cached + new, K key/value heads, Dh head width.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class CacheShape(Protocol):
    """The config fields that a cache needs."""

    @property
    def num_hidden_layers(self) -> int: ...
    @property
    def num_key_value_heads(self) -> int: ...
    @property
    def head_dim(self) -> int: ...


class KVCache:
    """A preallocated cache; the decoder writes to it and advances it.

    Every layer writes its new keys and values at `length` during a forward pass, and the model
    calls `advance` once at the pass's end. The caller only makes the cache and passes it in.

    Args:
        config: the decoder's config.
        batch_size: rows.
        max_length: tokens a row can hold, prompt included.
        device: where to allocate.
        dtype: the decoder's dtype.
    """

    def __init__(
        self,
        config: CacheShape,
        batch_size: int,
        max_length: int,
        device: torch.device | str,
        dtype: torch.dtype,
    ) -> None:
        shape = (batch_size, config.num_key_value_heads, max_length, config.head_dim)
        layers = range(config.num_hidden_layers)
        self.keys = [torch.zeros(shape, device=device, dtype=dtype) for _ in layers]
        self.values = [torch.zeros(shape, device=device, dtype=dtype) for _ in layers]
        self.max_length = max_length
        self.length = 0

    def update(self, layer_idx: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write a layer's new keys and values `[B, K, T, Dh]` and return all, `[B, K, S, Dh]`.

        Raises:
            ValueError: the new tokens do not fit, which would overwrite or drop some silently.
        """
        end = self.length + k.shape[2]
        if end > self.max_length:
            raise ValueError(
                f"the cache holds {self.max_length} tokens and has {self.length};"
                f" {k.shape[2]} more do not fit: make it with max_length >= {end}"
            )
        keys, values = self.keys[layer_idx], self.values[layer_idx]
        keys[:, :, self.length : end] = k
        values[:, :, self.length : end] = v
        return keys[:, :, :end], values[:, :, :end]

    def advance(self, num_tokens: int) -> None:
        """Count `num_tokens` as read, once all layers have written them."""
        self.length += num_tokens

    def reorder(self, rows: Tensor) -> None:
        """Make the rows those of the given numbers `[B']`: to drop, repeat or sort sequences."""
        for cached in (self.keys, self.values):
            for layer, tensor in enumerate(cached):
                cached[layer] = tensor[rows]

    def reset(self) -> None:
        """Forget all tokens; the memory is used again."""
        self.length = 0
