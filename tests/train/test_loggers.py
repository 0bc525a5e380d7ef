import sys
import types
from pathlib import Path
from typing import Any

import pytest

from mm.errors import ConfigError, UsageError
from mm.train import loggers
from mm.train.run import RunFolder
from mm.train.sweep import summary


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, *functions: str) -> list[Any]:
    """A module that notes its calls, as the package is not installed."""
    calls: list[Any] = []
    module = types.ModuleType(name)
    for each in functions:
        setattr(module, each, lambda *a, _name=each, **k: calls.append((_name, a, k)))
    monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(loggers, "_has", lambda module: True)
    return calls


def test_tensorboard_takes_the_numbers_of_a_run(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trackers = loggers.build({"auto": {}}, tmp_path, "n")
    folder = RunFolder(tmp_path, trackers)
    for step, loss in ((5, 3.0), (10, 2.0)):
        folder.log({"step": step, "loss": loss})
    trackers[0].close()
    read = EventAccumulator(str(tmp_path / "tensorboard"))
    read.Reload()
    assert [(event.step, event.value) for event in read.Scalars("loss")] == [(5, 3.0), (10, 2.0)]


@pytest.mark.parametrize("package", ["wandb", "trackio"])
def test_trackers_by_name_get_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    calls = stand_in(monkeypatch, package, "init", "log", "finish")
    (tracker,) = loggers.build({package: {"group": "g"}}, tmp_path, "n")
    RunFolder(tmp_path, [tracker]).log({"step": 5, "loss": 3.0, "note": "x"})
    tracker.close()
    assert [call[0] for call in calls] == ["init", "log", "finish"]
    assert calls[0][2]["group"] == "g" and calls[0][2]["project"] == "mm"
    assert "entity" not in calls[0][2] and "space_id" not in calls[0][2]
    assert calls[1][1:] == (({"loss": 3.0},), {"step": 5})


def test_mlflow_gets_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("set_experiment", "start_run", "log_metrics", "end_run")
    calls = stand_in(monkeypatch, "mlflow", *names)
    (tracker,) = loggers.build({"mlflow": {"experiment": "e"}}, tmp_path, "n")
    tracker.log(5, {"loss": 3.0})
    tracker.close()
    assert [call[0] for call in calls] == list(names)
    assert calls[0][1] == ("e",)
    assert calls[2][1:] == (({"loss": 3.0},), {"step": 5})


def test_unknown_and_missing_trackers_say_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="did you mean 'wandb'"):
        loggers.build({"wandbb": {}}, tmp_path, "n")
    monkeypatch.setattr(loggers, "_has", lambda module: False)
    with pytest.raises(UsageError, match="pip install wandb"):
        loggers.build({"wandb": None}, tmp_path, "n")
    with pytest.raises(ValueError, match="did you mean 'project'"):
        loggers.build({"wandb": {"projet": "x"}}, tmp_path, "n")
    for name in ("auto", "none"):
        assert loggers.build({name: {}}, tmp_path, "n") == []


def test_the_summary_says_time_memory_and_measures() -> None:
    status = {"seconds": 12.34, "peak_memory_bytes": 2**31, "metrics": {"loss": 1.5}}
    lines = summary(Path("runs/a"), status).splitlines()
    assert lines[0] == "runs/a: done in 12.3 s, 2,048 MiB at its peak"
    assert lines[1].split() == ["loss", "1.5"]
