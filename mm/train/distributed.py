"""Several processes at one run, as `torchrun` starts them: who they are and how they agree.

    torchrun --nproc-per-node 8 scripts/train.py experiment=NAME recipe.accumulate=8

Every process packs the same stream and takes its own share of a step's batches, so a step sees the
same rows on any number of processes. Without `torchrun` there is one process, and everything here
gives back what it was given.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from mm.errors import ConfigError, NotFiniteError, StoppedError, UsageError

Plain = TypeVar("Plain")
# How long processes wait for one that evaluates or writes; a dead one is noticed by torchrun.
_PATIENCE_DAYS = 1


@dataclass(frozen=True)
class World:
    """The processes of a run.

    Args:
        rank: this process's number, from 0.
        size: how many there are.
        control: the group in which they agree on plain values, beside the device's own.
    """

    rank: int = 0
    size: int = 1
    control: Any = None  # a process group, whose class is not public

    @property
    def is_main(self) -> bool:
        """Whether this process prints, logs and evaluates for all."""
        return self.rank == 0

    def total(self, values: Tensor) -> Tensor:
        """Sum a tensor on the device over all processes, in place, without waiting for it."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def any(self, flag: bool) -> bool:
        """Whether the flag is up in any process."""
        if self.size == 1:
            return flag
        found = torch.tensor(flag, dtype=torch.uint8)
        dist.all_reduce(found, dist.ReduceOp.MAX, group=self.control)
        return bool(found)

    def gather(self, value: Plain) -> list[Plain]:
        """Every process's value, in the order of their numbers."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value, group=self.control)
        return found

    def share(self, value: Plain, source: int = 0) -> Plain:
        """The value of one process, for all; a negative number counts from the last."""
        if self.size == 1:
            return value
        found = [value]
        dist.broadcast_object_list(found, src=source % self.size, group=self.control)
        return found[0]

    def part(self, batches: int) -> range:
        """Which of a step's batches are this process's: consecutive ones, the same number each.

        Raises:
            ConfigError: they can't be shared out evenly.
        """
        if batches % self.size:
            fitting = -(-batches // self.size) * self.size
            raise ConfigError(
                f"recipe.accumulate is {batches}: a step's batches are shared out over"
                f" {self.size} processes, so it must be a multiple of that, such as {fitting}"
            )
        own = batches // self.size
        return range(self.rank * own, (self.rank + 1) * own)


def launched() -> tuple[int, int]:
    """This process's number and how many `torchrun` started; 0 and 1 without it."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def teller(error: Exception) -> str | None:
    """Who tells of an error: what all processes meet, the first alone; None for the others."""
    rank, size = launched()
    shared = isinstance(error, ConfigError | NotFiniteError | StoppedError | UsageError)
    if shared or size == 1:
        return "error" if rank == 0 else None
    return f"error in process {rank + 1} of {size}"


@contextmanager
def join(device: torch.device) -> Iterator[World]:
    """Meet the other processes that `torchrun` started, if it did.

    Raises:
        ConfigError: there are fewer GPUs than processes on this machine.
    """
    rank, size = launched()
    if size == 1:
        yield World()
        return
    if device.type == "cuda":
        here, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", size)), torch.cuda.device_count()
        if here > gpus:
            raise ConfigError(
                f"torchrun started {here} processes on {gpus} GPUs: --nproc-per-node {gpus}, or"
                " device=cpu"
            )
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", rank)))
    patience = timedelta(days=_PATIENCE_DAYS)
    if device.type == "cuda":
        dist.init_process_group("nccl")
    else:
        dist.init_process_group("gloo", timeout=patience)
    yield World(rank, size, dist.new_group(backend="gloo", timeout=patience))
    # Not after an error: the others may be waiting, and torchrun ends them.
    dist.destroy_process_group()
