"""A fused decode step for one sequence on one GPU: five Triton kernels a layer in one CUDA graph.

`mm.decoder.qwen3` stays the reference: this runs the same sums over the same weights, in place,
for the one case in which a decoder written in plain operations leaves most of the memory bandwidth
unused. The embedding, the likeliest token and the count of positions are in the graph too, so that
greedy decoding needs the host only to start the steps. `docs/fused-decode.md` says how it is
built and tuned; the kernels are in `mm.decoder.fused_kernels`.

D model width, H query heads, K key/value heads, Dh head width, F feed-forward width, V vocabulary.
"""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from mm.decoder.cache import KVCache
from mm.decoder.qwen3 import Qwen3ForCausalLM

KERNELS = ("qkv", "attend", "output", "gate_up", "down", "head", "finish")


@dataclass(frozen=True)
class Shape:
    """How a kernel is cut: rows of the matrix (or keys) a program takes, and its warps."""

    rows: int
    num_warps: int


@dataclass(frozen=True)
class Tuning:
    """How each kernel is cut; numbers change the speed and the order of sums, nothing else.

    Args:
        attend: `rows` is the number of keys in a block.
        splits: programs that share one query head's keys.
        head_programs: programs of the head's kernel for each multiprocessor.
        steps_per_graph: steps that `greedy` has recorded in one graph.
        overlap: whether kernels start before the one before them ends (compute capability 9.0).
    """

    qkv: Shape
    output: Shape
    gate_up: Shape
    down: Shape
    head: Shape = field(default_factory=lambda: Shape(8, 4))
    attend: Shape = field(default_factory=lambda: Shape(64, 8))
    splits: int = 8
    head_programs: int = 6
    steps_per_graph: int = 8
    overlap: bool = True


def default_tuning(decoder: Qwen3ForCausalLM) -> Tuning:
    """Cut each matrix into programs of 16 to 32 KiB, at least 256 of them where there are rows."""
    config = decoder.config
    D, F, Dh = config.hidden_size, config.intermediate_size, config.head_dim
    H, K = config.num_attention_heads, config.num_key_value_heads

    def cut(num_rows: int, columns: int, matrices: int = 1) -> Shape:
        rows = 8
        while rows > 1 and (rows * columns * matrices > 2**14 or num_rows // rows < 256):
            rows //= 2
        return Shape(rows, 4 if rows * columns * matrices <= 2**13 else 8)

    return Tuning(
        qkv=cut((H + 2 * K) * Dh, D),
        output=cut(D, H * Dh),
        gate_up=cut(F, D, matrices=2),
        down=cut(D, F),
        head=Shape(max(1, min(8, 2**13 // _power_of_2(D))), 4),
    )


def unavailable_reason(
    decoder: Qwen3ForCausalLM, batch_size: int = 1, device: torch.device | str | None = None
) -> str | None:
    """Say in one line why the fused path can't be used; None if it can.

    Args:
        device: where decoding is to run; by default where the weights are.
    """
    weight = decoder.model.embed_tokens.weight
    device = torch.device(device) if device is not None else weight.device
    if batch_size != 1:
        return f"it decodes one sequence, and the batch has {batch_size}"
    if device.type != "cuda":
        return f"it needs a CUDA device, and the device is {device.type}"
    if weight.device.type != "cuda":
        return f"it needs a CUDA device, and the weights are on {weight.device.type}"
    if importlib.util.find_spec("triton") is None:
        return "it needs Triton: pip install triton"
    if torch.version.hip is not None or torch.cuda.get_device_capability(device) < (8, 0):
        return "it needs an NVIDIA GPU of compute capability 8.0 or more"
    if weight.dtype != torch.bfloat16:
        return f"it needs bfloat16 weights, and they are {str(weight.dtype).removeprefix('torch.')}"
    return unsupported_shape(decoder)


def unsupported_shape(decoder: Qwen3ForCausalLM) -> str | None:
    """Say in one line which size of the decoder the kernels can't take; None if they can."""
    config = decoder.config
    Dh = config.head_dim
    if getattr(config, "num_experts", 0):
        return f"it has no mixture of experts, and num_experts is {config.num_experts}"
    if Dh & (Dh - 1) or not 16 <= Dh <= 256:
        return f"head_dim must be a power of 2 from 16 to 256, and it is {Dh}"
    for name in ("hidden_size", "intermediate_size"):
        if getattr(config, name) % 16:
            return f"{name} must be a multiple of 16, and it is {getattr(config, name)}"
    if config.vocab_size * config.hidden_size >= 2**31:
        return f"the head has 2**31 weights or more ({config.vocab_size} x {config.hidden_size})"
    return None


def is_available(
    decoder: Qwen3ForCausalLM, batch_size: int = 1, device: torch.device | str | None = None
) -> bool:
    """Say whether the fused path can be used; `unavailable_reason` says why not."""
    return unavailable_reason(decoder, batch_size, device) is None


class FusedDecoder:
    """Decode one sequence, a token a step, with a decoder's own weights.

    The decoder's parameters are read where they lie: replacing them (`.to`, loading others by
    assignment) needs a new FusedDecoder, changing them in place does not.

    Args:
        decoder: in bfloat16 on a CUDA device.
        max_length: tokens a sequence can hold, prompt included.
        num_valid_tokens: ids from here on are padding rows of the head; they are never taken as
            the likeliest token. Their logits are computed all the same.
        tuning: by default `default_tuning(decoder)`; see `tune`.
        only: kernels to run, to measure what one costs; the tokens are meaningless otherwise.

    Raises:
        ValueError: a decoder the kernels can't take.
    """

    def __init__(
        self,
        decoder: Qwen3ForCausalLM,
        max_length: int,
        num_valid_tokens: int | None = None,
        tuning: Tuning | None = None,
        only: Collection[str] = KERNELS,
    ) -> None:
        config = decoder.config
        weight = decoder.model.embed_tokens.weight
        device, dtype = weight.device, weight.dtype
        # On the CPU only Triton's interpreter can follow, which is how the kernels are tested.
        reason = (
            unsupported_shape(decoder)
            if device.type == "cpu" and _interpreting()
            else unavailable_reason(decoder)
        )
        if reason is not None:
            raise ValueError(f"this decoder can't be fused: {reason}")
        if max_length < 1:
            raise ValueError(f"max_length is {max_length}; it must be at least 1")
        self.decoder = decoder
        self.max_length = max_length
        self.num_valid_tokens = min(num_valid_tokens or config.vocab_size, config.vocab_size)
        self.tuning = tuning or default_tuning(decoder)
        self.only = frozenset(only)
        self.length = 0
        self._ahead = 0  # the next position less the number of cached tokens

        D, F, V, Dh = (
            config.hidden_size,
            config.intermediate_size,
            config.vocab_size,
            config.head_dim,
        )
        H, K = config.num_attention_heads, config.num_key_value_heads

        def empty(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
            return torch.zeros(shape, device=device, dtype=dtype)

        self.keys = empty(config.num_hidden_layers, K, max_length, Dh)
        self.values = empty(config.num_hidden_layers, K, max_length, Dh)
        self.logits = empty(1, V)
        self._token = empty(1, dtype=torch.int64)
        self._state = empty(2, dtype=torch.int64)
        self._history = empty(max_length, dtype=torch.int64)
        self._x = empty(D)
        self._qkv = empty((H + 2 * K) * Dh)
        self._part = empty(self.tuning.splits, H, Dh, dtype=torch.float32)
        self._lse = empty(self.tuning.splits, H, dtype=torch.float32)
        self._hidden = empty(F)
        self._num_programs = min(
            _multiprocessors(device) * self.tuning.head_programs, -(-V // self.tuning.head.rows)
        )
        self._top = empty(self._num_programs, dtype=torch.float32)
        self._top_id = empty(self._num_programs, dtype=torch.int32)
        with torch.no_grad():
            positions = torch.arange(max_length, device=device)[None]
            cos, sin = decoder.model.rotary_emb(positions, dtype)
            self._cos = cos.reshape(max_length, Dh // 2).contiguous()
            self._sin = sin.reshape(max_length, Dh // 2).contiguous()
        self._compile()
        self._run_one = self._record(1)
        self._run_many = self._record(self.tuning.steps_per_graph)
        self.reset()

    def load(self, cache: KVCache, next_position: int | None = None) -> None:
        """Take over the tokens of a cache of one sequence, as prefill left it.

        Args:
            next_position: the next token's position; by default the number of cached tokens.

        Raises:
            ValueError: the cache is of a batch, or holds more tokens than `max_length`.
        """
        length = int(cache.length)
        if cache.keys[0].shape[0] != 1:
            raise ValueError(f"the cache has {cache.keys[0].shape[0]} rows; the fused path has 1")
        if length > self.max_length:
            raise ValueError(
                f"the cache has {length} tokens; this FusedDecoder holds {self.max_length}:"
                f" make it with max_length >= {length}"
            )
        for layer, (keys, values) in enumerate(zip(cache.keys, cache.values, strict=True)):
            self.keys[layer, :, :length] = keys[0, :, :length]
            self.values[layer, :, :length] = values[0, :, :length]
        self.reset(length, next_position)

    def reset(self, length: int = 0, next_position: int | None = None) -> None:
        """Keep only the first `length` tokens."""
        position = length if next_position is None else next_position
        self._state.copy_(torch.tensor([length, position]))
        self.length = length
        self._ahead = position - length

    def step(self, token: Tensor) -> Tensor:
        """Read a token `[1]` and return the next one's logits `[1, V]`, in the decoder's dtype.

        The tensor returned is the same at every step: copy it to keep it.

        Raises:
            ValueError: the sequence is full.
        """
        self._check_room(1)
        self._token.copy_(token)
        self._run_one()
        self.length += 1
        return self.logits

    def greedy(self, num_tokens: int, token: Tensor | None = None) -> Tensor:
        """Read a token `[1]` and take the likeliest next one, `num_tokens` times: `[num_tokens]`.

        The host waits for nothing, so that the steps run back to back. An id of -1 says that no
        logit was a number.

        Args:
            token: by default the likeliest token after the last step.

        Raises:
            ValueError: the sequence would be longer than `max_length`.
        """
        self._check_room(num_tokens)
        if token is not None:
            self._token.copy_(token)
        start = self.length
        many, single = divmod(num_tokens, self.tuning.steps_per_graph)
        for _ in range(many):
            self._run_many()
        for _ in range(single):
            self._run_one()
        self.length += num_tokens
        return self._history[start : self.length].clone()

    def _check_room(self, num_tokens: int) -> None:
        end = self.length + num_tokens
        if end + max(0, self._ahead) > self.max_length:
            raise ValueError(
                f"the sequence holds {self.max_length} tokens and has {self.length};"
                f" {num_tokens} more do not fit: make it with max_length >= {end}"
            )

    def _compile(self) -> None:
        """Run a step, so that its kernels are compiled before it is recorded."""
        if self._x.device.type == "cuda":
            with torch.cuda.device(self._x.device):
                self._launch()

    def _record(self, num_steps: int) -> Callable[[], None]:
        """Capture steps as a CUDA graph; return what replays it."""

        def launch() -> None:
            for _ in range(num_steps):
                self._launch()

        if self._x.device.type != "cuda":
            return launch
        with torch.cuda.device(self._x.device):
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                launch()
        return graph.replay

    @torch.no_grad()
    def _launch(self) -> None:
        """Start one step's kernels, in order."""
        from mm.decoder import fused_kernels as kernels

        config, tuning = self.decoder.config, self.tuning
        D, F, V, Dh = (
            config.hidden_size,
            config.intermediate_size,
            config.vocab_size,
            config.head_dim,
        )
        H, K = config.num_attention_heads, config.num_key_value_heads
        eps = config.rms_norm_eps
        overlap = tuning.overlap and _overlaps(self._x.device)
        scale_log2 = Dh**-0.5 * math.log2(math.e)
        model = self.decoder.model

        def run(name: str, grid: tuple[int, ...], shape: Shape, *args: Any, **sizes: Any) -> None:
            if name in self.only:
                launch = {"num_warps": shape.num_warps, "launch_pdl": overlap}
                if self._x.device.type != "cuda":
                    launch = {}
                getattr(kernels, f"{name}_kernel")[grid](*args, **sizes, PDL=overlap, **launch)

        for index, layer in enumerate(model.layers):
            attention, mlp = cast(Any, layer).self_attn, cast(Any, layer).mlp
            first = index == 0
            x = model.embed_tokens.weight if first else self._x
            run(
                "qkv", ((H + 2 * K) * Dh // tuning.qkv.rows,), tuning.qkv,
                x, self._token, cast(Any, layer).input_layernorm.weight, attention.q_proj.weight,
                attention.k_proj.weight, attention.v_proj.weight, self._qkv, eps,
                D=D, Q_ROWS=H * Dh, KV_ROWS=K * Dh, ROWS=tuning.qkv.rows,
                CHUNK=_chunk(D, tuning.qkv), EMBED=first,
            )  # fmt: skip
            run(
                "attend", (H, tuning.splits), tuning.attend,
                self._qkv, attention.q_norm.weight, attention.k_norm.weight, self._cos, self._sin,
                self._state, self.keys[index], self.values[index], self._part, self._lse, eps,
                scale_log2, self.max_length, H=H, K=K, Dh=Dh, SPLITS=tuning.splits,
                BLOCK=tuning.attend.rows,
                LANES=min(tuning.attend.rows, 2 * tuning.attend.num_warps),
            )  # fmt: skip
            run(
                "output", (D // tuning.output.rows,), tuning.output,
                self._part, self._lse, self._state, attention.o_proj.weight, x, self._token,
                self._x, D=D, H=H, Dh=Dh, SPLITS=tuning.splits, BLOCK=tuning.attend.rows,
                ROWS=tuning.output.rows, HEADS=max(1, _chunk(H * Dh, tuning.output) // Dh),
                EMBED=first,
            )  # fmt: skip
            run(
                "gate_up", (F // tuning.gate_up.rows,), tuning.gate_up,
                self._x, cast(Any, layer).post_attention_layernorm.weight, mlp.gate_proj.weight,
                mlp.up_proj.weight, self._hidden, eps,
                D=D, ROWS=tuning.gate_up.rows, CHUNK=_chunk(D, tuning.gate_up),
            )  # fmt: skip
            run(
                "down", (D // tuning.down.rows,), tuning.down,
                self._hidden, mlp.down_proj.weight, self._x,
                F=F, ROWS=tuning.down.rows, CHUNK=_chunk(F, tuning.down),
            )  # fmt: skip
        run(
            "head", (self._num_programs,), tuning.head,
            self._x, model.norm.weight, self.decoder.lm_head.weight, self.logits, self._top,
            self._top_id, eps, self.num_valid_tokens,
            V=V, D=D, ROWS=tuning.head.rows, CHUNK=_chunk(D, tuning.head),
        )  # fmt: skip
        run(
            "finish", (1,), Shape(1, 4),
            self._top, self._top_id, self._num_programs, self._token, self._state, self._history,
            PROGRAMS=_power_of_2(self._num_programs),
        )  # fmt: skip


def _power_of_2(number: int) -> int:
    return 1 << (number - 1).bit_length()


def _chunk(columns: int, shape: Shape) -> int:
    """Columns of a tile: 16 bytes of bfloat16 for each thread, or a short row whole."""
    return min(256 * shape.num_warps, _power_of_2(columns))


def _multiprocessors(device: torch.device) -> int:
    if device.type != "cuda":
        return 1
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def _overlaps(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)


def _interpreting() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"
