"""The training loop: the same for composed scenes and for shards, on a CPU or a GPU."""

from __future__ import annotations

import hashlib
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, Dataset, Sampler

from mm.data.packing import PackedBatch, attention_mask
from mm.data.shard_stream import ShardBatch, ShardStream
from mm.decoder.experts import load_balancing_loss
from mm.encoders import Pictures
from mm.errors import StoppedError
from mm.train.guard import Guard
from mm.train.lora import add_lora, merge_lora
from mm.train.objective import PatchClassifier, linear_cross_entropy
from mm.train.optimizer import build_adamw
from mm.train.progress import Progress
from mm.train.recipe import PARTS, RecipeConfig
from mm.train.run import RunFolder
from mm.train.stages import Stages
from mm.vlm import ImageFeatures, VisionLanguageModel


class TrainBatch(Protocol):
    """What the loop needs of a batch."""

    step: int
    packed: PackedBatch

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Any: ...


class Feed(Protocol):
    """Where batches come from. `dataset[step]` is the batch of that step, always the same."""

    patch_classes: tuple[int, ...]  # values of each patch label; (): the pictures have none

    @property
    def dataset(self) -> Dataset[Any]: ...
    @property
    def ledgers(self) -> Mapping[str, str]: ...

    def pixels(
        self, batch: Any, generator: torch.Generator
    ) -> tuple[Tensor | list[Tensor], Tensor | None]:
        """Pictures of a batch as uint8 [I, 3, S, S], or a list of [3, height, width] of other
        sizes, and their patch labels if there are any."""
        ...


Evaluate = Callable[[VisionLanguageModel], dict[str, float]]


def stream_seed(seed: int, name: str, step: int = 0) -> int:
    """The seed of a named random stream at a step: independent of every other name and step."""
    digest = hashlib.sha256(f"{seed}/{name}/{step}".encode()).digest()
    return int.from_bytes(digest[:7], "little")


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
    run = _Forward(modules, balance_weight(model, recipe) > 0)
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
        worker_init_fn=_leave_signals_to_the_loop,
    )
    metrics: dict[str, float] = {}
    sums = torch.zeros(3, device=device)
    guard = Guard(modules, folder)
    stands: Mapping[str, Any] = folder.cursor()  # scenes are found by the step alone
    progress, since = Progress(recipe.steps, start, folder.tokens(), device), start
    with _StopRequest() as stop:
        for step, batches in enumerate(progress.watch(in_steps(loader, recipe.accumulate)), start):
            if stages.is_start(step):
                stages.enter(stages.at(step)[0])
            rate = stages.set_rates(optimizer, step)
            guard.before()
            losses = _backward(model, run, feed, batches, recipe, device)
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


def _backward(
    model: VisionLanguageModel,
    run: _Forward,
    feed: Feed,
    batches: Sequence[TrainBatch],
    recipe: RecipeConfig,
    device: torch.device,
) -> Tensor:
    """Add up the gradients of a step's batches.

    Returns:
        Mean loss over the answer tokens of all batches, and the batches' mean patch loss and mean
        load-balancing loss (0 where there is none): `[3]`.
    """
    labelled = max(1, sum(len(batch.packed.label_ids) for batch in batches))
    together = torch.zeros(3, device=device)
    weight = balance_weight(model, recipe)
    for batch in batches:
        share = len(batch.packed.label_ids) / labelled if len(batches) > 1 else 1.0
        batch = batch.to(device, non_blocking=True)
        loss, patch_loss, balance = _losses(model, run, feed, batch, recipe)
        loss, patch_loss = loss * share, patch_loss / len(batches)
        total = loss + recipe.patch_loss_weight * patch_loss
        if run.balances:
            balance = balance / len(batches)
            total = total + weight * balance
        total.backward()
        together += torch.stack([loss.detach(), patch_loss.detach(), balance.detach()])
    return together


def _losses(
    model: VisionLanguageModel, run: _Forward, feed: Feed, batch: TrainBatch, recipe: RecipeConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """A batch's mean loss over answer tokens, its patch loss and its load-balancing loss."""
    packed = batch.packed
    device = packed.input_ids.device
    seed = stream_seed(recipe.seed, "render", batch.step)
    pictures, labels = feed.pixels(batch, torch.Generator(device).manual_seed(seed))
    with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
        hidden, patch_loss, balance = run(
            model.encoder.preprocess(pictures),
            packed.input_ids,
            packed.position_ids,
            packed.segment_ids,
            packed.prefix_ids,
            labels,
        )
        wanted = hidden.flatten(0, 1)[packed.label_positions]
        loss = linear_cross_entropy(wanted, model.decoder.lm_head.weight, packed.label_ids)
    return loss, patch_loss, balance


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


class _Forward(nn.Module):
    """Everything from pixels to hidden states."""

    def __init__(self, modules: nn.ModuleDict, balances: bool) -> None:
        super().__init__()
        self.parts = modules
        self.balances = balances

    def forward(
        self,
        pictures: Pictures,
        input_ids: Tensor,
        position_ids: Tensor,
        segment_ids: Tensor,
        prefix_ids: Tensor,
        labels: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        model: Any = self.parts["model"]  # Any: nn.ModuleDict forgets the class
        tokens = model.encoder.tokens(pictures)
        values = model.projector(tokens, pictures.grids)
        router_logits: list[Tensor] = []
        hidden = model.hidden(
            input_ids,
            image_features=ImageFeatures(values, model.token_grids(pictures)),
            position_ids=position_ids,
            attention_mask=attention_mask(segment_ids, prefix_ids),
            check=False,
            router_logits=router_logits if self.balances else None,
        )
        balance = hidden.new_zeros(())
        if self.balances:
            config = model.decoder.config
            balance = load_balancing_loss(
                router_logits, config.num_experts, config.num_experts_per_tok, segment_ids > 0
            )
        if labels is None or "patches" not in self.parts:
            return hidden, hidden.new_zeros(()), balance
        squares = tokens.unflatten(0, (len(pictures), -1))  # labels are of squares only
        patch_loss = self.parts["patches"](squares, pictures.grids[0], labels)
        return hidden, patch_loss, balance


def compile_blocks(model: nn.Module) -> None:
    """Compile the repeated blocks one by one.

    All blocks of a stack share one compiled graph, so this starts in a fraction of the time that
    compiling the whole model takes.
    """
    for module in model.modules():
        if isinstance(module, nn.ModuleList):
            for block in module:
                block.compile()


def balance_weight(model: VisionLanguageModel, recipe: RecipeConfig) -> float:
    """How much the experts' load counts beside the loss; 0 for a dense decoder."""
    if not any(map(model.decoder.config.is_moe_layer, range(len(model.decoder.model.layers)))):
        return 0.0
    own = model.decoder.config.router_aux_loss_coef
    return own if recipe.balance_weight is None else recipe.balance_weight


def recompute_blocks(parts: Iterable[nn.Module]) -> None:
    """Keep only what enters a part's repeated blocks; compute the rest again going backward."""
    for part in parts:
        for module in part.modules():
            if isinstance(module, nn.ModuleList):
                for block in module:
                    _recompute(block)


def _recompute(block: nn.Module) -> None:
    forward = block.forward

    def again(*args: Any, **kwargs: Any) -> Any:  # Any: as the block's own forward
        if not torch.is_grad_enabled() or not block.training:
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    block.forward = again


def in_steps(batches: Iterable[TrainBatch], accumulate: int) -> Iterator[list[TrainBatch]]:
    """Take `accumulate` batches at a time, which are a step's."""
    taken: list[TrainBatch] = []
    for batch in batches:
        taken.append(batch)
        if len(taken) == accumulate:
            yield taken
            taken = []


class _StopRequest:
    """Notes Ctrl-C and SIGTERM while the loop runs, so that it can save before it ends."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[signal.Signals, Any] = {}  # Any: what the signal module calls a handler

    def __enter__(self) -> _StopRequest:
        for name in (signal.SIGINT, signal.SIGTERM):
            try:
                self._before[name] = signal.signal(name, self._note)
            except ValueError:  # not the main thread: nobody sends it signals
                break
        return self

    def __exit__(self, *_: object) -> None:
        for name, handler in self._before.items():
            signal.signal(name, handler)

    def _note(self, *_: object) -> None:
        self.asked = True


def _leave_signals_to_the_loop(worker: int) -> None:
    """A signal to the whole process group must not take the workers before the loop has saved."""
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)
