"""The numbers of a description: sizes, cache, FLOPs, memory for a plan, what a GPU makes of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mm.report.describe import costs
from mm.report.describe.gpus import GPU

if TYPE_CHECKING:
    from mm.report.describe import Description

Figures = dict[str, Any]  # plain data, as JSON holds it

RESERVED = 1_000_000_000  # bytes of a GPU for the driver, kernels and the allocator's slack


def figures(description: Description) -> Figures:
    """All numbers, by topic. Bytes and FLOPs are whole; rates are per second."""
    config, plan, total = description.decoder, description.plan, description.num_parameters
    counted = costs.count_decoder(config)
    per_token = costs.kv_bytes_per_token(config, _value_bytes(description))
    flops = _flops(description)
    found: Figures = {
        "title": description.title,
        "parameters": {
            "total": total,
            "active": total - counted.total + counted.active,
            "embedding": counted.embedding,
            "head": counted.head,
            "parts": {row.part: row.num_parameters for row in description.parts},
            "decoder": {task: n for task, n in vars(counted).items() if task != "active"},
        },
        "weight_bytes": {name: int(total * size) for name, size in costs.BYTES.items()},
        "kv_cache": {
            "bytes_per_token": per_token,
            "context": description.context,
            "batch": plan.batch,
            "bytes": per_token * description.context * plan.batch,
        },
        "flops_per_token": flops,
        "training": _training(description, flops["forward_in_training"]),
    }
    seen = description.pictures
    if seen:
        found["picture"] = {
            "height": seen.size[0],
            "width": seen.size[1],
            "grid": list(seen.grid),
            "tokens": seen.num_tokens,
            "encoder_flops": seen.encoder_flops,
            "projector_flops": seen.projector_flops,
        }
    if description.gpu:
        found["gpu"] = _fit(description, description.gpu, found)
    return found


def training_costs(parts: Mapping[str, Any], **planned: Any) -> Figures:
    """Memory and FLOPs of one training step of a model's parts.

    Args:
        planned: fields of `Plan`, such as tokens and length.
    """
    from mm.report.describe import Plan, describe

    config = {part: parts[part] for part in ("encoder", "projector", "decoder")}
    found: Figures = figures(describe(config, plan=Plan(**planned)))["training"]
    return found


def _value_bytes(description: Description) -> float:
    """Bytes of a number in the cache: weights of fewer bits are computed with in bfloat16."""
    return 4.0 if description.plan.dtype == "fp32" else 2.0


def _flops(description: Description) -> Figures:
    config, context = description.decoder, description.context
    weights = costs.matmul_flops(config)
    last = costs.attention_flops(config, context)
    # A row's tokens attend to one, two, ... of its tokens.
    trained = weights + costs.attention_flops(config, (description.plan.length + 1) / 2)
    return {
        "weights": weights,
        "attention_at_context": last,
        "context": context,
        "forward_at_context": weights + last,
        "forward_in_training": trained,
        "training": 3 * trained,
        "training_with_checkpointing": 4 * trained,
    }


def _training(description: Description, forward: int) -> Figures:
    """Memory and FLOPs of one step, as `scripts/train.py` takes it.

    Float32 weights, gradients and the two moments of AdamW; bfloat16 copies of the weights, which
    autocast makes; what the backward pass needs; the logits.
    """
    from mm.train.objective import chunk_of

    plan, seen = description.plan, description.pictures
    parts = description.parts
    total = description.num_parameters
    trained = sum(row.num_parameters for row in parts if row.part not in plan.frozen)
    sizes = plan.tokens, plan.length, plan.checkpointing
    activations = costs.activation_bytes(description.decoder, *sizes)
    # Backward is a gradient of the inputs and one of the weights, each as much work as forward.
    factor = 2 + ("decoder" not in plan.frozen) + plan.checkpointing
    step = plan.tokens * forward * factor
    pictures = 0
    if seen:
        per_row = math.ceil(plan.tokens / plan.length)
        pictures = per_row if plan.pictures is None else plan.pictures
        projector = 2 + ("projector" not in plan.frozen)
        if "encoder" in plan.frozen:  # nothing before it learns, so it keeps nothing
            step += pictures * (seen.encoder_flops + (projector - 1) * seen.projector_flops)
        else:
            activations += pictures * seen.encoder_bytes
            step += pictures * (3 * seen.encoder_flops + projector * seen.projector_flops)
        activations += pictures * seen.projector_bytes
    needs = {
        "weights": 4 * total,
        "bf16_copies": 2 * total,
        "gradients": 4 * trained,
        "optimizer": 8 * trained,
        "activations": activations,
        "logits": costs.logits_bytes(
            description.decoder, plan.tokens, chunk_of(description.decoder.vocab_size)
        ),
    }
    return {
        "tokens": plan.tokens,
        "length": plan.length,
        "pictures": pictures,
        "checkpointing": plan.checkpointing,
        "frozen": list(plan.frozen),
        "trained_parameters": trained,
        "bytes": needs,
        "total_bytes": sum(needs.values()),
        "step_flops": step,
    }


def _fit(description: Description, gpu: GPU, found: Mapping[str, Any]) -> Figures:
    config, plan = description.decoder, description.plan
    usable = int(gpu.memory) - RESERVED
    weights, cache = found["weight_bytes"][plan.dtype], found["kv_cache"]
    training = found["training"]
    local = training["bytes"]["activations"] + training["bytes"]["logits"]
    longest = max(0, (usable - weights) // (cache["bytes_per_token"] * plan.batch))
    fit: Figures = {
        "name": gpu.name,
        "memory_bytes": int(gpu.memory),
        "reserved_bytes": RESERVED,
        "flops_per_second": gpu.flops,
        "bytes_per_second": gpu.bandwidth,
        "dtype": plan.dtype,
        "decoding_bytes": weights + cache["bytes"],
        "decoding_fits": weights + cache["bytes"] <= usable,
        "longest_context": min(longest, costs.longest_context(config)),
        "training_fits": training["total_bytes"] <= usable,
        # Weights, gradients and moments cut evenly; each computes its own tokens.
        "gpus_for_training": None,
    }
    if local < usable:
        fit["gpus_for_training"] = math.ceil((training["total_bytes"] - local) / (usable - local))
    if gpu.bandwidth:
        for when, context in (("first", 0), ("at_context", description.context)):
            sizes = costs.BYTES[plan.dtype], _value_bytes(description)
            read = costs.decode_read_bytes(config, plan.batch, context, *sizes)
            fit[f"tokens_per_second_{when}"] = plan.batch * gpu.bandwidth / read
    if gpu.flops:
        fit["training_tokens_per_second"] = plan.tokens * gpu.flops / training["step_flops"]
    return fit
