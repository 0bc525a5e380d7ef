"""One run of `scripts/train.py`, alone or as a job of a sweep, and the sweep's index.

With `-m` the folder `output` is the sweep's. Each job has a folder in it that is complete by
itself and named after its overrides and a hash of its whole configuration:

    runs/NAME/multirun.yaml                          what was asked for, as Hydra writes it
              index.json                             every job: state, overrides, measures, cost
              encoder=siglip_tiny,seed=0-1a2b3c4d/   a run's folder (see mm.train.run)
                status.json                          this job's line of the index

The index is made from the folders, so any number of processes may work on one sweep. The same
command again takes only the jobs that are missing, failed or were stopped; of those, what has a
checkpoint goes on from it.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.experimental.callback import Callback

if TYPE_CHECKING:
    from omegaconf import DictConfig

STATUS, INDEX = "status.json", "index.json"
# Keys that say where and how a run is watched, not what it computes: no part of a job's identity.
_ELSEWHERE = ("output", "name", "logger", "objective", "plan")
_UNNAMED = (*_ELSEWHERE, "experiment", "device", "tokenizer")  # left out of a folder's name

# What the extra `sweep` installs, by the choice that needs it.
_PLUGINS = {
    "hydra/launcher=joblib": "hydra_joblib_launcher",
    "hydra/launcher=submitit_local": "hydra_submitit_launcher",
    "hydra/launcher=submitit_slurm": "hydra_submitit_launcher",
    "hydra/launcher=ray": "hydra_ray_launcher",
    "hydra/sweeper=optuna": "hydra_optuna_sweeper",
    "hydra/sweeper=tpe": "hydra_optuna_sweeper",
}

# Trains as a configuration says: plain values and the same as YAML; returns the last metrics.
Train = Callable[[dict[str, Any], str], Mapping[str, float]]
Status = dict[str, Any]  # as in the file: plain values


def fingerprint(config: Mapping[str, Any]) -> str:
    """Hash of everything in a configuration that decides what a run computes."""
    kept = {key: value for key, value in config.items() if key not in _ELSEWHERE}
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()


def job_name(overrides: Sequence[str], digest: str) -> str:
    """A job's folder: `encoder=siglip_tiny,seed=0-1a2b3c4d`."""
    words = []
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        if key.split(".")[0] not in _UNNAMED and not key.startswith("hydra"):
            words.append(f"{key.rsplit('.', 1)[-1]}={value.rsplit('/', 1)[-1]}")
    name = re.sub(r"[^\w.,=+-]", "_", ",".join(words))[:120]
    return f"{name or 'run'}-{digest[:8]}"


def check_plugins(arguments: Sequence[str]) -> None:
    """Look whether what the command line chooses is installed; Hydra would not say how to.

    Raises:
        UsageError: it is not.
    """
    from mm.errors import UsageError

    for argument in arguments:
        module = _PLUGINS.get(argument.lstrip("+"))
        if module and importlib.util.find_spec(f"hydra_plugins.{module}") is None:
            raise UsageError(f"{argument} needs {module}: pip install 'mm[sweep]'")


def start(
    config: DictConfig, overrides: Sequence[str], in_sweep: bool, train: Train
) -> float | None:
    """Train as composed, and leave `status.json` in the run's folder.

    A job of a sweep that is done already, or that another process is at, is passed over. A job that
    fails is noted, and the sweep goes on with the others.

    Args:
        config: as Hydra composed it, without the `hydra` node.
        overrides: those of this run.
        in_sweep: `output` is then the sweep's folder, else the run's.

    Returns:
        Of a job: the measure that `objective` names. Of a job that failed, or no job: nothing.

    Raises:
        Whatever `train` raises, unless it is a job of a sweep.
        SystemExit: a job of a sweep was asked to stop, so that the sweep ends there.
    """
    from omegaconf import OmegaConf

    from mm.errors import StoppedError, UsageError
    from mm.train.distributed import launched

    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    digest = fingerprint({str(key): value for key, value in plain.items()})
    folder = Path(config.output)
    if in_sweep:
        folder = folder / job_name(overrides, digest)
        OmegaConf.update(config, "output", str(folder))
        plain["output"] = str(folder)
    values = {str(key): value for key, value in plain.items() if key != "objective"}
    rank, size = launched()
    if in_sweep and size > 1:
        raise UsageError("torchrun starts one run on several processes: leave -m out")
    if plain["plan"] or rank:  # the first process keeps the folder's status
        if rank == 0 or not plain["plan"]:
            train(values, OmegaConf.to_yaml(config, resolve=True))
        return None
    with _claimed(folder) as mine:
        before = read_status(folder)
        same = before.get("fingerprint") == digest
        if in_sweep and (not mine or (same and before.get("state") == "done")):
            print(
                f"{folder.name}: {'done already' if mine else 'another process is at it'}",
                file=sys.stderr,
            )
            return objective(before, plain["objective"])
        status: Status = {
            "state": "running",
            "overrides": list(overrides),
            "fingerprint": digest,
            "started": before.get("started") if same else None,
            "seconds": before.get("seconds", 0.0) if same else 0.0,
        }
        status["started"] = status["started"] or datetime.now(UTC).isoformat(timespec="seconds")
        _write(folder / STATUS, status)
        began, spent = time.monotonic(), status["seconds"]
        _reset_peak()
        try:
            metrics = train(values, OmegaConf.to_yaml(config, resolve=True))
            status |= {"state": "done", "metrics": dict(metrics)}
        except StoppedError as error:
            status |= {"state": "stopped", "error": str(error)}
            if not in_sweep:
                raise
            print(f"error: {folder.name}: {error}", file=sys.stderr)
            raise SystemExit(130) from error
        except Exception as error:
            status |= {"state": "failed", "error": f"{type(error).__name__}: {error}"}
            if not in_sweep:
                raise
            _tell(folder, error)
        finally:
            if status["state"] == "running":  # Ctrl-C before or after the steps
                status["state"] = "stopped"
            status["seconds"] = round(spent + time.monotonic() - began, 3)
            status["peak_memory_bytes"] = _peak()
            _write(folder / STATUS, status)
            if in_sweep:
                write_index(folder.parent)
    if in_sweep:
        return objective(status, plain["objective"])
    print(summary(folder, status), file=sys.stderr)
    return None


def summary(folder: Path, status: Status) -> str:
    """What a finished run came to, in a few lines."""
    peak = status["peak_memory_bytes"]
    memory = f", {peak / 2**20:,.0f} MiB at its peak" if peak else ""
    lines = [f"{folder}: done in {status['seconds']:.1f} s{memory}"]
    lines += [f"  {key:<24} {value:.6g}" for key, value in status["metrics"].items()]
    return "\n".join(lines)


def objective(status: Status, name: str) -> float | None:
    """The measure that a sweeper looks at.

    None if the job failed: Optuna's sweeper then counts the trial as failed and goes on; a NaN, or
    an exception, would end it.

    Raises:
        ConfigError: a finished job has no measure of that name.
    """
    from mm.errors import ConfigError
    from mm.registry import unknown_name_message

    if status.get("state") != "done":
        return None
    if name not in status["metrics"]:
        raise ConfigError(unknown_name_message("objective", name, tuple(status["metrics"])))
    return float(status["metrics"][name])


def read_status(folder: Path) -> Status:
    """A run's `status.json`; empty if it has none that can be read."""
    try:
        found = json.loads((folder / STATUS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_index(sweep: Path) -> list[Status]:
    """Write `index.json` from the folders of a sweep's jobs, and return its entries."""
    entries = []
    for path in sorted(sweep.glob(f"*/{STATUS}")):
        status = read_status(path.parent)
        if status.get("state") == "running" and not _is_claimed(path.parent):
            status["state"] = "killed"
        entries.append({"job": path.parent.name, **status})
    _write(sweep / INDEX, entries)
    return entries


class EndOfSweep(Callback):
    """Hydra's callback that ends a sweep: index and counts, exit status 1 if a job failed."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:  # Any: Hydra's additions
        """Let `output` name the experiment before any job does, as `hydra.sweep.dir` is it."""
        from hydra.core.hydra_config import HydraConfig

        HydraConfig.instance().set_config(config)

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:  # Any: Hydra's additions
        """Called once, in the process that was started."""
        if config.plan:
            return
        entries = write_index(Path(config.output))
        states = [entry["state"] for entry in entries]
        counts = ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))
        print(f"{config.output}/{INDEX}: {counts or 'no jobs'}", file=sys.stderr)
        for entry in entries:
            if entry["state"] == "failed":
                print(f"  {entry['job']}: {entry['error']}", file=sys.stderr)
        # Hydra passes over a callback's exceptions, but not over this one.
        if "failed" in states or not states:
            raise SystemExit(1)


def _tell(folder: Path, error: Exception) -> None:
    """A job's failure: one line if the user can put it right, else where in the code as well."""
    from mm.errors import MMError
    from mm.privacy.errors import PrivacyError

    if not isinstance(error, MMError | PrivacyError | ValueError):
        traceback.print_exc(file=sys.stderr)
    print(f"error: {folder.name}: {error}", file=sys.stderr)


@contextmanager
def _claimed(folder: Path, patience_s: float = 1.0) -> Iterator[bool]:
    """Whether this process alone is now at the folder's run; a kill gives the folder back.

    The patience outlasts a process that only looks whether a folder is free.
    """
    folder.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + patience_s
    with (folder / ".lock").open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    yield False
                    return
                time.sleep(0.05)
            else:
                yield True
                return


def _is_claimed(folder: Path) -> bool:
    with _claimed(folder, patience_s=0.0) as mine:
        return not mine


def _reset_peak() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    try:  # Linux keeps a process's peak until it is told to forget it
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass


def _peak() -> int | None:
    """Bytes at the run's peak: of the GPU if one was used, else of the process, where known."""
    import torch

    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def _write(path: Path, value: Any) -> None:
    from mm.checkpoints.store import write_atomically

    text = json.dumps(value, indent=2) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))
