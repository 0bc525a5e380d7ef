import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from mm.errors import ConfigError, StoppedError
from mm.train.sweep import fingerprint, job_name, read_status, start, write_index

ROOT = Path(__file__).resolve().parents[2]


def sweep(place: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.train.sweep_app", "-m", "experiment=scenes_smoke"]
    environment = {**os.environ, "SWEEP_TEST": str(place), "PYTHONPATH": str(ROOT)}
    if not any(word.startswith("output=") for word in overrides):
        command.append(f"output={place}/sweep")
    command += overrides
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )


def taken(place: Path) -> list[int]:
    """Seeds of the jobs that were run since the last question, in order."""
    files = list(place.glob("took-*"))
    seeds = sorted(int(file.name.split("-")[1]) for file in files)
    for file in files:
        file.unlink()
    return seeds


def index(place: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((place / "sweep/index.json").read_text())
    return found


def test_a_rerun_takes_what_is_missing_failed_or_was_killed(tmp_path: Path) -> None:
    seeds = "recipe.seed=0,1,2"
    (tmp_path / "fail").write_text("1")
    (tmp_path / "kill").write_text("2")
    first = sweep(tmp_path, seeds)
    assert first.returncode == -signal.SIGKILL, first.stderr
    assert taken(tmp_path) == [0, 1, 2]
    states = {entry["overrides"][-1]: entry["state"] for entry in write_index(tmp_path / "sweep")}
    assert states == {
        "recipe.seed=0": "done", "recipe.seed=1": "failed", "recipe.seed=2": "killed",
    }  # fmt: skip
    (tmp_path / "kill").unlink()
    second = sweep(tmp_path, seeds)  # seed 1 fails again, and 2 is taken all the same
    assert second.returncode == 1 and "this seed fails" in second.stderr
    assert taken(tmp_path) == [1, 2]
    (tmp_path / "fail").unlink()
    third = sweep(tmp_path, seeds + ",3")
    assert third.returncode == 0, third.stderr
    assert taken(tmp_path) == [1, 3]
    assert [entry["state"] for entry in index(tmp_path)] == ["done"] * 4
    assert sorted(entry["metrics"]["loss"] // 1 for entry in index(tmp_path)) == [0, 1, 2, 3]
    for entry in index(tmp_path):  # each folder says by itself what it is
        folder = tmp_path / "sweep" / entry["job"]
        config = yaml.safe_load((folder / "config.yaml").read_text())
        assert config["output"] == str(folder)
        assert f"recipe.seed={config['recipe']['seed']}" in read_status(folder)["overrides"]


def test_a_sweep_is_named_after_its_experiment_unless_told(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    done = sweep(tmp_path, "recipe.seed=0,1", f"output={tmp_path}/runs/${{name}}")
    assert done.returncode == 0, done.stderr
    names = [entry["job"] for entry in write_index(tmp_path / "runs/scenes_smoke")]
    assert [name.split("-")[0] for name in names] == ["seed=0", "seed=1"]
    assert (tmp_path / "runs/scenes_smoke/multirun.yaml").exists()


def composed(output: Path, **more: Any) -> Any:
    values = {"output": str(output), "name": "n", "plan": False, "objective": "loss", **more}
    return OmegaConf.create(values)


def test_what_decides_the_result_decides_the_folder() -> None:
    one = {"output": "a", "recipe": {"seed": 0}}
    assert fingerprint(one) == fingerprint({**one, "output": "b", "logger": {"x": 1}})
    assert fingerprint(one) != fingerprint({**one, "recipe": {"seed": 1}})
    overrides = ["experiment=x", "encoder=a", "+data.artwork=[a/b c]", "hydra/launcher=ray"]
    assert job_name(overrides, "0123456789") == "encoder=a,artwork=b_c_-01234567"
    assert len(job_name(["encoder=" + "x" * 400], "0123456789")) < 255


def test_a_job_at_which_another_process_is_is_left_to_it(tmp_path: Path) -> None:
    calls = []

    def train(values: dict[str, Any], text: str) -> dict[str, float]:
        calls.append(1)
        if len(calls) == 1:  # the same job once more, while it runs
            start(composed(tmp_path), [], True, train)
        return {"loss": 1.0}

    assert start(composed(tmp_path), [], True, train) == 1.0
    assert len(calls) == 1


def test_a_stopped_job_ends_the_sweep_and_is_taken_up_again(tmp_path: Path) -> None:
    def stop(values: dict[str, Any], text: str) -> dict[str, float]:
        raise StoppedError("stopped after step 3 as asked")

    with pytest.raises(SystemExit):
        start(composed(tmp_path), [], True, stop)
    assert [entry["state"] for entry in write_index(tmp_path)] == ["stopped"]
    assert start(composed(tmp_path), [], True, lambda *_: {"loss": 2.0}) == 2.0
    with pytest.raises(StoppedError):  # a run by itself says so to its caller
        start(composed(tmp_path / "alone"), [], False, stop)


def test_time_adds_up_over_restarts_of_the_same_configuration(tmp_path: Path) -> None:
    start(composed(tmp_path), [], False, lambda *_: {"loss": 2.0})
    status = read_status(tmp_path)
    (tmp_path / "status.json").write_text(json.dumps({**status, "seconds": 100.0}))
    start(composed(tmp_path), [], False, lambda *_: {"loss": 2.0})
    assert read_status(tmp_path)["seconds"] >= 100.0
    start(composed(tmp_path, seed=1), [], False, lambda *_: {"loss": 2.0})
    assert read_status(tmp_path)["seconds"] < 100.0


def test_an_unknown_objective_names_the_known(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'loss'"):
        start(composed(tmp_path, objective="los"), [], True, lambda *_: {"loss": 2.0})
