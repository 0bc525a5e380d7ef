"""The training loop: the same for composed scenes and for shards, on a CPU or a GPU."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Sampler

from mm.data.shard_stream import ShardBatch, ShardStream
from mm.errors import StoppedError
from mm.train.blocks import compile_blocks, recompute_blocks
from mm.train.guard import Guard
from mm.train.lora import add_lora, merge_lora
from mm.train.objective import PatchClassifier
from mm.train.optimizer import build_adamw
from mm.train.progress import Progress
from mm.train.recipe import PARTS, RecipeConfig
from mm.train.run import RunFolder
from mm.train.stages import Stages
from mm.train.step import Feed, Forward, TrainBatch, backward, balance_weight, stream_seed
from mm.train.stopping import StopRequest, leave_signals_to_the_loop
from mm.vlm import VisionLanguageModel

Evaluate = Callable[[VisionLanguageModel], dict[str, float]]


class _Steps(Sampler[int]):
    def __init__(self, start: int, stop: int, distinct: int) -> None:
        self.steps = range(start, stop)
        self.distinct = distinct

    def __iter__(self) -> Iterator[int]:
        return (step % self.distinct if self.distinct else step for step in self.steps)

    def __len__(self) -> int:
        return len(self.steps)


def train(
    model: VisionLanguageModel,
    feed: Feed,
    recipe: RecipeConfig,
    folder: RunFolder,
    device: torch.device,
    evaluate: Evaluate | None = None,
) -> dict[str, float]:
    """Train `model`, going on from the folder's newest checkpoint if there is one.

    Args:
        model: with whatever weights it has, if they are to be kept; drawn from the seed otherwise
            by the caller (`model.init_weights`).
        evaluate: held-out measures, logged every `recipe.evaluate_every` steps and at the end.

    Returns:
        The last logged metrics.

    Raises:
        MMError: loss or gradient is not finite, or the run was asked to stop (after saving).
    """
    modules = nn.ModuleDict({"model": model})
    for part in PARTS:
        getattr(model, part).requires_grad_(True)
    draw = torch.Generator().manual_seed(stream_seed(recipe.seed, "lora"))
    add_lora(model, recipe.lora, draw)
    stages = Stages(modules, recipe)
    for part in set(PARTS) - stages.ever_trained():
        getattr(model, part).requires_grad_(False)
    # The patch loss teaches the encoder alone.
    teaches_patches = feed.patch_classes and recipe.patch_loss_weight
    if teaches_patches and "encoder" in stages.ever_trained():
        patches = PatchClassifier(model.encoder.hidden_size, feed.patch_classes)
        patches.init_weights(torch.Generator().manual_seed(stream_seed(recipe.seed, "patches")))
        modules["patches"] = patches
    modules.to(device)
    optimizer = build_adamw(
        modules, recipe.learning_rate, recipe.weight_decay, (recipe.beta1, recipe.beta2)
    )
    start = folder.resume(modules, optimizer)
    if start:
        print(f"going on after step {start}", file=sys.stderr)
        if isinstance(feed.dataset, ShardStream) and (cursor := folder.cursor()):
            feed.dataset.seek(cursor)
    print(stages.table(), file=sys.stderr)
    stages.enter(stages.at(start)[0])
    run = Forward(modules, balance_weight(model, recipe) > 0)
    recompute_blocks(getattr(model, part) for part in recipe.recompute)
    if recipe.compile:
        compile_blocks(model)
    loader: DataLoader[Any] = DataLoader(
        feed.dataset,
        batch_size=None,
        sampler=_Steps(start * recipe.accumulate, recipe.batches, recipe.distinct_batches),
        num_workers=recipe.num_workers,
        pin_memory=device.type == "cuda",
        prefetch_factor=8 if recipe.num_workers else None,
        worker_init_fn=leave_signals_to_the_loop,
    )
    metrics: dict[str, float] = {}
    sums = torch.zeros(3, device=device)
    guard = Guard(modules, folder)
    stands: Mapping[str, Any] = folder.cursor()  # scenes are found by the step alone
    progress, since = Progress(recipe.steps, start, folder.tokens(), device), start
    with StopRequest() as stop:
        for step, batches in enumerate(progress.watch(in_steps(loader, recipe.accumulate)), start):
            if stages.is_start(step):
                stages.enter(stages.at(step)[0])
            rate = stages.set_rates(optimizer, step)
            guard.before()
            losses = backward(run, feed, batches, recipe, device)
            norm = nn.utils.clip_grad_norm_(modules.parameters(), recipe.gradient_clip)
            if not torch.isfinite(losses.sum() + norm):
                guard.stop(losses, norm, batches, step, optimizer, recipe.keep_checkpoints, stands)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            sums += losses
            progress.tokens += sum(batch.packed.input_ids.numel() for batch in batches)
            done = step + 1
            if isinstance(batches[-1], ShardBatch):
                stands = batches[-1].cursor
            if done % recipe.log_every == 0 or done == recipe.steps or stop.asked:
                mean_loss, mean_patch, mean_balance = (sums / (done - since)).tolist()
                sums.zero_()
                metrics = {
                    "step": done,
                    "loss": mean_loss,
                    "patch_loss": mean_patch,
                    "learning_rate": rate,
                    "gradient_norm": float(norm),
                    **progress.measure(done),
                }
                if isinstance(batches[-1], ShardBatch):
                    metrics |= batches[-1].measured()
                since = done
                if run.balances:
                    metrics["balance_loss"] = mean_balance
                progress.show(metrics)
                folder.log(metrics)
            # Metrics before the checkpoint: resuming drops lines after it and loses none before.
            if done == recipe.steps or stop.asked or done % recipe.checkpoint_every == 0:
                folder.save(done, modules, optimizer, recipe.keep_checkpoints, stands)
            if stop.asked and done < recipe.steps:
                raise StoppedError(
                    f"stopped after step {done} as asked; the same command goes on from there"
                )
            if recipe.evaluate_every and done % recipe.evaluate_every == 0 and done < recipe.steps:
                metrics |= _evaluated(model, evaluate, done, folder)
                stages.enter(stages.at(done)[0])
                progress.forget()
    merge_lora(model)
    metrics |= _evaluated(model, evaluate, recipe.steps, folder)
    model.eval()
    return metrics


def _evaluated(
    model: VisionLanguageModel, evaluate: Evaluate | None, step: int, folder: RunFolder
) -> dict[str, float]:
    """Run the held-out measure, if there is one, and log it as a line of its own."""
    if evaluate is None:
        return {}
    model.eval()
    # Generation changes shapes at every token: compiling for each would take minutes.
    with torch.compiler.set_stance("force_eager"):
        measured = evaluate(model)
    folder.log({"step": step, **measured})
    return measured


def in_steps(batches: Iterable[TrainBatch], accumulate: int) -> Iterator[list[TrainBatch]]:
    """Take `accumulate` batches at a time, which are a step's."""
    taken: list[TrainBatch] = []
    for batch in batches:
        taken.append(batch)
        if len(taken) == accumulate:
            yield taken
            taken = []
