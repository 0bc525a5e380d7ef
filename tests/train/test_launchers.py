"""Sweeps through what the extra `sweep` installs, with a stand-in for training."""

import importlib.util
from pathlib import Path

import pytest

from mm.errors import UsageError
from mm.train.sweep import check_plugins
from tests.train.test_sweep import index, sweep, taken


def needs(plugin: str) -> None:
    pytest.importorskip(f"hydra_plugins.{plugin}", reason=f"{plugin}, an extra, is not installed")


@pytest.mark.parametrize(
    ("plugin", "overrides"),
    [
        ("hydra_joblib_launcher", ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]),
        ("hydra_submitit_launcher", ["hydra/launcher=submitit_local"]),
        ("hydra_ray_launcher", ["hydra/launcher=ray"]),
    ],
)
def test_a_launcher_runs_every_job_and_again_only_what_failed(
    tmp_path: Path, plugin: str, overrides: list[str]
) -> None:
    needs(plugin)
    (tmp_path / "fail").write_text("1")
    first = sweep(tmp_path, "recipe.seed=0,1", *overrides)
    assert first.returncode == 1 and "this seed fails" in first.stderr, first.stderr
    assert taken(tmp_path) == [0, 1]
    assert sorted(entry["state"] for entry in index(tmp_path)) == ["done", "failed"]
    (tmp_path / "fail").unlink()
    second = sweep(tmp_path, "recipe.seed=0,1", *overrides)
    assert second.returncode == 0, second.stderr
    assert taken(tmp_path) == [1]
    assert [entry["state"] for entry in index(tmp_path)] == ["done", "done"]


def test_optuna_looks_for_the_best_and_goes_on_with_the_trials_that_are_missing(
    tmp_path: Path,
) -> None:
    needs("hydra_optuna_sweeper")
    space = ["hydra/sweeper=tpe", "recipe.learning_rate=interval(0,1)"]
    first = sweep(tmp_path, *space, "hydra.sweeper.n_trials=3")
    assert first.returncode == 0, first.stderr
    assert len(taken(tmp_path)) == 3
    second = sweep(tmp_path, *space, "hydra.sweeper.n_trials=12")
    assert second.returncode == 0, second.stderr
    assert len(taken(tmp_path)) == 9
    best = min(entry["metrics"]["loss"] for entry in index(tmp_path))
    assert len(index(tmp_path)) == 12 and best < 0.15**2
    assert f"Best value: {best}"[:18] in first.stdout + second.stdout


def test_optuna_passes_over_a_trial_that_fails(tmp_path: Path) -> None:
    needs("hydra_optuna_sweeper")
    (tmp_path / "fail").write_text("0")
    space = ["hydra/sweeper=tpe", "recipe.seed=choice(0,1)", "hydra.sweeper.n_trials=8"]
    done = sweep(tmp_path, *space)
    assert done.returncode == 1, done.stderr
    assert {entry["state"] for entry in index(tmp_path)} == {"done", "failed"}


def test_a_missing_launcher_is_named_with_its_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'mm\[sweep\]'"):
        check_plugins(["-m", "hydra/launcher=joblib"])
    check_plugins(["-m", "hydra/launcher=basic", "encoder=a,b"])
