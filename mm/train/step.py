"""What a step computes: from its batches to a loss, and back to gradients."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from mm.data.documents import attention_structure
from mm.data.packing import PackedBatch
from mm.decoder.experts import load_balancing_loss
from mm.encoders import Pictures
from mm.train.distributed import World
from mm.train.objective import linear_cross_entropy
from mm.train.recipe import RecipeConfig
from mm.vlm import ImageFeatures, VisionLanguageModel

BLANK = (64, 64)  # height and width of the picture that stands in where there is none


class TrainBatch(Protocol):
    """What a step needs of a batch."""

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
        sizes (empty: rows of text alone), and their patch labels if there are any."""
        ...


def stream_seed(seed: int, name: str, step: int = 0) -> int:
    """The seed of a named random stream at a step: independent of every other name and step."""
    digest = hashlib.sha256(f"{seed}/{name}/{step}".encode()).digest()
    return int.from_bytes(digest[:7], "little")


class Forward(nn.Module):
    """Everything from pixels to the losses, in one call: so its weights are at hand throughout.

    Args:
        modules: the `model`, and auxiliary heads beside it.
        balances: whether the experts' load counts.
    """

    def __init__(self, modules: nn.ModuleDict, balances: bool) -> None:
        super().__init__()
        self.parts = modules
        self.balances = balances

    @property
    def model(self) -> VisionLanguageModel:
        """What is trained."""
        model: Any = self.parts["model"]  # Any: nn.ModuleDict forgets the class
        return model  # type: ignore[no-any-return]

    def forward(
        self, pictures: Pictures, packed: PackedBatch, labels: Tensor | None, blank: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """A batch's mean loss over answer tokens, its patch loss and its load-balancing loss.

        Args:
            blank: the rows are text alone, and the picture is no part of them; it is encoded for
                nothing, as all processes must compute the same layers.
        """
        model = self.model
        tokens = model.encoder.tokens(pictures)
        values = model.projector(tokens, pictures.grids)
        router_logits: list[Tensor] = []
        hidden = model.hidden(
            packed.input_ids,
            image_features=None if blank else ImageFeatures(values, model.token_grids(pictures)),
            position_ids=packed.position_ids,
            attention_mask=attention_structure(packed.segment_ids, packed.prefix_ids),
            check=False,
            router_logits=router_logits if self.balances else None,
        )
        wanted = hidden.flatten(0, 1)[packed.label_positions]
        loss = linear_cross_entropy(wanted, model.decoder.lm_head.weight, packed.label_ids)
        if blank:
            loss = loss + 0.0 * values.float().sum()
        balance = hidden.new_zeros(())
        if self.balances:
            config = model.decoder.config
            balance = load_balancing_loss(
                router_logits,
                config.num_experts,
                config.num_experts_per_tok,
                packed.segment_ids > 0,
            )
        if labels is None or "patches" not in self.parts:
            return loss, hidden.new_zeros(()), balance
        squares = tokens.unflatten(0, (len(pictures), -1))  # labels are of squares only
        return loss, self.parts["patches"](squares, pictures.grids[0], labels), balance


def balance_weight(model: VisionLanguageModel, recipe: RecipeConfig) -> float:
    """How much the experts' load counts beside the loss; 0 for a dense decoder."""
    if not any(map(model.decoder.config.is_moe_layer, range(len(model.decoder.model.layers)))):
        return 0.0
    own = model.decoder.config.router_aux_loss_coef
    return own if recipe.balance_weight is None else recipe.balance_weight


def backward(
    run: Forward,
    feed: Feed,
    batches: Sequence[TrainBatch],
    recipe: RecipeConfig,
    device: torch.device,
    world: World,
) -> Tensor:
    """Add up the gradients of a step's batches, of which each process has as many.

    Returns:
        Mean loss over the answer tokens of all batches, and the batches' mean patch loss and mean
        load-balancing loss (0 where there is none): `[3]`, the same in every process.
    """
    own = sum(len(batch.packed.label_ids) for batch in batches)
    labelled: Any = max(1, own)
    if world.size > 1:  # on the device, so that nothing waits for it
        labelled = world.total(torch.tensor(float(own), device=device)).clamp_min(1.0)
    number = len(batches) * world.size
    together = torch.zeros(3, device=device)
    weight = balance_weight(run.model, recipe)
    for batch in batches:
        share = len(batch.packed.label_ids) / labelled if number > 1 else 1.0
        batch = batch.to(device, non_blocking=True)
        loss, patch_loss, balance = losses(run, feed, batch, recipe)
        loss, patch_loss = loss * share, patch_loss / number
        total = loss + recipe.patch_loss_weight * patch_loss
        if run.balances:
            balance = balance / number
            total = total + weight * balance
        total.backward()
        together += torch.stack([loss.detach(), patch_loss.detach(), balance.detach()])
    return world.total(together)


def losses(
    run: Forward, feed: Feed, batch: TrainBatch, recipe: RecipeConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """The losses of a batch that is on the device; see `Forward`."""
    device = batch.packed.input_ids.device
    seed = stream_seed(recipe.seed, "render", batch.step)
    pictures, labels = feed.pixels(batch, torch.Generator(device).manual_seed(seed))
    half = torch.bfloat16 if recipe.precision == "bf16_residual" else None
    run.model.decoder.model.residual_dtype = half
    if blank := not len(pictures):
        pictures = [torch.zeros(3, *BLANK, dtype=torch.uint8, device=device)]
    with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision != "fp32"):
        found: tuple[Tensor, Tensor, Tensor] = run(
            run.model.encoder.preprocess(pictures), batch.packed, labels, blank
        )
    return found
