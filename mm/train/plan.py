"""What a run would train and take, told in seconds, without its data and without a GPU."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mm.data.packing import Encoded, Packer
from mm.data.scenes.stream import StreamConfig
from mm.data.shard_stream import ShardStream, ShardStreamConfig
from mm.data.shards import ShardReader
from mm.registry import make_config
from mm.text.tokenizer import Tokenizer
from mm.train.checks import check_together
from mm.train.feeds import sight_of, square_side
from mm.train.flops import peak_flops
from mm.train.lora import add_lora
from mm.train.optimizer import build_optimizer
from mm.train.recipe import PARTS, RecipeConfig
from mm.train.stages import Stages
from mm.vlm import VisionLanguageModel
from mm.vlm import build as build_model

SAMPLED = 1000  # conversations that are looked at
EXPECTED_SHARE = 0.4  # of the device's peak, that a step makes use of
LEAST_STEP_S = 0.02  # that a batch takes, however small the model
REFERENCE = ("one H100", 989e12)

# Bytes by their use, and the FLOPs of a step, of a model's parts and fields of
# `mm.report.describe.Plan`; given by the caller, as reports stand above training.
Estimate = Callable[..., Mapping[str, Any]]


def plan(
    config: Mapping[str, Any],
    parts: Mapping[str, Any],
    recipe: RecipeConfig,
    tokenizer: Tokenizer,
    device: torch.device,
    estimate: Estimate | None = None,
) -> str:
    """Tell what a configuration would train: nothing is loaded but some conversations, if there.

    Args:
        config: as composed.
        parts: of the model, as `mm.vlm.build` takes them.
        estimate: what a step takes.
    """
    with torch.device("meta"):
        model = build_model(parts)
    check_together(config["data"], model, recipe)
    stream = stream_of(config["data"])
    modules = nn.ModuleDict({"model": model})
    add_lora(model, recipe.lora, torch.Generator())
    table = Stages(modules, recipe).table()
    tokens = stream.rows * stream.row_length
    lines = [table, "", f"a picture takes {_tokens_of_a_picture(model)}"]
    lines.append(
        f"{recipe.steps:,} steps of {recipe.accumulate * stream.rows:,} rows of"
        f" {stream.row_length:,} tokens: {recipe.batches * tokens / 1e6:,.1f} M tokens"
    )
    lines += _labels(config["data"], stream, model, tokenizer, recipe)
    if estimate is not None:
        lines += _costs(parts, modules, recipe, stream, estimate, device)
    lines += ["", *(f"recipe.{key}: {value}" for key, value in config["recipe"].items())]
    return "\n".join(lines)


def stream_of(data: Mapping[str, Any]) -> StreamConfig | ShardStreamConfig:
    """The batches that `data.stream` describes."""
    kind = StreamConfig if data["kind"] == "scenes" else ShardStreamConfig
    found: StreamConfig | ShardStreamConfig = make_config(kind, data["stream"], "data.stream")
    return found


def _tokens_of_a_picture(model: VisionLanguageModel) -> str:
    side = square_side(model)
    if side is None:
        return f"as many tokens as its size asks: {model.num_image_tokens(480, 640)} for 640x480"
    return f"{model.num_image_tokens(side, side)} tokens"


def _labels(
    data: Mapping[str, Any],
    stream: StreamConfig | ShardStreamConfig,
    model: VisionLanguageModel,
    tokenizer: Tokenizer,
    recipe: RecipeConfig,
) -> list[str]:
    """How many of the labels get into rows, and how full these are."""
    if isinstance(stream, StreamConfig):
        return ["every label survives: a row takes questions about its scene while they fit"]
    missing = [name for name in data["shards"] if not (Path(name) / "ledger.json").exists()]
    if missing:
        return [f"share of labels that survive: not known before {', '.join(missing)} is there"]
    readers = [ShardReader(directory) for directory in data["shards"]]
    reader = ShardStream(readers, tokenizer, sight_of(model), stream, recipe.seed, recipe.batches)
    packer = Packer(
        stream.row_length, images_per_row=stream.images_per_row, lookahead=stream.lookahead
    )
    left_out: Counter[str] = Counter()
    rows, labels, looked_at = [], 0, 0
    for found in reader.conversations(SAMPLED):
        looked_at += 1
        if isinstance(found, Encoded):
            labels += sum(sum(learned) for _, learned in found.items)
            rows += packer.add(found)
        else:
            left_out[found] += 1
    closed = len(rows)  # the rows that are still open would have got more
    rows += packer.flush()
    kept = sum(sum(m) for row in rows for part in row.parts for _, m in part.items)
    left_out |= Counter(
        {name: getattr(packer.counts, name) for name in ("too_long", "too_many_pictures")}
    )
    reasons = ", ".join(f"{count} {name}" for name, count in left_out.items() if count)
    filled = rows[:closed] or rows
    fill = sum(row.length for row in filled) / max(1, len(filled) * stream.row_length)
    all_samples = sum(len(each) for each in readers)
    steps = max(1, len(rows)) * all_samples / looked_at / (stream.rows * recipe.accumulate)
    share = kept / max(1, labels)
    return [
        f"of the labels of {looked_at:,} of {all_samples:,} conversations {share:.1%} survive;"
        f" left out: {reasons or 'none'}",
        f"rows are {fill:.0%} full; an epoch is about {steps:,.1f} steps, so these are"
        f" {recipe.steps / steps:,.1f} epochs",
    ]


def _costs(
    parts: Mapping[str, Any],
    modules: nn.ModuleDict,
    recipe: RecipeConfig,
    stream: StreamConfig | ShardStreamConfig,
    estimate: Estimate,
    device: torch.device,
) -> list[str]:
    """Memory and time."""
    learning = {part for stage in recipe.all_stages() for part in stage.train}
    frozen = tuple(part for part in PARTS if part not in learning)
    for part in frozen:
        getattr(modules["model"], part).requires_grad_(False)
    pictures, about = stream.rows, ""
    if isinstance(stream, ShardStreamConfig):
        pictures, about = stream.rows * stream.images_per_row, "at most "
    found = estimate(
        parts,
        tokens=stream.rows * stream.row_length,
        length=stream.row_length,
        pictures=pictures,
        checkpointing="decoder" in recipe.recompute,
        frozen=frozen,
    )
    optimizer = build_optimizer(modules, recipe)
    needs = dict(found["bytes"])
    by_muon = sum(p.numel() for g in optimizer.param_groups if "ns_steps" in g for p in g["params"])
    trained = sum(p.numel() for g in optimizer.param_groups for p in g["params"])
    # What learns: adapters alone of a part that has them. AdamW keeps two moments, Muon one.
    needs |= {"gradients": 4 * trained, "optimizer": 8 * trained - 4 * by_muon}
    if recipe.precision == "fp32":
        needs["bf16_copies"] = 0
    listed = ", ".join(f"{name.replace('_', ' ')} {_size(size)}" for name, size in needs.items())
    flops = found["step_flops"] * recipe.batches
    least = recipe.batches * LEAST_STEP_S

    def time_at(peak: float) -> str:
        return _time(max(least, flops / (peak * EXPECTED_SHARE)))

    expected = [f"{time_at(_peak(device))} here"]
    if device.type == "cpu":
        name, peak = REFERENCE
        expected.append(f"{time_at(peak)} on {name}")
    return [
        f"a step takes {about}{_size(sum(needs.values()))} of memory, not compiled: {listed}",
        f"{flops / 1e12:,.3g} TFLOP in all: {about}{', '.join(expected)}, at"
        f" {EXPECTED_SHARE:.0%} of the peak",
    ]


def _peak(device: torch.device) -> float:
    """FLOP/s of the device: as its maker states, or as a large product shows in a moment."""
    stated = peak_flops(device)
    if stated is not None:
        return stated
    one = torch.randn(768, 768, device=device)
    best = float("inf")
    for _ in range(8):
        began = time.perf_counter()
        (one @ one)[0, 0].item()
        best = min(best, time.perf_counter() - began)
    return float(2 * 768**3 / best)


def _time(seconds: float) -> str:
    return f"{seconds / 3600:,.1f} h" if seconds >= 3600 else f"{seconds / 60:,.1f} min"


def _size(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:,.2f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:,.0f} MB"
