"""A run is a folder: its config, where code and data came from, metrics, checkpoints, the model.

    runs/NAME/config.yaml      the resolved configuration
             run.json          git state, versions, device, seeds, ledger hashes
             metrics.jsonl     a line per logged step
             checkpoints/step-00001000/   weights/, optimizer/ and the step: enough to go on, on
                                          as many processes bit for bit (see mm.train.pieces)
             model/            the finished model, as `mm.load` reads it

Everything is written beside its place and then renamed, so a kill at any instant leaves either the
old state or the new one.
"""

from __future__ import annotations

import json
import math
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from mm.checkpoints.store import sync_directory, write_atomically
from mm.errors import CheckpointError
from mm.train import pieces
from mm.train.distributed import World
from mm.train.loggers import Tracker

CHECKPOINTS = "checkpoints"
_STEP = "step-"


@dataclass(frozen=True)
class Keep:
    """Which checkpoints stay.

    Attributes:
        newest: how many of the last ones.
        every: those of steps that this divides, for ever; 0: none.
        best: the name of a logged metric, whose best checkpoint so far stays; empty: none.
        by: whether "max" or "min" of it is best.
    """

    newest: int = 2
    every: int = 0
    best: str = ""
    by: str = "max"


class RunFolder:
    """Reads and writes one run's folder.

    Args:
        trackers: are given what is logged.
        keep: which checkpoints stay.
        world: the processes of the run; all of them call `save` and `resume`, and the first alone
            writes anything else.
    """

    def __init__(
        self,
        path: str | Path,
        trackers: Sequence[Tracker] = (),
        keep: Keep = Keep(),
        world: World | None = None,
    ) -> None:
        self.path = Path(path)
        self.trackers = trackers
        self.keep = keep
        self.world = world or World()
        self.metrics_path = self.path / "metrics.jsonl"
        self.checkpoints = self.path / CHECKPOINTS
        self.checkpoints.mkdir(parents=True, exist_ok=True)

    def describe(self, config_yaml: str, facts: Mapping[str, Any]) -> None:
        """Write the resolved config and where the run came from."""
        self.write("config.yaml", config_yaml)
        self.write("run.json", json.dumps({**_environment(), **facts}, indent=2) + "\n")

    def write(self, name: str, text: str) -> None:
        """Write a file of the folder whole or not at all, for all processes."""
        if self.world.is_main:
            write_text(self.path / name, text)

    def log(self, metrics: Mapping[str, Any]) -> None:
        """Append a line of metrics, and hand its numbers to the trackers.

        Raises:
            CheckpointError: there is no room for it.
        """
        if not self.world.is_main:
            return
        try:
            with self.metrics_path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(metrics) + "\n")
        except OSError as error:
            raise CheckpointError(_unwritten(self.metrics_path, error.strerror)) from None
        values = {k: v for k, v in metrics.items() if k != "step" and isinstance(v, int | float)}
        for tracker in self.trackers:
            tracker.log(int(metrics["step"]), values)

    def save(
        self,
        step: int,
        modules: nn.Module,
        optimizer: Optimizer,
        cursor: Mapping[str, Any] | None = None,
    ) -> Path:
        """Write the checkpoint after `step` steps, whole or not at all; drop what isn't kept.

        Args:
            cursor: where the data stands, as plain data, if that is more than the step.

        Raises:
            CheckpointError: it can't be written, as on a full disk; those before it stay.
        """
        target = self.checkpoints / f"{_STEP}{step:08d}"
        scratch = self.checkpoints / f".{target.name}.saving"
        state = {"version": 1, "step": step, "cursor": cursor or {}}

        def prepare() -> None:
            shutil.rmtree(scratch, ignore_errors=True)
            for part in (scratch / "weights", scratch / "optimizer"):
                part.mkdir(parents=True)

        def write() -> None:
            pieces.save(_named_tensors(modules), scratch / "weights", self.world)
            pieces.save(_optimizer_tensors(modules, optimizer), scratch / "optimizer", self.world)

        def finish() -> None:
            write_text(scratch / "state.json", json.dumps(state) + "\n")
            self._remove(target)
            scratch.rename(target)
            sync_directory(self.checkpoints)

        for action, everyone in ((prepare, False), (write, True), (finish, False)):
            problem = _problem(action) if everyone or self.world.is_main else ""
            if problem := next(filter(None, self.world.gather(problem)), ""):
                if self.world.is_main:
                    shutil.rmtree(scratch, ignore_errors=True)
                raise CheckpointError(_unwritten(target, problem) + self._newest_stays())
        if self.world.is_main:
            self._prune()
        return target

    def resume(self, modules: nn.Module, optimizer: Optimizer) -> int:
        """Load the newest checkpoint, if there is one; return how many steps are done.

        Metrics logged after that checkpoint are dropped, as those steps will be taken again.
        """
        if self.world.is_main:
            for leftover in self.checkpoints.glob(f".{_STEP}*"):
                shutil.rmtree(leftover)
        steps = self.world.share(checkpoints_of(self.path))
        if not steps:
            if self.world.is_main:
                self.metrics_path.unlink(missing_ok=True)
            return 0
        newest = steps[-1]
        state = json.loads((newest / "state.json").read_text())
        if state.get("version") != 1:
            raise CheckpointError(
                f"{newest} has version {state.get('version')!r}; this code reads version 1:"
                " start a new run folder"
            )
        with torch.no_grad():
            stored = pieces.Stored(newest / "weights")
            tensors = _named_tensors(modules)
            if stored.names != tensors.keys():
                odd = sorted(stored.names ^ tensors.keys())[:5]
                raise CheckpointError(
                    f"{newest} is of another model (for example {', '.join(odd)})"
                )
            for name, tensor in tensors.items():
                stored.fill(name, tensor, self.world)
            _load_optimizer(modules, optimizer, pieces.Stored(newest / "optimizer"), self.world)
        step = int(state["step"])
        if self.world.is_main:
            self._drop_metrics_after(step)
        return self.world.share(step)

    def cursor(self) -> dict[str, Any]:
        """Where the data stood at the newest checkpoint; empty if the step says it all."""
        steps = checkpoints_of(self.path)
        state = json.loads((steps[-1] / "state.json").read_text()) if steps else {}
        return dict(state.get("cursor", {}))

    def tokens(self) -> int:
        """Tokens that the steps so far took, as logged last; 0 of a new run."""
        if not self.metrics_path.exists():
            return 0
        lines = map(json.loads, self.metrics_path.read_text(encoding="utf-8").splitlines())
        return max((int(line.get("tokens", 0)) for line in lines), default=0)

    def _prune(self) -> None:
        steps = checkpoints_of(self.path)
        kept = set(steps[-self.keep.newest :])
        if self.keep.every:
            kept |= {path for path in steps if step_of(path) % self.keep.every == 0}
        if self.keep.best:
            scores = self._scores(self.keep.best)
            scored = [path for path in steps if step_of(path) in scores]
            best = max if self.keep.by == "max" else min
            kept |= {best(scored, key=lambda path: scores[step_of(path)])} if scored else set()
        for path in steps:
            if path not in kept:
                self._remove(path)

    def _remove(self, checkpoint: Path) -> None:
        """Delete a checkpoint, out of sight first: a kill leaves no part of one."""
        if checkpoint.exists():
            hidden = self.checkpoints / f".{checkpoint.name}.removed"
            checkpoint.rename(hidden)
            shutil.rmtree(hidden)

    def _scores(self, name: str) -> dict[int, float]:
        """The finite values of a metric, by step."""
        lines = map(json.loads, self.metrics_path.read_text(encoding="utf-8").splitlines())
        found = {int(line["step"]): float(line[name]) for line in lines if name in line}
        return {step: value for step, value in found.items() if math.isfinite(value)}

    def _newest_stays(self) -> str:
        steps = checkpoints_of(self.path)
        return f"; {steps[-1].name} is whole, and the same command goes on from it" if steps else ""

    def _drop_metrics_after(self, step: int) -> None:
        if not self.metrics_path.exists():
            return
        kept = []
        for line in self.metrics_path.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except (ValueError, KeyError):
                continue  # a line torn by the kill
        write_text(self.metrics_path, "".join(kept))


def _named_tensors(modules: nn.Module) -> dict[str, Tensor]:
    """Parameters, and buffers that belong to the weights, by name; a tied weight appears once."""
    kept = modules.state_dict().keys()
    buffers = {name: buffer for name, buffer in modules.named_buffers() if name in kept}
    return {**dict(modules.named_parameters()), **buffers}


def checkpoints_of(run: Path) -> list[Path]:
    """The whole checkpoints of a run's folder, the newest last."""
    found = (run / CHECKPOINTS).glob(f"{_STEP}*")
    return sorted(path for path in found if (path / "state.json").exists())


def step_of(checkpoint: Path) -> int:
    """After how many steps a checkpoint was written."""
    return int(checkpoint.name.removeprefix(_STEP))


def _problem(action: Callable[[], None]) -> str:
    """Do it; say what was in the way, if anything was."""
    try:
        action()
    except OSError as error:
        return error.strerror or str(error)
    except CheckpointError as error:
        return str(error)
    return ""


def _unwritten(path: Path, reason: str | None) -> str:
    return f"cannot write {path}: {reason}: free some space, or name another output"


def _optimizer_tensors(modules: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    return {
        f"{name}|{key}": torch.as_tensor(value).detach()
        for name, parameter in modules.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def _load_optimizer(
    modules: nn.Module, optimizer: Optimizer, stored: pieces.Stored, world: World
) -> None:
    parameters = dict(modules.named_parameters())
    for full in stored.names:
        name, key = full.rsplit("|", 1)
        parameter = parameters[name]
        if isinstance(parameter, DTensor) and stored.shape(full) == tuple(parameter.shape):
            value: Tensor = torch.zeros_like(parameter)
            stored.fill(full, value, world)
        else:
            # AdamW's step counter stays on the host unless the optimiser is fused.
            fused = optimizer.param_groups[0].get("fused")
            device = parameter.device if key != "step" or fused else torch.device("cpu")
            value = stored.whole(full).to(device)
        optimizer.state[parameter][key] = value


def _environment() -> dict[str, Any]:
    def git(*words: str) -> str | None:
        done = subprocess.run(["git", *words], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return {
        "git_commit": git("rev-parse", "HEAD"),
        "git_dirty": bool(git("status", "--porcelain", "--untracked-files=no")),
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "device": device,
    }


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    write_atomically(path, lambda file: file.write(text.encode()))
