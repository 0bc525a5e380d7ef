"""Sweeps through what the extra `sweep` installs: a stand-in for training, and slow real ones."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mm.errors import UsageError
from mm.train.sweep import check_plugins
from tests.train import tiny_run
from tests.train.test_sweep import index, sweep, taken

ROOT = Path(__file__).resolve().parents[2]


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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plugin", "overrides"),
    [
        ("", []),
        ("hydra_joblib_launcher", ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]),
        ("hydra_submitit_launcher", ["hydra/launcher=submitit_local"]),
        ("hydra_ray_launcher", ["hydra/launcher=ray", "+hydra.launcher.ray.init.num_cpus=2"]),
    ],
)
def test_a_launcher_trains(tmp_path: Path, plugin: str, overrides: list[str]) -> None:
    if plugin:
        needs(plugin)
    tiny_run.prepare(tmp_path)
    words = [word for word in tiny_run.overrides(tmp_path) if not word.startswith("output=")]
    words += ["recipe.steps=3", f"output={tmp_path}/sweep", "recipe.seed=0,1", *overrides]
    command = [sys.executable, "scripts/train.py", "-m", "hydra.sweeper.max_batch_size=2", *words]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True,
        text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    jobs = index(tmp_path)
    assert [job["state"] for job in jobs] == ["done", "done"]
    losses = [job["metrics"]["loss"] for job in jobs]
    assert len(set(losses)) == 2 and all(5 < loss < 8 for loss in losses)
    assert all(
        (tmp_path / "sweep" / job["job"] / "model/model.safetensors").exists() for job in jobs
    )


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
    # It went on to the end: both were tried, and Optuna summed up.
    assert len(taken(tmp_path)) >= 2 and "Best value: 1.089" in done.stdout + done.stderr


def test_a_missing_launcher_is_named_with_its_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'mm\[sweep\]'"):
        check_plugins(["-m", "hydra/launcher=joblib"])
    check_plugins(["-m", "hydra/launcher=basic", "encoder=a,b"])
