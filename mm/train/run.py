"""A run is a folder: its config, where code and data came from, metrics, checkpoints, the model.

    runs/NAME/config.yaml      the resolved configuration
             run.json          git state, versions, device, seeds, ledger hashes
             metrics.jsonl     a line per logged step
             checkpoints/step-00001000/   weights/, optimizer/ and the step: enough to go on bit
                                          for bit
             model/            the finished model, as `mm.load` reads it

Everything is written beside its place and then renamed, so a kill at any instant leaves either the
old state or the new one.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mm.checkpoints.store import load_tensors, save_tensors, sync_directory, write_atomically
from mm.errors import CheckpointError
from mm.train.loggers import Tracker

_STEP = "step-"


class RunFolder:
    """Reads and writes one run's folder."""

    def __init__(self, path: str | Path, trackers: Sequence[Tracker] = ()) -> None:
        self.path = Path(path)
        self.trackers = trackers
        self.metrics_path = self.path / "metrics.jsonl"
        self.checkpoints = self.path / "checkpoints"
        self.checkpoints.mkdir(parents=True, exist_ok=True)

    def describe(self, config_yaml: str, facts: Mapping[str, Any]) -> None:
        """Write the resolved config and where the run came from."""
        write_text(self.path / "config.yaml", config_yaml)
        write_text(self.path / "run.json", json.dumps({**_environment(), **facts}, indent=2) + "\n")

    def log(self, metrics: Mapping[str, Any]) -> None:
        """Append a line of metrics, and hand its numbers to the trackers."""
        with self.metrics_path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(metrics) + "\n")
        values = {k: v for k, v in metrics.items() if k != "step" and isinstance(v, int | float)}
        for tracker in self.trackers:
            tracker.log(int(metrics["step"]), values)

    def save(
        self,
        step: int,
        modules: nn.Module,
        optimizer: Optimizer,
        keep: int,
        cursor: Mapping[str, Any] | None = None,
    ) -> Path:
        """Write the checkpoint after `step` steps, whole or not at all; keep the newest `keep`.

        Args:
            cursor: where the data stands, as plain data, if that is more than the step.
        """
        target = self.checkpoints / f"{_STEP}{step:08d}"
        scratch = self.checkpoints / f".{target.name}.{os.getpid()}"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        weights = {name: t.detach().cpu() for name, t in _named_tensors(modules).items()}
        save_tensors(weights, scratch / "weights")
        save_tensors(_optimizer_tensors(modules, optimizer), scratch / "optimizer")
        state = {"version": 1, "step": step, "cursor": cursor or {}}
        write_text(scratch / "state.json", json.dumps(state) + "\n")
        shutil.rmtree(target, ignore_errors=True)
        scratch.rename(target)
        sync_directory(self.checkpoints)
        for old in self._steps()[:-keep]:
            shutil.rmtree(old)
        return target

    def resume(self, modules: nn.Module, optimizer: Optimizer) -> int:
        """Load the newest checkpoint, if there is one; return how many steps are done.

        Metrics logged after that checkpoint are dropped, as those steps will be taken again.
        """
        for leftover in self.checkpoints.glob(f".{_STEP}*"):
            shutil.rmtree(leftover)
        steps = self._steps()
        if not steps:
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
            stored = load_tensors(newest / "weights")
            tensors = _named_tensors(modules)
            if stored.keys() != tensors.keys():
                odd = sorted(stored.keys() ^ tensors.keys())[:5]
                raise CheckpointError(
                    f"{newest} is of another model (for example {', '.join(odd)})"
                )
            for name, tensor in tensors.items():
                tensor.copy_(stored[name])
        _load_optimizer(modules, optimizer, load_tensors(newest / "optimizer"))
        step = int(state["step"])
        self._drop_metrics_after(step)
        return step

    def cursor(self) -> dict[str, Any]:
        """Where the data stood at the newest checkpoint; empty if the step says it all."""
        steps = self._steps()
        state = json.loads((steps[-1] / "state.json").read_text()) if steps else {}
        return dict(state.get("cursor", {}))

    def tokens(self) -> int:
        """Tokens that the steps so far took, as logged last; 0 of a new run."""
        if not self.metrics_path.exists():
            return 0
        lines = map(json.loads, self.metrics_path.read_text(encoding="utf-8").splitlines())
        return max((int(line.get("tokens", 0)) for line in lines), default=0)

    def _steps(self) -> list[Path]:
        return sorted(p for p in self.checkpoints.glob(f"{_STEP}*") if (p / "state.json").exists())

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


def _optimizer_tensors(modules: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    found = {}
    for name, parameter in modules.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            found[f"{name}|{key}"] = torch.as_tensor(value).detach().cpu().contiguous()
    return found


def _load_optimizer(modules: nn.Module, optimizer: Optimizer, stored: Mapping[str, Tensor]) -> None:
    parameters = dict(modules.named_parameters())
    for full, tensor in stored.items():
        name, key = full.rsplit("|", 1)
        parameter = parameters[name]
        # AdamW's step counter stays on the host unless the optimiser is fused.
        fused = optimizer.param_groups[0].get("fused")
        device = parameter.device if key != "step" or fused else torch.device("cpu")
        optimizer.state[parameter][key] = tensor.to(device)


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
