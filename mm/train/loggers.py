"""Where a run's numbers go besides its own `metrics.jsonl`: TensorBoard and other trackers.

A tracker is a class with `log` and `close`, made from the run's folder and name. Their packages are
never required: `logger=auto` takes TensorBoard if it is installed, and nothing otherwise.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from mm.errors import ConfigError, UsageError
from mm.registry import make_config, unknown_name_message

NEEDS = ("tensorboard", "wandb", "mlflow", "trackio")  # packages, and modules, of these names


@dataclass(frozen=True)
class NoConfig:
    """There is nothing to say."""


class Tracker(Protocol):
    """One place that numbers go to."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take the numbers of a step."""

    def close(self) -> None:
        """Hand over what is still held."""


class TensorBoard:
    """Event files in the run's folder `tensorboard/`."""

    def __init__(self, folder: Path) -> None:
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


@dataclass(frozen=True)
class WandbConfig:
    """What Weights & Biases is asked for; None: as its own settings say."""

    project: str = "mm"
    entity: str | None = None
    group: str | None = None
    mode: str | None = None  # online, offline or disabled


@dataclass(frozen=True)
class TrackioConfig:
    """What Trackio is asked for."""

    project: str = "mm"
    group: str | None = None
    space_id: str | None = None


@dataclass(frozen=True)
class MLflowConfig:
    """What MLflow is asked for."""

    experiment: str = "mm"
    tracking_uri: str | None = None


class Runs:
    """Weights & Biases or Trackio, whose packages are used alike; one run per folder."""

    def __init__(
        self, package: str, config: WandbConfig | TrackioConfig, folder: Path, name: str
    ) -> None:
        self._package: Any = importlib.import_module(package)  # Any: a module of an extra
        given = {key: value for key, value in asdict(config).items() if value is not None}
        if package == "wandb":
            given["dir"] = str(folder)
        self._package.init(name=f"{name}/{folder.name}", **given)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log a step."""
        self._package.log(dict(values), step=step)

    def close(self) -> None:
        """End the run."""
        self._package.finish()


class MLflow:
    """A run in an experiment of MLflow."""

    def __init__(self, config: MLflowConfig, folder: Path, name: str) -> None:
        self._mlflow: Any = importlib.import_module("mlflow")  # Any: a module of an extra
        if config.tracking_uri is not None:
            self._mlflow.set_tracking_uri(config.tracking_uri)
        self._mlflow.set_experiment(config.experiment)
        self._mlflow.start_run(run_name=f"{name}/{folder.name}")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log a step."""
        self._mlflow.log_metrics(dict(values), step=step)

    def close(self) -> None:
        """End the run."""
        self._mlflow.end_run()


CONFIGS: dict[str, type[Any]] = {  # Any: each its own fields
    "auto": NoConfig, "none": NoConfig, "tensorboard": NoConfig,
    "wandb": WandbConfig, "trackio": TrackioConfig, "mlflow": MLflowConfig,
}  # fmt: skip


def check(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Make the config of each tracker that `logger` names.

    Raises:
        ConfigError: an unknown name.
        ValueError: an unknown field, or a value of the wrong type.
    """
    for each in chosen:
        if each not in CONFIGS:
            raise ConfigError(unknown_name_message("logger", each, tuple(CONFIGS)))
    return {
        each: make_config(CONFIGS[each], fields or {}, f"logger.{each}")
        for each, fields in chosen.items()
    }


def build(chosen: Mapping[str, Any], folder: Path, name: str) -> list[Tracker]:
    """Make the trackers that `logger` names, each with its fields; `auto` is TensorBoard if there.

    Raises:
        ConfigError, ValueError: as `check`.
        UsageError: a package is not installed.
    """
    configs = check(chosen)
    if "auto" in configs and _has("tensorboard"):
        configs["tensorboard"] = NoConfig()
    trackers: list[Tracker] = []
    for each, config in configs.items():
        if each not in NEEDS:
            continue
        if not _has(each):
            raise UsageError(f"logger={each} needs {each}: pip install {each}, or logger=none")
        if each == "tensorboard":
            trackers.append(TensorBoard(folder))
        elif each == "mlflow":
            trackers.append(MLflow(config, folder, name))
        else:
            trackers.append(Runs(each, config, folder, name))
    return trackers


def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
