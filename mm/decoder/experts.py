"""Fast forms of a mixture of experts, and the loss that spreads tokens over them.

`Experts` in `mm.decoder.qwen3` is the readable form.

grouped: pairs of token and expert are sorted by expert; each projection is one grouped product.
gathered: each pair's matrices are picked and multiplied, which a compiler makes one kernel that
    reads them in place. Not compiled, they are copied.

N tokens, A experts that a token goes through, P pairs (N * A), E experts, D model width, F an
expert's feed-forward width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def has_grouped_mm(x: Tensor, weight: Tensor) -> bool:
    """Say whether torch can multiply groups of rows of `x` by `weight` `[E, out, in]` at once."""
    if x.dtype != torch.bfloat16 or not hasattr(F, "grouped_mm"):
        return False
    if x.device.type not in ("cpu", "cuda"):
        return False
    # Compilers can't trace this question, and make no bfloat16 code for older cards anyway.
    if x.is_cuda and not torch.compiler.is_compiling():
        if torch.cuda.get_device_capability(x.device) < (8, 0):
            return False
    return weight.shape[1] % 8 == 0 and weight.shape[2] % 8 == 0  # rows start at 16 bytes


def best_path(
    x_ND: Tensor, chosen_NA: Tensor, down_EDF: Tensor
) -> Literal["loop", "grouped", "gathered"]:
    """Choose how to compute: by what can be traced, then by what was measured to be fastest."""
    if torch.compiler.is_compiling() or x_ND.is_meta:
        # Among few pairs hardly two have the same expert, whose matrices would be read twice. The
        # grouped form in other types needs the groups' sizes, which no compiler knows.
        few = len(x_ND) == 1 or 4 * chosen_NA.numel() <= len(down_EDF)
        return "gathered" if few or not has_grouped_mm(x_ND, down_EDF) else "grouped"
    return "loop" if len(x_ND) == 1 and x_ND.device.type == "cpu" else "grouped"


def grouped_linear(x: Tensor, weight: Tensor, group_ends: Tensor) -> Tensor:
    """Multiply each group of rows by its own matrix; matrices of empty groups are not read.

    Args:
        x: `[P, in]`, rows of one group next to each other.
        weight: `[E, out, in]`.
        group_ends: int32 `[E]`, the row after each group's last.

    Returns:
        `[P, out]`.
    """
    if has_grouped_mm(x, weight):
        out: Tensor = F.grouped_mm(x, weight.to(x.dtype).mT, offs=group_ends)
        return out
    sizes = group_ends.diff(prepend=group_ends.new_zeros(1)).tolist()
    groups = zip(x.split(sizes), weight.unbind(), strict=True)
    return torch.cat([F.linear(rows, matrix) for rows, matrix in groups if len(rows)])


def grouped_experts(
    x_ND: Tensor, chosen_NA: Tensor, weights_NA: Tensor, gate_up: Tensor, down: Tensor
) -> Tensor:
    """Return `[N, D]`, the chosen experts' outputs summed with the weights.

    Args:
        chosen_NA: int64, the experts that each token goes through.
        gate_up: `[E, 2F, D]`, the rows of gate_proj, then those of up_proj.
        down: `[E, D, F]`.
    """
    sorted_P, order_P = chosen_NA.flatten().sort(stable=True)
    experts = torch.arange(len(down), device=x_ND.device)
    group_ends = torch.searchsorted(sorted_P, experts, right=True, out_int32=True)
    x_PD = x_ND[order_P // chosen_NA.shape[1]]
    gate_PF, up_PF = grouped_linear(x_PD, gate_up, group_ends).chunk(2, dim=-1)
    out_PD = grouped_linear(F.silu(gate_PF) * up_PF, down, group_ends)
    out_NAD = out_PD[order_P.argsort()].view(*chosen_NA.shape, -1)
    return (out_NAD * weights_NA[..., None]).sum(1)


def gathered_experts(
    x_ND: Tensor, chosen_NA: Tensor, weights_NA: Tensor, gate_up: Tensor, down: Tensor
) -> Tensor:
    """Return what `grouped_experts` does."""

    def linear(x: Tensor, weight: Tensor) -> Tensor:
        # A product and a sum, as the matrices of a matrix product would be copied first.
        picked = weight[chosen_NA].to(x.dtype)
        return (x[:, :, None].float() * picked.float()).sum(-1).to(x.dtype)

    gate_NAF, up_NAF = linear(x_ND[:, None], gate_up).chunk(2, dim=-1)
    out_NAD = linear(F.silu(gate_NAF) * up_NAF, down)
    return (out_NAD * weights_NA[..., None]).sum(1)


FAST_PATHS = {"grouped": grouped_experts, "gathered": gathered_experts}


def load_balancing_loss(
    router_logits: Sequence[Tensor], num_experts: int, top_k: int, mask: Tensor | None = None
) -> Tensor:
    """Return how unevenly tokens are spread over experts: `top_k` when evenly, more when not.

    E times the sum over experts of the share of tokens that chose it times its mean probability,
    over all layers together ("Switch Transformers", arXiv 2101.03961, section 2.2). Training adds
    it `router_aux_loss_coef` times.

    Args:
        router_logits: each sparse layer's `[N, E]`, as `Qwen3Model.forward` collects them.
        mask: bool, N values such as `[B, T]`, True for tokens that count (not padding).
    """
    if not router_logits:
        raise ValueError("there are no router logits: a dense model has no load to balance")
    probabilities = torch.cat(list(router_logits)).softmax(-1, dtype=torch.float32)
    counts = probabilities.new_ones(len(probabilities))
    if mask is not None:
        counts = mask.flatten().float().repeat(len(router_logits))
    chosen = probabilities.topk(top_k).indices.flatten()
    chosen_E = counts.new_zeros(num_experts).scatter_add(0, chosen, counts.repeat_interleave(top_k))
    total = counts.sum().clamp(min=1)
    return num_experts * (chosen_E / total) @ (counts @ probabilities / total)
