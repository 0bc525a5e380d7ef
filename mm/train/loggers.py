"""Where a run's numbers go besides its own `metrics.jsonl`: TensorBoard and other trackers.

A tracker is a class with `log` and `close`, made from the run's folder and name. Their packages are
never required: `logger: auto` takes TensorBoard if it is installed, and nothing otherwise.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from mm.errors import ConfigError, UsageError
from mm.registry import unknown_name_message

# The module that each needs, and what installs it.
NEEDS = {
    "tensorboard": ("tensorboard", "tensorboard"),
    "wandb": ("wandb", "wandb"),
    "mlflow": ("mlflow", "mlflow"),
    "trackio": ("trackio", "trackio"),
}


class Tracker(Protocol):
    """One place that numbers go to."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take the numbers of a step."""

    def close(self) -> None:
        """Hand over what is still held."""


class TensorBoard:
    """Event files in the run's folder `tensorboard/`."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder / "tensorboard"
        self._writer: Any = None  # Any: the class of an extra

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write scalars; after a resume, TensorBoard forgets the steps that are taken again."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._folder), purge_step=step)
        for key, value in values.items():
            self._writer.add_scalar(key, value, step)

    def close(self) -> None:
        """Write what is buffered."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class Runs:
    """Weights & Biases or Trackio, whose packages are used alike; one run per folder."""

    def __init__(self, package: str, folder: Path, name: str) -> None:
        self._package: Any = importlib.import_module(package)  # Any: a module of an extra
        more: dict[str, Any] = {"dir": str(folder)} if package == "wandb" else {}
        self._package.init(project="mm", name=f"{name}/{folder.name}", **more)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log a step."""
        self._package.log(dict(values), step=step)

    def close(self) -> None:
        """End the run."""
        self._package.finish()


class MLflow:
    """A run in MLflow's experiment `mm`, at the place that its own settings say."""

    def __init__(self, folder: Path, name: str) -> None:
        self._mlflow: Any = importlib.import_module("mlflow")  # Any: a module of an extra
        self._mlflow.set_experiment("mm")
        self._mlflow.start_run(run_name=f"{name}/{folder.name}")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log a step."""
        self._mlflow.log_metrics(dict(values), step=step)

    def close(self) -> None:
        """End the run."""
        self._mlflow.end_run()


def build(chosen: str | Sequence[str], folder: Path, name: str) -> list[Tracker]:
    """Make the trackers that `logger` names: `auto`, `none`, one name or several.

    Raises:
        ConfigError: an unknown name.
        UsageError: its package is not installed.
    """
    names = [chosen] if isinstance(chosen, str) else list(chosen)
    if names == ["none"]:
        return []
    if names == ["auto"]:
        names = ["tensorboard"] if _has("tensorboard") else []
    trackers: list[Tracker] = []
    for each in names:
        if each not in NEEDS:
            raise ConfigError(unknown_name_message("logger", each, ("auto", "none", *NEEDS)))
        module, package = NEEDS[each]
        if not _has(module):
            raise UsageError(
                f"logger={each} needs {package}: pip install {package}, or logger=none"
            )
        if each == "tensorboard":
            trackers.append(TensorBoard(folder, name))
        elif each == "mlflow":
            trackers.append(MLflow(folder, name))
        else:
            trackers.append(Runs(module, folder, name))
    return trackers


def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
