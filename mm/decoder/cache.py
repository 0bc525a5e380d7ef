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


class StaticCache(KVCache):
    """A cache whose every step has the same shapes and addresses, for a compiled decode step.

    `update` returns all `max_length` slots, and `length` is a tensor on the device, so that
    nothing in a step depends on a number that Python knows. The caller therefore gives positions
    and a mask (slots up to and with `length` for the new token), and sees to it that the tokens
    fit: a device can't raise.

    Args: as `KVCache`.
    """

    def __init__(
        self,
        config: CacheShape,
        batch_size: int,
        max_length: int,
        device: torch.device | str,
        dtype: torch.dtype,
    ) -> None:
        super().__init__(config, batch_size, max_length, device, dtype)
        self.length: Tensor = torch.zeros(1, dtype=torch.long, device=device)  # type: ignore[assignment]

    def update(self, layer_idx: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write a layer's new keys and values `[B, K, T, Dh]`; return `[B, K, max_length, Dh]`."""
        keys, values = self.keys[layer_idx], self.values[layer_idx]
        slots = self.length + torch.arange(k.shape[2], device=self.length.device)
        keys[:, :, slots] = k.to(keys.dtype)
        values[:, :, slots] = v.to(values.dtype)
        return keys, values

    def load(self, cache: KVCache) -> None:
        """Take over what another cache of as many rows has read.

        Raises:
            ValueError: it holds more tokens than fit, or other rows.
        """
        rows = cache.keys[0].shape[0]
        if cache.length > self.max_length or rows != self.keys[0].shape[0]:
            raise ValueError(
                f"{rows} rows of {cache.length} tokens do not fit into a cache of"
                f" {self.keys[0].shape[0]} rows of {self.max_length}: make it larger"
            )
        for ours, theirs in ((self.keys, cache.keys), (self.values, cache.values)):
            for mine, other in zip(ours, theirs, strict=True):
                mine[:, :, : cache.length] = other[:, :, : cache.length]
        self.length.fill_(cache.length)

    def reorder(self, rows: Tensor) -> None:
        """Make the rows those of the given numbers `[B]`, in place: as many as before."""
        for tensor in (*self.keys, *self.values):
            tensor.copy_(tensor[rows])

    def reset(self) -> None:
        """Forget all tokens; the memory is used again."""
        self.length.zero_()
