"""Qwen3, dense: a decoder of grouped-query attention with query/key norms, RoPE and SwiGLU.

Ref: "Qwen3 Technical Report" (arXiv 2505.09388), section 2; module names, the order of casts in
RMSNorm and every number follow the published checkpoints as transformers' `modeling_qwen3` runs
them. Left out: mixture of experts, YaRN, sliding windows and attention biases, which the published
dense configs do not use.

B batch, T new tokens (queries), S keys/values (cached + new), D model width, H query heads,
K key/value heads, Dh head width, F feed-forward width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mm.decoder.cache import KVCache


@dataclass(frozen=True)
class RopeScaling:
    """YaRN: RoPE for contexts longer than the model was trained on.

    Args:
        factor: how many times longer.
        original_max_position_embeddings: trained length; None is `max_position_embeddings`.
        attention_factor: multiplies cosines and sines; None is `0.1 ln(factor) + 1`.
        beta_fast: pairs that turn at least this often within the trained length stay as they are.
        beta_slow: pairs that turn at most this often are stretched by `factor`.
        truncate: whether the bounds between the two are widened to whole pairs.

    Ref: "YaRN: Efficient Context Window Extension" (arXiv 2309.00071), sections 3.2 to 3.4.
    """

    rope_type: Literal["yarn"]
    factor: float
    original_max_position_embeddings: int | None = None
    attention_factor: float | None = None
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True

    def __post_init__(self) -> None:
        if self.rope_type != "yarn":
            raise ValueError(f"rope_type is {self.rope_type!r}; only 'yarn' is known")
        if not self.factor >= 1:
            raise ValueError(f"factor of rope_scaling is {self.factor}; it must be at least 1")
        for name in ("original_max_position_embeddings", "attention_factor"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} of rope_scaling is {value}; it must be positive")
        if not self.beta_fast >= self.beta_slow > 0:
            raise ValueError(
                f"rope_scaling has beta_fast {self.beta_fast} and beta_slow {self.beta_slow};"
                " they must be positive, the first not below the second"
            )


@dataclass(frozen=True)
class Qwen3Config:
    """Sizes of a Qwen3 decoder, named as in the published `config.json`.

    The fields from `num_experts` on are those of a mixture of experts; `num_experts` 0 is a dense
    model, which has none.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int = 128
    rms_norm_eps: float = 1e-6
    rope_theta: float = 1e6
    max_position_embeddings: int = 40960
    tie_word_embeddings: bool = True
    initializer_range: float = 0.02
    rope_scaling: RopeScaling | None = None
    num_experts: int = 0
    num_experts_per_tok: int = 8
    moe_intermediate_size: int = 0
    norm_topk_prob: bool = False
    decoder_sparse_step: int = 1
    mlp_only_layers: tuple[int, ...] = ()
    router_aux_loss_coef: float = 0.001

    def __post_init__(self) -> None:
        mixture = ("num_experts_per_tok", "moe_intermediate_size", "decoder_sparse_step")
        for name in (
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "num_key_value_heads",
            "head_dim",
            "max_position_embeddings",
            *(mixture if self.num_experts > 0 else ()),
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads {self.num_attention_heads} is no multiple of"
                f" num_key_value_heads {self.num_key_value_heads}: each key/value head serves"
                " equally many query heads"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim is {self.head_dim}; RoPE turns pairs, so it must be even")
        if self.num_experts < 0:
            raise ValueError(f"num_experts is {self.num_experts}; it must be 0 (dense) or more")
        if 0 < self.num_experts < self.num_experts_per_tok:
            raise ValueError(
                f"num_experts_per_tok {self.num_experts_per_tok} is more than num_experts"
                f" {self.num_experts}"
            )
        for layer_idx in self.mlp_only_layers:
            if not 0 <= layer_idx < self.num_hidden_layers:
                raise ValueError(
                    f"mlp_only_layers names layer {layer_idx}; the layers are 0 to"
                    f" {self.num_hidden_layers - 1}"
                )

    def is_moe_layer(self, layer_idx: int) -> bool:
        """Say whether a layer's feed-forward part is a mixture of experts, not one MLP."""
        return (
            self.num_experts > 0
            and layer_idx not in self.mlp_only_layers
            and (layer_idx + 1) % self.decoder_sparse_step == 0
        )


def rope_frequencies(config: Qwen3Config) -> Tensor:
    """Return the angle per position of each pair of dimensions, float32 `[Dh / 2]`, on the CPU."""
    # On the CPU by name, so that a model made on the meta device has real values, and so that
    # every device turns by the same angles.
    exponent = torch.arange(0, config.head_dim, 2, dtype=torch.float32, device="cpu")
    frequencies: Tensor = 1.0 / config.rope_theta ** (exponent / config.head_dim)
    return frequencies


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs (i, i + Dh/2) of `x` `[B, T, heads, Dh]` by the angles `[B, T, 1, Dh / 2]`."""
    x1, x2 = x.chunk(2, dim=-1)
    return torch.cat((x1 * cos - x2 * sin, x2 * cos + x1 * sin), dim=-1)


def attend(
    q_BHTDh: Tensor, k_BKSDh: Tensor, v_BKSDh: Tensor, mask: Tensor | None, causal: bool
) -> Tensor:
    """Attend with `H / K` query heads to each key/value head; returns `[B, H, T, Dh]`.

    Args:
        mask: bool, broadcastable to `[B, 1, T, S]`, True where a query may attend. A query that
            may attend nothing (padding) gets the mean of the values, never NaN.
        causal: whether query i sees keys up to i; needs `T == S` and no mask.
    """
    B, H, T, Dh = q_BHTDh.shape
    K = k_BKSDh.shape[1]
    bias = None
    if mask is not None:
        # A finite bias, as -inf makes NaN out of rows that may attend nothing. Half the smallest
        # number, as some kernels scale it by log2(e).
        lowest = torch.finfo(q_BHTDh.dtype).min / 2
        bias = torch.zeros_like(mask, dtype=q_BHTDh.dtype).masked_fill(~mask, lowest)
    if T == 1:
        # The query heads of one key/value head see the same keys: make them one head's queries,
        # and the cache is read once, as it lies.
        folded = F.scaled_dot_product_attention(
            q_BHTDh.reshape(B, K, H // K, Dh), k_BKSDh, v_BKSDh, attn_mask=bias
        )
        return folded.reshape(B, H, T, Dh)
    if bias is None:
        return F.scaled_dot_product_attention(
            q_BHTDh, k_BKSDh, v_BKSDh, is_causal=causal, enable_gqa=H != K
        )
    # The fused kernels that take a mask have no grouped form, and enable_gqa would fall back to
    # the unfused one.
    k_BHSDh = k_BKSDh.repeat_interleave(H // K, dim=1)
    v_BHSDh = v_BKSDh.repeat_interleave(H // K, dim=1)
    return F.scaled_dot_product_attention(q_BHTDh, k_BHSDh, v_BHSDh, attn_mask=bias)


class RMSNorm(nn.Module):
    """Scale to unit mean square: float32 statistics, cast back, then times the weight.

    The order matters in bfloat16: `torch.nn.RMSNorm` multiplies before it casts, and a quarter of
    its outputs differ from the published models' by one unit in the last place.
    """

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)


class RotaryEmbedding(nn.Module):
    """Cosines and sines of each position's angles, computed in float32 in every model."""

    inv_freq: Tensor

    def __init__(self, config: Qwen3Config) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("inv_freq", rope_frequencies(config), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> RotaryEmbedding:
        # `.to(bfloat16)` would round the frequencies (0.1 on logits far out), and `.to_empty`
        # would leave them undefined: move, then set again.
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.inv_freq = rope_frequencies(self.config).to(self.inv_freq.device)
        return self

    def forward(self, position_ids: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Map positions `[B, T]` to cosines and sines `[B, T, 1, Dh / 2]` of `dtype`."""
        inv_freq = self.inv_freq.to(position_ids.device)
        angles = position_ids[..., None, None].float() * inv_freq
        return angles.cos().to(dtype), angles.sin().to(dtype)


class Attention(nn.Module):
    def __init__(self, config: Qwen3Config, layer_idx: int) -> None:
        super().__init__()
        D, Dh = config.hidden_size, config.head_dim
        self.layer_idx = layer_idx
        self.head_dim = Dh
        self.q_proj = nn.Linear(D, config.num_attention_heads * Dh, bias=False)
        self.k_proj = nn.Linear(D, config.num_key_value_heads * Dh, bias=False)
        self.v_proj = nn.Linear(D, config.num_key_value_heads * Dh, bias=False)
        self.o_proj = nn.Linear(config.num_attention_heads * Dh, D, bias=False)
        self.q_norm = RMSNorm(Dh, config.rms_norm_eps)
        self.k_norm = RMSNorm(Dh, config.rms_norm_eps)

    def forward(
        self,
        x: Tensor,
        rope: tuple[Tensor, Tensor],
        mask: Tensor | None,
        causal: bool,
        cache: KVCache | None,
    ) -> Tensor:
        heads = (-1, self.head_dim)
        q_BTHDh = apply_rope(self.q_norm(self.q_proj(x).unflatten(-1, heads)), *rope)
        k_BTKDh = apply_rope(self.k_norm(self.k_proj(x).unflatten(-1, heads)), *rope)
        v_BKTDh = self.v_proj(x).unflatten(-1, heads).transpose(1, 2)
        # Under autocast the norms give float32; attention runs in the projections' dtype.
        q_BHTDh = q_BTHDh.transpose(1, 2).to(v_BKTDh.dtype)
        k_BKTDh = k_BTKDh.transpose(1, 2).to(v_BKTDh.dtype)
        k_BKSDh, v_BKSDh = k_BKTDh, v_BKTDh
        if cache is not None:
            k_BKSDh, v_BKSDh = cache.update(self.layer_idx, k_BKTDh, v_BKTDh)
            k_BKSDh, v_BKSDh = k_BKSDh.to(q_BHTDh.dtype), v_BKSDh.to(q_BHTDh.dtype)
        out_BHTDh = attend(q_BHTDh, k_BKSDh, v_BKSDh, mask, causal)
        return self.o_proj(out_BHTDh.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class SwiGLU(nn.Module):
    def __init__(self, config: Qwen3Config) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))  # type: ignore[no-any-return]


class DecoderLayer(nn.Module):
    def __init__(self, config: Qwen3Config, layer_idx: int) -> None:
        super().__init__()
        self.self_attn = Attention(config, layer_idx)
        self.mlp = SwiGLU(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self,
        x: Tensor,
        rope: tuple[Tensor, Tensor],
        mask: Tensor | None,
        causal: bool,
        cache: KVCache | None,
    ) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), rope, mask, causal, cache)
        return x + self.mlp(self.post_attention_layernorm(x))  # type: ignore[no-any-return]


class Qwen3Model(nn.Module):
    """The decoder without its head."""

    def __init__(self, config: Qwen3Config) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            DecoderLayer(config, index) for index in range(config.num_hidden_layers)
        )
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.rotary_emb = RotaryEmbedding(config)

    def forward(
        self,
        input_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        position_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """Return the hidden states after the final norm, `[B, T, D]`.

        Args:
            input_ids: token ids `[B, T]`; or give `inputs_embeds`.
            inputs_embeds: embedded tokens `[B, T, D]`.
            position_ids: `[B, T]` or `[1, T]`; by default the cache's length, counted on.
            attention_mask: None for causal; or bool `[B, 1, T, S]`, True where a query may
                attend, used as it is (a causal model's mask has to be causal itself).
            cache: read and then advanced by T tokens.

        Raises:
            ValueError: not exactly one of `input_ids` and `inputs_embeds` is given.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        x = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        T = x.shape[1]
        start = 0 if cache is None else cache.length
        if position_ids is None:
            position_ids = torch.arange(start, start + T, device=x.device)[None]
        if attention_mask is None and start > 0 and T > 1:
            keys = torch.arange(start + T, device=x.device)
            attention_mask = (keys <= keys[start:, None])[None, None]
        causal = attention_mask is None and T > 1
        rope = self.rotary_emb(position_ids, x.dtype)
        for layer in self.layers:
            x = layer(x, rope, attention_mask, causal, cache)
        if cache is not None:
            cache.advance(T)
        return self.norm(x)  # type: ignore[no-any-return]


class Qwen3ForCausalLM(nn.Module):
    """Qwen3 with its head, which is separate so that only the rows that need logits pay for it."""

    def __init__(self, config: Qwen3Config) -> None:
        super().__init__()
        self.config = config
        self.model = Qwen3Model(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.tie_weights()

    def tie_weights(self) -> None:
        """Make the head use the embedding's weight, if the config ties them.

        Called again by whoever replaces parameters, as a loader does.
        """
        if self.config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator) -> None:
        """Draw all matrices from N(0, initializer_range), in a fixed order; norms become 1."""
        for name, parameter in self.named_parameters():
            if name.endswith("norm.weight"):
                parameter.fill_(1.0)
            else:
                drawn = torch.empty(parameter.shape, device=generator.device)
                drawn.normal_(0.0, self.config.initializer_range, generator=generator)
                parameter.copy_(drawn)

    def hidden(
        self,
        input_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        position_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """Return hidden states `[B, T, D]`; arguments as `Qwen3Model.forward`."""
        return self.model(input_ids, inputs_embeds, position_ids, attention_mask, cache)  # type: ignore[no-any-return]

    def logits(self, hidden_states: Tensor) -> Tensor:
        """Map hidden states `[..., D]` to next-token logits `[..., V]`, in the model's dtype."""
        return self.lm_head(hidden_states)  # type: ignore[no-any-return]

    def forward(self, input_ids: Tensor) -> Tensor:
        """Map token ids `[B, T]` to logits `[B, T, V]`."""
        return self.logits(self.hidden(input_ids))


Config = Qwen3Config
Decoder = Qwen3ForCausalLM
