"""Qwen3: a decoder of grouped-query attention with query/key norms, RoPE, and SwiGLU or experts.

Ref: "Qwen3 Technical Report" (arXiv 2505.09388), section 2; module names, the order of casts in
RMSNorm and every number follow the published checkpoints as transformers' `modeling_qwen3` and
`modeling_qwen3_moe` run them. Left out: sliding windows, attention biases and shared experts, which
no published config of this family uses.

B batch, T new tokens (queries), S keys/values (cached + new), D model width, H query heads,
K key/value heads, Dh head width, V vocabulary; N tokens (B * T), E experts, A experts of a token.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mm.decoder.attention import Mask, attend
from mm.decoder.cache import KVCache
from mm.decoder.experts import FAST_PATHS, best_path

Rope = tuple[Tensor, Tensor]  # cosines and sines
ExpertsPath = Literal["auto", "loop", "grouped", "gathered"]


def _check(config: object, rules: Iterable[tuple[str, bool, str]], where: str = "") -> None:
    """Raise ValueError for the first field whose rule does not hold."""
    for name, holds, wanted in rules:
        if not holds:
            raise ValueError(f"{name}{where} is {getattr(config, name)!r}; it must be {wanted}")


@dataclass(frozen=True)
class RopeScaling:
    """YaRN (arXiv 2309.00071, section 3): RoPE for contexts longer than the model was trained on.

    Args:
        factor: how many times longer.
        original_max_position_embeddings: trained length; None is `max_position_embeddings`.
        attention_factor: multiplies cosines and sines; None is `0.1 ln(factor) + 1`.
        beta_fast: pairs that turn at least this often within the trained length stay as they are.
        beta_slow: pairs that turn at most this often are stretched by `factor`.
        truncate: whether the bounds between the two are widened to whole pairs.
    """

    rope_type: Literal["yarn"]
    factor: float
    original_max_position_embeddings: int | None = None
    attention_factor: float | None = None
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True

    def __post_init__(self) -> None:
        length, given = self.original_max_position_embeddings, self.attention_factor
        rules = (
            ("rope_type", self.rope_type == "yarn", "'yarn'"),
            ("factor", self.factor >= 1, "at least 1"),
            ("original_max_position_embeddings", length is None or length > 0, "positive"),
            ("attention_factor", given is None or given > 0, "positive"),
            ("beta_slow", 0 < self.beta_slow <= self.beta_fast, "positive and at most beta_fast"),
        )
        _check(self, rules, " of rope_scaling")

    @property
    def cosine_factor(self) -> float:
        """What cosines and sines are multiplied by, which sharpens attention."""
        return self.attention_factor or 0.1 * math.log(self.factor) + 1.0


@dataclass(frozen=True)
class Qwen3Config:
    """Sizes of a Qwen3 decoder, named as in the published `config.json`."""

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
    mrope_section: tuple[int, int, int] | None = None  # pairs that turn by time, row and column
    num_experts: int = 0  # dense, and the fields below mean nothing
    num_experts_per_tok: int = 8
    moe_intermediate_size: int = 0
    norm_topk_prob: bool = False
    decoder_sparse_step: int = 1
    mlp_only_layers: tuple[int, ...] = ()
    router_aux_loss_coef: float = 0.001

    def __post_init__(self) -> None:
        H, K = self.num_attention_heads, self.num_key_value_heads
        sizes = ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "head_dim"]
        sizes += ["num_attention_heads", "num_key_value_heads", "max_position_embeddings"]
        if self.num_experts > 0:
            sizes += ["num_experts_per_tok", "moe_intermediate_size", "decoder_sparse_step"]
        _check(self, [(name, getattr(self, name) >= 1, "at least 1") for name in sizes])
        few = 0 <= self.num_experts and self.num_experts_per_tok <= (self.num_experts or math.inf)
        known = set(self.mlp_only_layers) <= set(range(self.num_hidden_layers))
        section, pairs = self.mrope_section, self.head_dim // 2
        in_turns = section in (None, tuple(self.rope_axes.count(axis) for axis in range(3)))
        rules = (
            ("num_attention_heads", H % K == 0, f"a multiple of num_key_value_heads {K}"),
            ("head_dim", self.head_dim % 2 == 0, "even, as RoPE turns pairs"),
            ("mrope_section", in_turns, f"shares of the {pairs} pairs that can take turns"),
            ("num_experts", few, "0 (dense) or at least num_experts_per_tok"),
            ("mlp_only_layers", known, f"numbers of layers, 0 to {self.num_hidden_layers - 1}"),
        )
        _check(self, rules)

    @property
    def rope_axes(self) -> list[int]:
        """By which row of M-RoPE's positions each pair turns: 0 1 2 0 1 2 ..., and 0 at the end."""
        _, rows, columns = self.mrope_section or (0, 0, 0)
        ends = (0, 3 * rows, 3 * columns)
        return [i % 3 if i < ends[i % 3] else 0 for i in range(self.head_dim // 2)]

    def is_moe_layer(self, layer_idx: int) -> bool:
        """Say whether a layer's feed-forward part is a mixture of experts, not one MLP."""
        among = self.num_experts > 0 and (layer_idx + 1) % self.decoder_sparse_step == 0
        return among and layer_idx not in self.mlp_only_layers


def rope_frequencies(config: Qwen3Config) -> Tensor:
    """Return the angle per position of each pair of dimensions, float32 `[Dh / 2]`, on the CPU."""
    # On the CPU by name, so that a model made on the meta device has real values, and so that
    # every device turns by the same angles.
    Dh, scaling = config.head_dim, config.rope_scaling
    pairs = torch.arange(Dh // 2, dtype=torch.float32, device="cpu")
    wavelengths = config.rope_theta ** (2 * pairs / Dh)  # positions per radian
    plain: Tensor = 1.0 / wavelengths
    if scaling is None:
        return plain
    trained = scaling.original_max_position_embeddings or config.max_position_embeddings

    def pair_turning(times: float) -> float:  # this often within the trained length
        return Dh * math.log(trained / (times * 2 * math.pi)) / (2 * math.log(config.rope_theta))

    low, high = pair_turning(scaling.beta_fast), pair_turning(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, Dh - 1)
    kept = 1 - ((pairs - low) / max(high - low, 0.001)).clamp(0, 1)
    stretched: Tensor = 1.0 / (scaling.factor * wavelengths)
    return stretched * (1 - kept) + plain * kept


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs (i, i + Dh/2) of `x` `[B, T, heads, Dh]` by the angles `[B, T, 1, Dh / 2]`."""
    x1, x2 = x.chunk(2, dim=-1)
    return torch.cat((x1 * cos - x2 * sin, x2 * cos + x1 * sin), dim=-1)


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
        self.factor = config.rope_scaling.cosine_factor if config.rope_scaling else 1.0
        self.register_buffer("inv_freq", rope_frequencies(config), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> RotaryEmbedding:
        # `.to(bfloat16)` would round the frequencies (0.1 on logits far out), and `.to_empty`
        # would leave them undefined: move, then set again.
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.inv_freq = rope_frequencies(self.config).to(self.inv_freq.device)
        return self

    def forward(self, position_ids: Tensor, dtype: torch.dtype) -> Rope:
        """Map positions `[B, T]` to cosines and sines `[B, T, 1, Dh / 2]` of `dtype`.

        M-RoPE has three positions a token, `[3, B, T]`: time, row and column. Text, whose three are
        equal, turns by them as by one (Qwen3-VL, arXiv 2511.21631, section 2; interleaved).

        Raises:
            ValueError: three positions for a decoder that has no `mrope_section`.
        """
        positions = position_ids[..., None]
        if position_ids.ndim == 3:
            if self.config.mrope_section is None:
                raise ValueError("position_ids have three rows, but mrope_section is not set")
            axes = torch.tensor(self.config.rope_axes, device=position_ids.device)
            positions = position_ids[axes].movedim(0, -1)  # one for each pair
        angles = positions[..., None, :].float() * self.inv_freq.to(position_ids.device)
        return (angles.cos() * self.factor).to(dtype), (angles.sin() * self.factor).to(dtype)


class Attention(nn.Module):
    def __init__(self, config: Qwen3Config, layer_idx: int) -> None:
        super().__init__()
        D, Dh = config.hidden_size, config.head_dim
        H, K = config.num_attention_heads, config.num_key_value_heads
        self.layer_idx, self.head_dim = layer_idx, Dh
        self.q_proj = nn.Linear(D, H * Dh, bias=False)
        self.k_proj = nn.Linear(D, K * Dh, bias=False)
        self.v_proj = nn.Linear(D, K * Dh, bias=False)
        self.o_proj = nn.Linear(H * Dh, D, bias=False)
        self.q_norm = RMSNorm(Dh, config.rms_norm_eps)
        self.k_norm = RMSNorm(Dh, config.rms_norm_eps)

    def forward(
        self, x: Tensor, rope: Rope, mask: Mask, causal: bool, cache: KVCache | None
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


class Experts(nn.Module):
    """E feed-forward networks, of which each token goes through A; one tensor for each projection.

    `path` says how they are computed: `loop` is the reference below, `grouped` and `gathered` are
    the fast forms in `mm.decoder.experts`, and `auto` takes the best of them. All give the same but
    for the order of summation, and all read the weights of chosen experts only.
    """

    def __init__(self, config: Qwen3Config) -> None:
        super().__init__()
        E, D, width = config.num_experts, config.hidden_size, config.moe_intermediate_size
        self.path: ExpertsPath = "auto"
        self.gate_up_proj = nn.Parameter(torch.empty(E, 2 * width, D))  # gate's rows, then up's
        self.down_proj = nn.Parameter(torch.empty(E, D, width))
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=config.initializer_range)

    def forward(self, x_ND: Tensor, chosen_NA: Tensor, weights_NA: Tensor) -> Tensor:
        """Return `[N, D]`, the chosen experts' outputs summed with the weights."""
        device = x_ND.device.type
        if device != "meta" and torch.is_autocast_enabled(device):
            x_ND = x_ND.to(torch.get_autocast_dtype(device))
        weights_NA = weights_NA.to(x_ND.dtype)
        gate_up, down = self.gate_up_proj, self.down_proj
        path = best_path(x_ND, chosen_NA, down) if self.path == "auto" else self.path
        if path in FAST_PATHS:
            return FAST_PATHS[path](x_ND, chosen_NA, weights_NA, gate_up, down)
        out_ND = x_ND.new_zeros(x_ND.shape, dtype=torch.float32)
        for expert in chosen_NA.unique().tolist():
            token, place = (chosen_NA == expert).nonzero(as_tuple=True)
            gate, up = F.linear(x_ND[token], gate_up[expert]).chunk(2, dim=-1)
            part = F.linear(F.silu(gate) * up, down[expert]) * weights_NA[token, place, None]
            out_ND = out_ND.index_add(0, token, part.float())
        return out_ND.to(x_ND.dtype)


class MixtureOfExperts(nn.Module):
    """A router that sends each token through its `num_experts_per_tok` likeliest experts."""

    def __init__(self, config: Qwen3Config) -> None:
        super().__init__()
        self.top_k, self.norm_topk_prob = config.num_experts_per_tok, config.norm_topk_prob
        self.gate = nn.Linear(config.hidden_size, config.num_experts, bias=False)
        self.experts = Experts(config)

    def forward(self, x: Tensor, router_logits: list[Tensor] | None = None) -> Tensor:
        """Map `[B, T, D]` to the same shape; append `[B * T, E]` to `router_logits`."""
        x_ND = x.flatten(0, 1)
        # Not in autocast's dtype: logits rounded to bfloat16 tie at the last place in 6 % of cases.
        with torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False):
            logits_NE = self.gate(x_ND.to(self.gate.weight.dtype))
        if router_logits is not None:
            router_logits.append(logits_NE)
        weights_NA, chosen_NA = logits_NE.softmax(-1, dtype=torch.float32).topk(self.top_k)
        if self.norm_topk_prob:
            weights_NA = weights_NA / weights_NA.sum(-1, keepdim=True)
        out_ND: Tensor = self.experts(x_ND, chosen_NA, weights_NA)
        return out_ND.view_as(x)


def set_experts_path(model: nn.Module, path: ExpertsPath) -> None:
    """Choose how all experts of `model` are computed, see `Experts`; raises ValueError."""
    if path not in get_args(ExpertsPath):
        raise ValueError(
            f"unknown experts path {path!r}; known: {', '.join(get_args(ExpertsPath))}"
        )
    for module in model.modules():
        if isinstance(module, Experts):
            module.path = path


class DecoderLayer(nn.Module):
    def __init__(self, config: Qwen3Config, layer_idx: int) -> None:
        super().__init__()
        self.self_attn = Attention(config, layer_idx)
        self.mlp = MixtureOfExperts(config) if config.is_moe_layer(layer_idx) else SwiGLU(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self,
        x: Tensor,
        rope: Rope,
        mask: Mask,
        causal: bool,
        cache: KVCache | None,
        router_logits: list[Tensor] | None = None,
    ) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), rope, mask, causal, cache)
        more = (router_logits,) if isinstance(self.mlp, MixtureOfExperts) else ()
        return x + self.mlp(self.post_attention_layernorm(x), *more)  # type: ignore[no-any-return]


class Qwen3Model(nn.Module):
    """The decoder without its head."""

    def __init__(self, config: Qwen3Config) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        layers = range(config.num_hidden_layers)
        self.layers = nn.ModuleList(DecoderLayer(config, layer_idx) for layer_idx in layers)
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.rotary_emb = RotaryEmbedding(config)
        self.residual_dtype: torch.dtype | None = None  # under autocast; None: as embeddings are

    def forward(
        self,
        input_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        position_ids: Tensor | None = None,
        attention_mask: Mask = None,
        cache: KVCache | None = None,
        router_logits: list[Tensor] | None = None,
        residuals: Mapping[int, Tensor] | None = None,
    ) -> Tensor:
        """Return the hidden states after the final norm, `[B, T, D]`.

        Args:
            input_ids: token ids `[B, T]`; or give `inputs_embeds` `[B, T, D]`.
            position_ids: `[B, T]` or `[1, T]`, or three rows of them for M-RoPE; by default the
                cache's length, counted on.
            attention_mask: None for causal; or bool `[B, 1, T, S]`, True where a query may
                attend, used as it is (a causal model's mask has to be causal itself); or the same
                by blocks, as FlexAttention takes it.
            cache: read and then advanced by T tokens.
            router_logits: a list to append every sparse layer's `[B * T, E]` to.
            residuals: `[B, T, D]` to add to the output of the layers of these numbers.

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
        if attention_mask is None and T > 1 and start > 0:
            keys = torch.arange(start + T, device=x.device)
            attention_mask = (keys <= keys[start:, None])[None, None]
        causal = attention_mask is None if T > 1 else False  # a plain bool for symbolic T, too
        rope = self.rotary_emb(position_ids, x.dtype)
        if self.residual_dtype is not None and torch.is_autocast_enabled(x.device.type):
            x = x.to(self.residual_dtype)
        for layer_idx, layer in enumerate(self.layers):
            collected: list[Tensor] = []  # a new one, so that all layers compile to one code
            x = layer(x, rope, attention_mask, causal, cache, collected)
            if router_logits is not None:
                router_logits += collected
            if residuals is not None and layer_idx in residuals:
                x = x + residuals[layer_idx].to(x.dtype)
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
        """Make the head use the embedding's weight, if the config ties them; loaders do so too."""
        if self.config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator) -> None:
        """Draw all matrices from N(0, initializer_range), in a fixed order; norms become 1."""
        for name, parameter in self.named_parameters():
            drawn = torch.ones(parameter.shape, device=generator.device)
            if not name.endswith("norm.weight"):
                drawn.normal_(0.0, self.config.initializer_range, generator=generator)
            parameter.copy_(drawn)

    def hidden(self, *args: Any, **kwargs: Any) -> Tensor:  # Any: as Qwen3Model.forward has them
        """Return hidden states `[B, T, D]`; arguments as `Qwen3Model.forward`."""
        return self.model(*args, **kwargs)  # type: ignore[no-any-return]

    def logits(self, hidden_states: Tensor) -> Tensor:
        """Map hidden states `[..., D]` to next-token logits `[..., V]`, in the model's dtype."""
        return self.lm_head(hidden_states)  # type: ignore[no-any-return]

    def forward(self, input_ids: Tensor) -> Tensor:
        """Map token ids `[B, T]` to logits `[B, T, V]`."""
        return self.logits(self.hidden(input_ids))


Config = Qwen3Config
Decoder = Qwen3ForCausalLM
