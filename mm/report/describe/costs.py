"""What a Qwen3 decoder costs by its sizes alone: operations, cache, memory for training.

Everything here is arithmetic on a config. The tests hold it to what PyTorch counts on small models.

T tokens of a training step, S keys a token attends to, D model width, H query heads, K key/value
heads, Dh head width, F feed-forward width, E experts, k experts chosen, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

from mm.decoder.qwen3 import Qwen3Config

BYTES = {"fp32": 4.0, "bf16": 2.0, "8-bit": 1.0, "4-bit": 0.5}  # without the scales of the latter


@dataclass(frozen=True)
class DecoderParameters:
    """Parameters by their task; the head has its own only where it is not tied."""

    embedding: int
    attention: int  # projections and the norms of queries and keys
    feed_forward: int  # of dense layers
    router: int
    experts: int
    norms: int
    head: int
    active: int  # what one token uses, embedding and head included

    @property
    def total(self) -> int:
        """All of them, a tied weight once."""
        tasks = (self.embedding, self.attention, self.feed_forward, self.router, self.experts)
        return sum(tasks) + self.norms + self.head


def count_decoder(config: Qwen3Config) -> DecoderParameters:
    """Count by formula what a decoder of these sizes holds."""
    D, Dh, V = config.hidden_size, config.head_dim, config.vocab_size
    H, K = config.num_attention_heads, config.num_key_value_heads
    layers = config.num_hidden_layers
    sparse = num_sparse_layers(config)
    expert = 3 * D * config.moe_intermediate_size
    idle = config.num_experts - config.num_experts_per_tok
    counted = DecoderParameters(
        embedding=V * D,
        attention=layers * (2 * D * (H + K) * Dh + 2 * Dh),
        feed_forward=(layers - sparse) * 3 * D * config.intermediate_size,
        router=sparse * config.num_experts * D,
        experts=sparse * config.num_experts * expert,
        norms=(2 * layers + 1) * D,
        head=0 if config.tie_word_embeddings else V * D,
        active=0,
    )
    return DecoderParameters(**{**vars(counted), "active": counted.total - sparse * idle * expert})


def num_sparse_layers(config: Qwen3Config) -> int:
    """Count the layers whose feed-forward part is a mixture of experts."""
    return sum(config.is_moe_layer(layer) for layer in range(config.num_hidden_layers))


def longest_context(config: Qwen3Config) -> int:
    """Tokens that the positions reach to, a YaRN scaling included."""
    scaling = config.rope_scaling
    if scaling is None:
        return config.max_position_embeddings
    original = scaling.original_max_position_embeddings or config.max_position_embeddings
    return max(config.max_position_embeddings, int(scaling.factor * original))


def kv_bytes_per_token(config: Qwen3Config, bytes_per_value: float = 2.0) -> int:
    """Bytes of keys and values that one token leaves in the cache, over all layers."""
    values = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    return int(values * bytes_per_value)


def matmul_flops(config: Qwen3Config) -> int:
    """FLOPs of one token in matrix products with weights, head included; forward.

    A multiplication and an addition for each weight that the token meets. Looking the token up in
    the embedding costs nothing; norms, RoPE and activations are not counted (under 1 %).
    """
    counted = count_decoder(config)
    D, layers = config.hidden_size, config.num_hidden_layers
    vectors = counted.norms + 2 * layers * config.head_dim
    looked_up = counted.embedding + counted.head - config.vocab_size * D
    return 2 * (counted.active - vectors - looked_up)


def attention_flops(config: Qwen3Config, num_keys: float) -> int:
    """FLOPs of one token's scores and weighted sums over `num_keys` keys; forward."""
    width = config.num_attention_heads * config.head_dim
    return int(4 * width * num_keys * config.num_hidden_layers)


def decode_read_bytes(
    config: Qwen3Config, batch: int, context: int, bytes_per_weight: float, bytes_per_value: float
) -> float:
    """Bytes that a decoding step for `batch` sequences of `context` tokens has to read.

    Weights once for all sequences, except the embedding's rows that are not looked up and the
    experts that no sequence chose: of E, each takes k at random, so that 1 - (1 - k/E)^batch of
    them are read, which is k/E for one sequence.
    """
    counted = count_decoder(config)
    dense = counted.total - counted.experts - counted.embedding + batch * config.hidden_size
    if config.tie_word_embeddings:
        dense += counted.embedding
    share = 0.0
    if config.num_experts:
        share = 1 - (1 - config.num_experts_per_tok / config.num_experts) ** batch
    weights = (dense + share * counted.experts) * bytes_per_weight
    return weights + batch * context * kv_bytes_per_token(config, bytes_per_value)


def layer_activation_bytes(config: Qwen3Config, layer_idx: int, length: int) -> int:
    """Bytes a token that one layer keeps for the backward pass, not compiled.

    As `scripts/train.py` runs it: float32 weights and residual stream under bfloat16 autocast, and
    attention with a mask in a fused kernel, which keeps its inputs, its output and a number per
    row; that kernel wants keys and values once for each query head. A compiled step keeps less.

    Args:
        length: tokens of a row, which the mask is as wide as.
    """
    D, Dh = config.hidden_size, config.head_dim
    H, K = config.num_attention_heads, config.num_key_value_heads
    norm = 4 * D + 4 + 4 * D  # input, 1 / root mean square, normalised input, all float32
    head_norm = 4 * Dh + 4 + 2 * Dh
    cast = 2 * D  # autocast makes a bfloat16 copy for each matrix that reads the norm's output
    attention = norm + 3 * cast
    attention += (H + K) * head_norm
    attention += H * (4 * 2 * Dh + 4)  # queries, keys, values, output, log of each row's sum
    attention += 2 * length  # the mask as numbers to add
    if not config.is_moe_layer(layer_idx):
        # gate, silu(gate), up, and their product
        return attention + norm + 2 * cast + 4 * 2 * config.intermediate_size
    return attention + norm + _mixture_activation_bytes(config)


def _mixture_activation_bytes(config: Qwen3Config) -> int:
    D, F = config.hidden_size, config.moe_intermediate_size
    E, k = config.num_experts, config.num_experts_per_tok
    # The router's input and probabilities in float32; per choice its index, its place before and
    # after sorting by expert, and its weight in float32 and bfloat16; the weights' sum.
    router = 4 * D + 4 * E + k * (8 + 16 + 4 + 2) + 4
    # Rows sorted by expert, gate and up, silu(gate), product, output.
    return router + k * (2 * D + 4 * 2 * F + 2 * D)


def activation_bytes(config: Qwen3Config, tokens: int, length: int, checkpointing: bool) -> int:
    """Bytes that backward needs, of `tokens` tokens in rows of `length`, from layers and last norm.

    With checkpointing each layer keeps its input alone, and one at a time is computed again.
    """
    layers = [layer_activation_bytes(config, i, length) for i in range(config.num_hidden_layers)]
    kept = sum(layers)
    if checkpointing:
        kept = 4 * config.hidden_size * len(layers) + max(layers)
    last = 10 * config.hidden_size + 4
    return tokens * (kept + last)


def logits_bytes(config: Qwen3Config, tokens: int, chunk: int) -> int:
    """Most bytes that logits, their log-softmax and their gradients take at once.

    bfloat16 logits, and two float32 tensors of that shape, for at most `chunk` tokens at a time.
    """
    return 10 * config.vocab_size * min(tokens, chunk)
