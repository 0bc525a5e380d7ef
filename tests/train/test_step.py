"""A step: what it computes in which precision, and that it does not wait for a GPU."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mm.data.packing import Encoded, Row, collate, place
from mm.data.shard_stream import ShardBatch
from mm.errors import ConfigError
from mm.report.train_engines import Pixels, Setting, ours
from mm.train.distributed import World
from mm.train.recipe import PRECISIONS, RecipeConfig
from mm.train.step import Forward, backward
from mm.vlm import VisionLanguageModel
from tests.conftest import IMAGE_TOKEN_ID


def batch(length: int = 24, seed: int = 0) -> ShardBatch:
    """Two rows with a picture of 4 tokens and an answer each."""
    generator = torch.Generator().manual_seed(seed)
    rows = [Row(), Row()]
    for number, row in enumerate(rows):
        ids = torch.randint(10, 99, (length - 6,), generator=generator).tolist()
        answer = (ids, [at > 3 for at in range(len(ids))])
        place(row, Encoded(number, [8, *[IMAGE_TOKEN_ID] * 4, 9], [answer]), length)
    images = torch.randint(0, 256, (2, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return ShardBatch(0, collate(rows, length, 0), images)


def gradients(model: VisionLanguageModel, precision: str) -> tuple[Tensor, Tensor, list[Tensor]]:
    """The loss of a step, its gradient as one vector, and what the decoder's layers were given."""
    given: list[Tensor] = []
    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
        for layer in model.decoder.model.layers
    ]
    model.zero_grad()
    forward = Forward(nn.ModuleDict({"model": model}), balances=False)
    recipe = RecipeConfig(precision=precision)
    losses = backward(forward, Pixels(), [batch()], recipe, torch.device("cpu"), World())
    for hook in hooks:
        hook.remove()
    found = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return losses[0], torch.cat(found), given


@pytest.mark.parametrize("precision", PRECISIONS[1:])
def test_half_precision_is_close_to_float32(tiny_vlm: VisionLanguageModel, precision: str) -> None:
    loss, gradient, given = gradients(tiny_vlm, "fp32")
    assert {x.dtype for x in given} == {torch.float32}
    half_loss, half_gradient, half_given = gradients(tiny_vlm, precision)
    wanted = torch.bfloat16 if precision == "bf16_residual" else torch.float32
    assert {x.dtype for x in half_given} == {wanted}
    assert 0 < (half_loss - loss).abs() < 0.03
    assert torch.cosine_similarity(half_gradient, gradient, dim=0) > 0.99
    assert half_gradient.dtype == torch.float32  # of float32 weights


def test_a_model_that_learned_so_runs_in_float32_after_it(tiny_vlm: VisionLanguageModel) -> None:
    ids = torch.arange(10, 20)[None]
    before = tiny_vlm(ids)
    gradients(tiny_vlm, "bf16_residual")
    assert torch.equal(tiny_vlm(ids), before)


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ConfigError, match="known: bf16, bf16_residual, fp32"):
        RecipeConfig(precision="fp8")


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode:UserWarning")
@pytest.mark.parametrize("length", [24, 1000])  # the plain mask, and blocks
def test_a_step_does_not_wait_for_the_gpu(
    tiny_vlm: VisionLanguageModel, tmp_path: Path, length: int
) -> None:
    where = Setting(torch.device("cuda"), True, 0, tmp_path)
    step = ours(tiny_vlm.config, where, compiled=False)
    for seed in range(2):
        step(batch(length, seed).pin_memory())
    ready = batch(length, 2).pin_memory()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(ready)
    finally:
        torch.cuda.set_sync_debug_mode("default")
