"""How much a training step asks of the decoder, and what share of the device's peak that makes.

Two counts, both forward and backward (a product's two gradients are each as much work as itself):

- usual: 6 FLOPs a token for every parameter that it meets, embedding and head included, and 12 for
  every layer, head channel and pair of a query and a key that it attends to. So published figures
  are counted (PaLM, arXiv 2204.02311, appendix B), but that they take half a row of keys a token
  where a packed row's documents have fewer.
- done: only what is computed. The head reads labelled tokens alone, and looking a token up in the
  embedding costs nothing.

R rows, T tokens of a row.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mm.data.packing import PackedBatch
from mm.decoder.qwen3 import Qwen3Config

# bf16 with float32 accumulation and no sparsity, as the makers state: first match in the name.
PEAKS = {
    "H100 PCIe": 756e12, "H100": 989e12, "H200": 989e12, "GH200": 989e12, "B200": 2250e12,
    "A100": 312e12, "L40S": 362e12, "L4": 121e12, "A10G": 70e12, "RTX 4090": 165e12,
    "RTX 3090": 71e12, "RTX 5090": 210e12, "MI300X": 1307e12,
}  # fmt: skip


@dataclass(frozen=True)
class Work:
    """What rows hold, padding apart: tokens, pairs of a query and a key, and labels."""

    tokens: int = 0
    pairs: int = 0
    labels: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(
            self.tokens + other.tokens, self.pairs + other.pairs, self.labels + other.labels
        )


def work_of(packed: PackedBatch) -> Work:
    """Count what packed rows hold; on a CPU, before they move."""
    segments, prefixes = packed.segment_ids, packed.prefix_ids
    rows = torch.arange(len(segments))[:, None]
    # Each row's numbers in a range of their own, so that one count does for all rows.
    width = int(segments.max()) + 1
    own, prefix = rows * width + segments, rows * width + prefixes
    lengths = torch.bincount(own.flatten(), minlength=len(segments) * width)
    counted = lengths.view(-1, width)[:, 1:]
    has_prefix = (segments > 0) & (segments != prefixes)
    pairs = (counted * (counted + 1) // 2).sum() + lengths[prefix[has_prefix]].sum()
    return Work(int(counted.sum()), int(pairs), len(packed.label_ids))


def decoder_flops(config: Qwen3Config, work: Work, *, trained: bool = True) -> dict[str, float]:
    """FLOPs of training on `work`, counted both ways: `usual` and `done`.

    Args:
        trained: whether the decoder learns; else its weights need no gradient, which is a third.
    """
    D, Dh = config.hidden_size, config.head_dim
    H, K, layers = config.num_attention_heads, config.num_key_value_heads, config.num_hidden_layers
    attention = 2 * D * (H + K) * Dh
    sparse = sum(map(config.is_moe_layer, range(layers)))
    experts = config.num_experts_per_tok * config.moe_intermediate_size
    mlps = (layers - sparse) * 3 * D * config.intermediate_size
    mlps += sparse * (3 * D * experts + D * config.num_experts)
    matrices, head = layers * attention + mlps, config.vocab_size * D
    vectors = layers * 2 * (D + Dh) + D
    tables = head if config.tie_word_embeddings else 2 * head
    factor = 6 if trained else 4
    pairs = 12 * layers * H * Dh * work.pairs
    usual = factor * (matrices + vectors + tables) * work.tokens + pairs
    done = factor * (matrices * work.tokens + head * work.labels) + pairs
    return {"usual": float(usual), "done": float(done)}


def peak_flops(device: torch.device) -> float | None:
    """What the device could do a second at most; None if it is none that is known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for known, peak in PEAKS.items() if known in name), None)
