import copy
from typing import Any

import pytest
import torch
from torch import nn

from mm.errors import ConfigError
from mm.registry import make_config
from mm.train.optimizer import build_optimizer
from mm.train.recipe import RecipeConfig
from mm.train.stages import Stages


class Parts(nn.Module):
    """Three parts, of which the encoder keeps statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
        self.projector = nn.Linear(4, 5)
        self.decoder = nn.Linear(5, 2)


def recipe(**values: Any) -> RecipeConfig:
    found: RecipeConfig = make_config(RecipeConfig, values, "recipe")
    return found


STAGED = {
    "steps": 10,
    "warmup_steps": 1,
    "decay_share": 0.0,
    "learning_rates": {"encoder": 0.25},
    "learning_rate": 0.5,
    "stages": [
        {"name": "align", "steps": 4, "train": ["projector"], "learning_rate": 2.0},
        {"name": "all", "train": ["encoder", "projector", "decoder"]},
    ],
}


def build(**values: Any) -> tuple[nn.ModuleDict, Stages]:
    torch.manual_seed(0)
    modules = nn.ModuleDict({"model": Parts(), "patches": nn.Linear(2, 2)})
    return modules, Stages(modules, recipe(**values))


def test_a_frozen_part_keeps_weights_and_statistics() -> None:
    modules, stages = build(**STAGED)
    optimizer = build_optimizer(modules, stages.recipe)
    model = modules["model"]
    state: dict[int, dict[str, torch.Tensor]] = {}
    for step in range(10):
        state[step] = copy.deepcopy(model.state_dict())
        if stages.is_start(step):
            stages.enter(stages.at(step)[0])
        stages.set_rates(optimizer, step)
        output = model.decoder(model.projector(model.encoder(torch.randn(8, 3))))
        output.square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    changed = {k for k in state[0] if not torch.equal(state[0][k], state[4][k])}
    assert changed == {"projector.weight", "projector.bias"}
    changed = {k for k in state[0] if not torch.equal(state[4][k], state[9][k])}
    assert changed == set(state[0])  # running mean and variance among them


def test_each_part_has_the_most_particular_rate_that_is_given() -> None:
    modules, stages = build(**STAGED)
    optimizer = build_optimizer(modules, stages.recipe)
    assert stages.set_rates(optimizer, 2) == 2.0
    assert {g["part"]: g["lr"] for g in optimizer.param_groups} == {
        "encoder": 2.0, "projector": 2.0, "decoder": 2.0, "": 2.0,
    }  # fmt: skip
    assert stages.set_rates(optimizer, 5) == 0.5
    assert {g["part"]: g["lr"] for g in optimizer.param_groups} == {
        "encoder": 0.25, "projector": 0.5, "decoder": 0.5, "": 0.5,
    }  # fmt: skip


def test_the_table_says_what_is_frozen_with_counts() -> None:
    lines = [line.split() for line in build(**STAGED)[1].table().splitlines()]
    assert lines[1] == ["align", "1-4", "encoder", "24", "0", "frozen"]
    assert lines[2] == ["projector", "25", "25", "2"]
    assert lines[4] == ["all", "5-10", "encoder", "24", "24", "0.25"]
    assert lines[6] == ["decoder", "12", "12", "0.5"]


def test_every_stage_has_a_schedule_of_its_own() -> None:
    modules, stages = build(**{**STAGED, "warmup_steps": 2})
    optimizer = build_optimizer(modules, stages.recipe)
    rates = [stages.set_rates(optimizer, step) for step in range(10)]
    assert rates[:6] == [1.0, 2.0, 2.0, 2.0, 0.25, 0.5]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stages": [{"name": "a", "train": ["encodr"]}]}, "did you mean 'encoder'"),
        ({"stages": [{"name": "a", "train": []}]}, "trains no part"),
        ({"stages": [{"name": "a", "train": ["decoder"], "steps": 3}]}, "take 3 steps"),
        ({"stages": [{"name": "a", "train": ["decoder"], "step": 3}]}, "did you mean 'steps'"),
        ({"stages": [{"name": "a", "train": ["decoder"]}] * 2}, "a name twice"),
        (
            {"stages": [{"name": n, "train": ["decoder"]} for n in "ab"]},
            "a, b have no steps",
        ),
        (
            {"frozen": ["encoder"], "stages": [{"name": "a", "train": ["decoder"]}]},
            "leave recipe.frozen out",
        ),
        ({"learning_rates": {"encoder": 0.0}}, "belongs in recipe.frozen"),
        ({"learning_rates": {"encodr": 1.0}}, "did you mean 'encoder'"),
        ({"schedule": "cosin"}, "'wsd' or 'cosine'"),
        ({"checkpoint_every": 0}, "checkpoint_every is 0"),
        ({"final_share": 1.5}, "lie between 0 and 1"),
    ],
)
def test_impossible_recipes_are_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, ValueError), match=message):
        recipe(steps=10, **values)
