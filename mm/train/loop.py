"""The training loop: the same for composed scenes and for shards, on a CPU or a GPU."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader, Sampler

from mm.data.shard_stream import ShardBatch, ShardStream
from mm.errors import StoppedError
from mm.train.blocks import compile_blocks, recompute_blocks
from mm.train.guard import Guard
from mm.train.lora import add_lora, merge_lora
from mm.train.objective import PatchClassifier
from mm.train.optimizer import build_optimizer, check_state
from mm.train.profiling import Profile
from mm.train.progress import Progress
from mm.train.recipe import PARTS, RecipeConfig
from mm.train.run import RunFolder
from mm.train.samples import SAMPLES, keep_samples
from mm.train.sharding import Statistics, Whole, shard
from mm.train.stages import Stages
from mm.train.step import Feed, Forward, TrainBatch, backward, balance_weight, stream_seed
from mm.train.stopping import StopRequest, leave_signals_to_the_loop
from mm.vlm import VisionLanguageModel

# Held-out measures; and under SAMPLES, if there are any, a few answers (see mm.train.samples).
Evaluate = Callable[[VisionLanguageModel], dict[str, Any]]


class _Steps(Sampler[int]):
    """The numbers of the batches that a process takes, step after step.

    Args:
        start, stop: steps.
        distinct: above 0: only so many batches, again and again.
        accumulate: batches of a step.
        own: those of them that this process takes.
    """

    def __init__(
        self, start: int, stop: int, distinct: int, accumulate: int = 1, own: range = range(1)
    ) -> None:
        self.steps = range(start, stop)
        self.distinct, self.accumulate, self.own = distinct, accumulate, own

    def __iter__(self) -> Iterator[int]:
        for step in self.steps:
            for place in self.own:
                number = step * self.accumulate + place
                yield number % self.distinct if self.distinct else number

    def __len__(self) -> int:
        return len(self.steps) * len(self.own)


def train(
    model: VisionLanguageModel,
    feed: Feed,
    recipe: RecipeConfig,
    folder: RunFolder,
    device: torch.device,
    evaluate: Evaluate | None = None,
) -> tuple[VisionLanguageModel | None, dict[str, float]]:
    """Train `model`, going on from the folder's newest checkpoint if there is one.

    Under `torchrun` every process of `folder.world` calls this with the same arguments.

    Args:
        model: with whatever weights it has, if they are to be kept; drawn from the seed otherwise
            by the caller (`model.init_weights`).
        evaluate: held-out measures, logged every `recipe.evaluate_every` steps and at the end; the
            first process takes them.

    Returns:
        The trained model, whole, in the first process; and the last logged metrics.

    Raises:
        MMError: loss or gradient is not finite, or the run was asked to stop (after saving).
    """
    world = folder.world
    own = world.part(recipe.accumulate)
    modules = _trainable(model, feed, recipe)
    whole = Whole(model, world)
    run = Forward(modules, balance_weight(model, recipe) > 0)
    recompute_blocks(getattr(model, part) for part in recipe.recompute)
    if recipe.compile:
        compile_blocks(model)
    if world.size > 1:
        shard(run, world, device)
    modules.to(device)
    stages = Stages(modules, recipe)
    optimizer = build_optimizer(modules, recipe)
    start = folder.resume(modules, optimizer)
    check_state(optimizer, recipe)
    stands: Mapping[str, Any] = folder.cursor()  # scenes are found by the step alone
    if stands and isinstance(feed.dataset, ShardStream):
        feed.dataset.seek(dict(stands))
    if world.is_main:
        if start:
            print(f"going on after step {start}", file=sys.stderr)
        print(stages.table(), file=sys.stderr)
    stages.enter(stages.at(start)[0])
    loader: DataLoader[Any] = DataLoader(
        feed.dataset,
        batch_size=None,
        sampler=_Steps(start, recipe.steps, recipe.distinct_batches, recipe.accumulate, own),
        num_workers=recipe.num_workers,
        pin_memory=device.type == "cuda",
        prefetch_factor=8 if recipe.num_workers else None,
        worker_init_fn=leave_signals_to_the_loop,
    )
    metrics: dict[str, float] = {}
    sums = torch.zeros(3, device=device)
    guard, statistics = Guard(modules, folder, optimizer), Statistics(modules, len(own), world)
    progress = Progress(recipe.steps, start, folder.tokens(), device, model.decoder)
    since = start
    with StopRequest() as stop, Profile(recipe.profile_steps, folder, device) as profile:
        for step, batches in enumerate(progress.watch(in_steps(loader, len(own))), start):
            if stages.is_start(step):
                stages.enter(stages.at(step)[0])
            rate = stages.set_rates(optimizer, step)
            guard.before()
            statistics.before()
            losses = backward(run, feed, batches, recipe, device, world)
            norm = clip_gradients(modules, recipe.gradient_clip)
            guard.after(losses, norm, batches, step, stands)
            statistics.join()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            sums += losses
            profile.step()
            progress.count((batch.packed for batch in batches), world.size)
            done, asked = step + 1, world.any(stop.asked)
            if isinstance(batches[-1], ShardBatch):
                stands = batches[-1].cursor
            ends = done == recipe.steps or asked
            logs, saves, evaluates = (
                every > 0 and done % every == 0
                for every in (recipe.log_every, recipe.checkpoint_every, recipe.evaluate_every)
            )
            if ends or logs or saves or evaluates:
                guard.look()
            if ends or logs:
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
                if isinstance(batches[-1], ShardBatch):  # the last process's is the step's last
                    metrics |= world.share(batches[-1].measured(), -1)
                since = done
                if run.balances:
                    metrics["balance_loss"] = mean_balance
                if world.is_main:
                    progress.show(metrics)
                folder.log(metrics)
            # Metrics before the checkpoint: resuming drops lines after it and loses none before.
            if ends or saves:
                folder.save(done, modules, optimizer, world.share(stands, -1))
            if asked and done < recipe.steps:
                raise StoppedError(
                    f"stopped after step {done} as asked; the same command goes on from there"
                )
            if evaluates and done < recipe.steps:
                metrics |= _evaluated(whole.of(model), evaluate, done, folder)
                stages.enter(stages.at(done)[0])
                progress.forget()
    trained: Any = whole.of(model)  # Any: Whole knows no more than a module
    if trained is not None:
        merge_lora(trained)
    metrics |= _evaluated(trained, evaluate, recipe.steps, folder)
    return (None if trained is None else trained.eval()), metrics


def _trainable(model: VisionLanguageModel, feed: Feed, recipe: RecipeConfig) -> nn.ModuleDict:
    """The model with its adapters, and auxiliary heads beside it; what never learns is frozen."""
    modules = nn.ModuleDict({"model": model})
    for part in PARTS:
        getattr(model, part).requires_grad_(True)
    draw = torch.Generator().manual_seed(stream_seed(recipe.seed, "lora"))
    add_lora(model, recipe.lora, draw)
    learning = {part for stage in recipe.all_stages() for part in stage.train}
    for part in set(PARTS) - learning:
        getattr(model, part).requires_grad_(False)
    for parameter in model.parameters():  # such as the registers of an encoder without any
        if parameter.numel() == 0:
            parameter.requires_grad_(False)
    # The patch loss teaches the encoder alone.
    if feed.patch_classes and recipe.patch_loss_weight and "encoder" in learning:
        patches = PatchClassifier(model.encoder.hidden_size, feed.patch_classes)
        patches.init_weights(torch.Generator().manual_seed(stream_seed(recipe.seed, "patches")))
        modules["patches"] = patches
    return modules


def clip_gradients(modules: nn.Module, limit: float) -> Tensor:
    """Scale gradients so that their norm, over all processes, is at most `limit`; return it."""
    parameters = [p for p in modules.parameters() if p.grad is not None]
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if isinstance(norm, DTensor):
        norm = norm.full_tensor()
    nn.utils.clip_grads_with_norm_(parameters, limit, norm)
    return norm


def _evaluated(
    model: Any, evaluate: Evaluate | None, step: int, folder: RunFolder
) -> dict[str, float]:
    """Run the held-out measure, if there is one, and log it as a line of its own.

    The other processes wait for the first, which has the model whole.
    """
    measured: dict[str, Any] = {}
    if model is not None and evaluate is not None:
        model.eval()
        # Generation changes shapes at every token: compiling for each would take minutes.
        with torch.compiler.set_stance("force_eager"):
            measured = evaluate(model)
        keep_samples(measured.pop(SAMPLES, ()), step, folder)
        folder.log({"step": step, **measured})
    return folder.world.share(measured)


def in_steps(batches: Iterable[TrainBatch], accumulate: int) -> Iterator[list[TrainBatch]]:
    """Take `accumulate` batches at a time, which are a step's."""
    taken: list[TrainBatch] = []
    for batch in batches:
        taken.append(batch)
        if len(taken) == accumulate:
            yield taken
            taken = []
