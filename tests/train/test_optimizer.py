"""Muon and AdamW over the parameter groups of a recipe."""

from pathlib import Path

import pytest
import torch
from torch import nn

from mm.errors import CheckpointError, ConfigError
from mm.train.optimizer import MuonWithAdamW, build_optimizer, check_state
from mm.train.recipe import RecipeConfig
from mm.train.run import RunFolder


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.norm = nn.Linear(4, 6), nn.LayerNorm(6)
        self.experts = nn.Parameter(torch.randn(2, 6, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.norm(self.up(x))
        return y + x @ self.experts.sum(0).T


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens, self.lm_head = nn.Embedding(9, 4), nn.Linear(6, 9, bias=False)
        self.layers = nn.ModuleList([Block()])


def build(optimizer: str) -> tuple[nn.ModuleDict, RecipeConfig]:
    torch.manual_seed(3)
    model = nn.Module()
    model.encoder, model.projector, model.decoder = Block(), nn.Linear(3, 4), Decoder()
    recipe = RecipeConfig(optimizer=optimizer, learning_rate=0.01)  # type: ignore[arg-type]
    return nn.ModuleDict({"model": model}), recipe


def loss(modules: nn.ModuleDict, x: torch.Tensor) -> torch.Tensor:
    decoder: Decoder = modules["model"].decoder
    hidden = decoder.layers[0](modules["model"].projector(x) + decoder.embed_tokens.weight[0])
    found: torch.Tensor = decoder.lm_head(hidden).square().mean()
    return found


def test_muon_takes_matrices_within_blocks_and_adamw_all_else() -> None:
    modules, recipe = build("muon")
    optimizer = build_optimizer(modules, recipe)
    assert isinstance(optimizer, MuonWithAdamW)
    names = {p: name for name, p in modules.named_parameters()}
    by_muon = {names[p] for g in optimizer.param_groups if "ns_steps" in g for p in g["params"]}
    assert by_muon == {"model.decoder.layers.0.up.weight"}
    everything = [p for g in optimizer.param_groups for p in g["params"]]
    assert len(everything) == len(set(everything)) == len(names)
    decayed = {names[p] for g in optimizer.param_groups if g["weight_decay"] for p in g["params"]}
    assert "model.decoder.embed_tokens.weight" not in decayed and by_muon < decayed
    assert {g["part"] for g in optimizer.param_groups} == {"encoder", "projector", "decoder"}


def test_a_step_is_muons_for_its_matrices_and_adamws_for_the_others() -> None:
    modules, recipe = build("muon")
    twins, _ = build("muon")
    up, norm = (
        dict(twins.named_parameters())[f"model.decoder.layers.0.{n}.weight"] for n in ("up", "norm")
    )
    singles = [
        torch.optim.Muon([up], lr=0.01, weight_decay=recipe.weight_decay,
                         adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW([norm], lr=0.01, betas=(0.9, 0.98), weight_decay=0.0),
    ]  # fmt: skip
    optimizer = build_optimizer(modules, recipe)
    for step in range(3):
        x = torch.randn(5, 3, generator=torch.Generator().manual_seed(step))
        loss(modules, x).backward()
        up.grad, norm.grad = (
            dict(modules.named_parameters())[f"model.decoder.layers.0.{n}.weight"].grad
            for n in ("up", "norm")
        )
        for each in (optimizer, *singles):
            each.step()
        optimizer.zero_grad(set_to_none=True)
    found = dict(modules.named_parameters())
    assert torch.equal(found["model.decoder.layers.0.up.weight"], up)
    assert torch.equal(found["model.decoder.layers.0.norm.weight"], norm)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_going_on_from_a_checkpoint_is_bit_for_bit(tmp_path: Path, kind: str) -> None:
    def steps(modules: nn.ModuleDict, optimizer: torch.optim.Optimizer, numbers: range) -> None:
        for step in numbers:
            x = torch.randn(5, 3, generator=torch.Generator().manual_seed(step))
            loss(modules, x).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    modules, recipe = build(kind)
    through = build_optimizer(modules, recipe)
    steps(modules, through, range(6))
    first, _ = build(kind)
    optimizer = build_optimizer(first, recipe)
    steps(first, optimizer, range(3))
    folder = RunFolder(tmp_path)
    folder.save(3, first, optimizer)
    again, _ = build(kind)
    resumed = build_optimizer(again, recipe)
    assert folder.resume(again, resumed) == 3
    check_state(resumed, recipe)
    steps(again, resumed, range(3, 6))
    wanted = modules.state_dict()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in again.state_dict().items())
    other, different = build("adamw" if kind == "muon" else "muon")
    wrong = build_optimizer(other, different)
    folder.resume(other, wrong)
    with pytest.raises(CheckpointError, match="of another optimizer"):
        check_state(wrong, different)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("momentum", 1.0, "from 0 to below 1"),
        ("gradient_clip", 0.0, "must be above 0"),
        ("weight_decay", -0.1, "starts at 0"),
    ],
)
def test_impossible_numbers_are_named(field: str, value: float, message: str) -> None:
    with pytest.raises(ConfigError, match=f"recipe.{field} is .*{message}"):
        RecipeConfig(**{field: value})  # type: ignore[arg-type]
