"""`plan=true`: what would be trained, without data, memory or time."""

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from mm.errors import MMError
from mm.report.describe.figures import training_costs
from mm.train.build import run

ROOT = Path(__file__).resolve().parents[2]


def planned(capsys: pytest.CaptureFixture[str], *overrides: str) -> str:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        fixed = ["name=plan", "plan=true", f"tokenizer={ROOT}/mm/assets/scenes-12m/tokenizer.json"]
        composed = compose("train", [*fixed, "device=cpu", *overrides])
    plain: Any = OmegaConf.to_container(composed, resolve=True)
    del plain["objective"]
    assert run(plain, "", lambda *_: None, training_costs) == {}
    return capsys.readouterr().out


def test_a_plan_of_a_large_model_needs_neither_its_memory_nor_data(
    capsys: pytest.CaptureFixture[str],
) -> None:
    stream = "{rows: 1, row_length: 16384, images_per_row: 16}"
    wanted = ["encoder=siglip_base", "projector=mlp", "decoder=qwen3_32b", "data=shards"]
    out = planned(
        capsys,
        *wanted,
        f"++data.stream={stream}",
        "data.shards=[/nowhere/photos]",
        "recipe.steps=1000",
        "recipe.accumulate=4",
    )
    assert "a picture takes" in out and "32,7" in out  # billions of parameters
    assert "1,000 steps of 4 rows of 16,384 tokens: 65.5 M tokens" in out
    assert "not known before /nowhere/photos is there" in out
    assert "on one H100" in out and " h here" in out


def test_a_plan_counts_what_learns(capsys: pytest.CaptureFixture[str]) -> None:
    def optimizer_mb(*overrides: str) -> float:
        out = planned(capsys, *overrides)
        assert "every label survives" in out
        return float(out.split("optimizer ")[1].split(" MB")[0].replace(",", ""))

    adamw, muon = optimizer_mb(), optimizer_mb("optimizer=muon")
    adapted = optimizer_mb("recipe.lora.decoder={rank: 2}", "recipe.frozen=[encoder,projector]")
    assert adapted < muon / 10 and adamw / 2 < muon < adamw


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["encoder=qwen3_vl_so400m", "projector=deepstack"], "data=scenes draws squares"),
        (
            ["data=shards", "++data.stream.row_length=20", "encoder=siglip_base"],
            "row_length is 20, but a picture alone takes",
        ),
        (["data=shards", "recipe.evaluate_every=5"], "nothing to evaluate: set data.held_out.sh"),
        (["recipe.keep_best=held_out/caption.en"], "set recipe.evaluate_every as well"),
        (["optimizer=muon", "recipe.frozen=[encoder,decoder]"], "optimizer=muon has no matrix"),
        (["logger=wandb", "+logger.wandb.projekt=x"], "did you mean 'project'"),
        (["recipe.lora.encoder={targets: [q_prj]}"], "known: .*q_proj"),
    ],
)
def test_what_cannot_work_together_is_named_before_anything_is_loaded(
    capsys: pytest.CaptureFixture[str], overrides: list[str], message: str
) -> None:
    with pytest.raises((MMError, ValueError), match=message):
        planned(capsys, *overrides)
