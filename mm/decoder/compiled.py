"""A decode step whose shapes never change, compiled, and on a GPU replayed as one CUDA graph.

One token of a small model is some hundred tiny kernels: started one by one from Python they take
ten times as long as they run. Here the readable forward pass of the decoder is compiled over a
`StaticCache`, recorded once, and every further token is one replay.

B rows, S slots of the cache, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mm.decoder.cache import KVCache, StaticCache

if TYPE_CHECKING:
    from mm.decoder.qwen3 import Qwen3ForCausalLM

SMALLEST_CACHE = 256
# For a GPU: matrix times vector becomes a generated kernel, which takes in what stands around it,
# and whose block sizes are searched for.
CUDA_OPTIONS: dict[str, Any] = {"coordinate_descent_tuning": True}


def cache_length(needed: int, limit: int) -> int:
    """Slots to allocate for `needed` tokens: a power of two, so that few sizes are compiled.

    Args:
        needed: tokens of the longest row, its answer included.
        limit: what the decoder reads at most.
    """
    length = SMALLEST_CACHE
    while length < needed:
        length *= 2
    return max(needed, min(length, limit))


class CompiledDecoder:
    """Decodes one token a row and step, for as many rows and slots as it was made for.

    Args:
        decoder: in evaluation mode, on its device.
        batch_size: rows B.
        max_length: slots S of its cache, prompt included.
        backend: of `torch.compile`; tests take one that generates no code.
        options: of the compiler; None is `CUDA_OPTIONS` on a GPU, and its defaults elsewhere.
    """

    def __init__(
        self,
        decoder: Qwen3ForCausalLM,
        batch_size: int,
        max_length: int,
        backend: str = "inductor",
        options: dict[str, Any] | None = None,
    ) -> None:
        weight = decoder.model.embed_tokens.weight
        device = weight.device
        self.cache = StaticCache(decoder.config, batch_size, max_length, device, weight.dtype)
        self.tokens = torch.zeros(batch_size, 1, dtype=torch.long, device=device)
        self.position_ids = torch.zeros(batch_size, 1, dtype=torch.long, device=device)
        self.valid = torch.ones(batch_size, max_length, dtype=torch.bool, device=device)
        self.length = 0  # as the cache's, on the host
        if options is None and device.type == "cuda" and backend == "inductor":
            options = CUDA_OPTIONS
        # Code of its own, as the compiler counts the shapes that one piece of code was compiled
        # for and gives up on too many.
        own = FunctionType(_forward.__code__.replace(), globals())
        forward: Callable[..., Tensor] = torch.compile(
            own,
            fullgraph=True,
            dynamic=False,
            backend=backend,
            options=options,
        )
        self._run: Callable[[], Tensor] = lambda: forward(
            decoder, self.cache, self.tokens, self.position_ids, self.valid
        )
        self._graph: torch.cuda.CUDAGraph | None = None
        self._logits = torch.empty(0)
        self._make_ready()

    @torch.no_grad()
    def _make_ready(self) -> None:
        """Compile a step, and on a GPU record it."""
        if self.tokens.is_cuda:
            with torch.cuda.device(self.tokens.device):
                self._record()
        else:
            self._run()
        self.cache.reset()
        self.position_ids.zero_()

    def _record(self) -> None:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):  # compiles, and lets libraries allocate their workspaces
                self._run()
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._logits = self._run()

    def load(self, cache: KVCache, position_ids: Tensor, valid: Tensor | None) -> None:
        """Take over a prefilled batch.

        Args:
            cache: what the prompts left.
            position_ids: of the next token of each row, `[B, 1]`.
            valid: bool `[B, S' <= S]`, False at padding; None without padding.

        Raises:
            ValueError: the cache does not fit.
        """
        self.cache.load(cache)
        self.length = cache.length
        self.position_ids.copy_(position_ids)
        self.valid.fill_(True)
        if valid is not None:
            self.valid[:, : valid.shape[1]] = valid[:, : self.valid.shape[1]]

    @torch.no_grad()
    def step(self, tokens: Tensor) -> Tensor:
        """Read one new token a row `[B]`; return its logits `[B, V]`, valid until the next step.

        Raises:
            ValueError: the cache is full.
        """
        if self.length >= self.cache.max_length:
            raise ValueError(
                f"the cache holds {self.cache.max_length} tokens and is full: make the decoder"
                " with a larger max_length"
            )
        self.length += 1
        self.tokens.copy_(tokens[:, None])
        if self._graph is None:
            return self._run()
        with torch.cuda.device(self.tokens.device):
            self._graph.replay()
        return self._logits


def addresses(decoder: Qwen3ForCausalLM) -> list[int]:
    """Where the weights lie; a recorded graph reads them there."""
    return [parameter.data_ptr() for parameter in decoder.parameters()]


def _forward(
    decoder: Qwen3ForCausalLM,
    cache: StaticCache,
    tokens: Tensor,
    position_ids: Tensor,
    valid: Tensor,
) -> Tensor:
    """Map tokens `[B, 1]` to logits `[B, V]`; the cache and the positions move on by one."""
    slots = torch.arange(valid.shape[1], device=valid.device)
    mask = valid & (slots <= cache.length)
    hidden = decoder.hidden(
        tokens, position_ids=position_ids, attention_mask=mask[:, None, None], cache=cache
    )
    position_ids.add_(1)
    return decoder.logits(hidden[:, -1])
