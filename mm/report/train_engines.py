"""A training step of ours and of transformers' Llava, for `mm.report.bench_train`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mm.data.shard_stream import ShardBatch
from mm.errors import UsageError
from mm.train.blocks import compile_blocks
from mm.train.distributed import World
from mm.train.guard import Guard
from mm.train.loop import clip_gradients
from mm.train.optimizer import build_optimizer
from mm.train.recipe import RecipeConfig
from mm.train.run import RunFolder
from mm.train.step import Forward, backward
from mm.vlm import VisionLanguageModel, build

Step = Callable[[ShardBatch], Tensor]  # trains on a batch from the loader; gives the loss
Parts = Mapping[str, Any]  # a model's config as plain data


@dataclass(frozen=True)
class Setting:
    """Where an engine runs: its device, whether in bfloat16, and a folder of its own."""

    device: torch.device
    half: bool
    seed: int
    folder: Path


class Pixels:
    """The part of a feed that a step reads: pictures as they come."""

    patch_classes: tuple[int, ...] = ()
    dataset: Any = None
    ledgers: Mapping[str, str] = {}

    def pixels(
        self, batch: ShardBatch, generator: torch.Generator
    ) -> tuple[Tensor | list[Tensor], None]:
        """See `mm.train.step.Feed`."""
        return batch.images, None


def ours(config: Parts, where: Setting, compiled: bool) -> Step:
    """What `mm.train.loop` does in a step, with random weights."""
    device = where.device
    with device:
        model = build(config)
    model.init_weights(torch.Generator(device).manual_seed(where.seed))
    modules = nn.ModuleDict({"model": model.train()}).to(device)  # RoPE's frequencies, too
    if compiled:
        compile_blocks(model)
    recipe = RecipeConfig(precision="bf16_residual" if where.half else "fp32", learning_rate=1e-4)
    optimizer = build_optimizer(modules, recipe)
    forward, feed, world = Forward(modules, balances=False), Pixels(), World()
    guard = Guard(modules, RunFolder(where.folder), optimizer)

    def step(batch: ShardBatch) -> Tensor:
        guard.before()
        losses = backward(forward, feed, [batch], recipe, device, world)
        norm = clip_gradients(modules, recipe.gradient_clip)
        guard.after(losses, norm, [batch], batch.step, {})
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if (batch.step + 1) % recipe.log_every == 0:
            guard.look()
        return losses[0]

    return step


def llava(config: Parts, where: Setting, compiled: bool) -> Step:
    """The same with transformers' class; pictures are prepared as for ours, nothing is checked."""
    device = where.device
    with torch.device("meta"):
        shape = build(config)
    torch.manual_seed(where.seed)
    with device:
        model = llava_model(shape)
    model.train()
    if compiled:
        compile_blocks(model)
    optimizer = build_optimizer(model, RecipeConfig(learning_rate=1e-4))

    def step(batch: ShardBatch) -> Tensor:
        batch = batch.to(device, non_blocking=True)
        packed = batch.packed
        labels = torch.full_like(packed.input_ids, -100)
        labels.view(-1)[packed.label_positions + 1] = packed.label_ids  # which it moves back
        with torch.autocast(device.type, torch.bfloat16, enabled=where.half):
            loss: Tensor = model(
                input_ids=packed.input_ids,
                pixel_values=shape.encoder.preprocess(batch.images).pixel_values,
                labels=labels,
                use_cache=False,
            ).loss
        loss.backward()
        clip_gradients(model, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return step


def kernels(step: Step, batch: ShardBatch) -> list[tuple[str, int, float]]:
    """What a step runs on a GPU, the longest first: name, how often, milliseconds together."""
    from torch.profiler import ProfilerActivity, profile

    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        step(batch)
        torch.cuda.synchronize()
    found = [
        (event.key, event.count, event.self_device_time_total / 1e3)
        for event in profiled.key_averages()
    ]
    return sorted(found, key=lambda kernel: -kernel[2])


def llava_model(shape: VisionLanguageModel) -> Any:
    """transformers' `LlavaForConditionalGeneration` of the same sizes, which trains as ours.

    Raises:
        UsageError: transformers is missing, or the model is no SigLIP with LLaVA 1.5's projector.
    """
    try:
        from transformers import (
            LlavaConfig,
            LlavaForConditionalGeneration,
            Qwen3Config,
            SiglipVisionConfig,
        )
    except ImportError:
        raise UsageError("it needs transformers: pip install transformers") from None
    kinds = shape.config["encoder"]["name"], shape.config["projector"]["name"]
    projector: Any = shape.projector.config
    if kinds != ("siglip", "mlp") or projector.shuffle != 1 or projector.layer_norm:
        raise UsageError(
            "Llava is compared with encoder siglip and projector mlp, shuffle=1 layer_norm=false"
        )
    auto: Any = LlavaConfig  # typed without what every config takes
    own = ("resample", "image_mean", "image_std", "feature_layer", "use_final_norm")
    vision = {k: v for k, v in asdict(shape.encoder.config).items() if k not in own}
    text: dict[str, Any] = asdict(shape.decoder.config)
    dense = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "head_dim",
             "num_attention_heads", "num_key_value_heads", "rms_norm_eps",
             "max_position_embeddings", "initializer_range")  # fmt: skip
    tied, theta = text["tie_word_embeddings"], text["rope_theta"]
    config = auto(
        vision_config=SiglipVisionConfig(**vision, vision_use_head=False),
        text_config=Qwen3Config(
            **{name: text[name] for name in dense},
            tie_word_embeddings=tied,
            rope_parameters={"rope_type": "default", "rope_theta": theta},
        ),
        image_token_index=shape.image_token_id,
        projector_hidden_act="gelu",
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_seq_length=math.prod(shape.encoder.views(64, 64)[0]),
        tie_word_embeddings=tied,
        attn_implementation="sdpa",
    )
    return LlavaForConditionalGeneration(config)
