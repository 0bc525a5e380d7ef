"""What a run shows while it goes: speed, waiting for data, memory and the time that is left."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

import torch

Batch = TypeVar("Batch")


class Progress:
    """Measures between two logged steps.

    Args:
        steps: of the whole run.
        start: steps that are done already.
        tokens: that they took.
    """

    def __init__(self, steps: int, start: int, tokens: int, device: torch.device) -> None:
        self.steps, self.tokens, self._device = steps, tokens, device
        self._since, self._tokens_before = start, tokens
        self._waited, self._began = 0.0, time.perf_counter()

    def watch(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches, with the time that each is waited for."""
        iterator = iter(batches)
        while True:
            began = time.perf_counter()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            self._waited += time.perf_counter() - began
            yield batch

    def measure(self, done: int) -> dict[str, float]:
        """The figures since the last call, in the run's own units; then starts anew."""
        seconds = max(time.perf_counter() - self._began, 1e-9)
        found = {
            "tokens": self.tokens,
            "tokens_per_s": (self.tokens - self._tokens_before) / seconds,
            "data_wait": min(1.0, self._waited / seconds),
            "seconds_left": (self.steps - done) * seconds / max(done - self._since, 1),
        }
        if self._device.type == "cuda":
            found["memory_gib"] = torch.cuda.max_memory_allocated(self._device) / 2**30
        self._since, self._tokens_before = done, self.tokens
        self.forget()
        return found

    def forget(self) -> None:
        """Leave out the time since the last logged step, as that of an evaluation."""
        self._waited, self._began = 0.0, time.perf_counter()

    def line(self, metrics: Mapping[str, float]) -> str:
        """One line for the person who watches."""
        memory = f"{metrics['memory_gib']:.1f} GiB  " if "memory_gib" in metrics else ""
        return (
            f"step {metrics['step']}/{self.steps}  loss {metrics['loss']:.4f}  patches "
            f"{metrics['patch_loss']:.3f}  {metrics['tokens_per_s'] / 1e3:.0f}k tok/s  waits "
            f"{metrics['data_wait']:.0%}  {memory}{metrics['seconds_left'] / 60:.1f} min left"
        )

    def show(self, metrics: Mapping[str, float]) -> None:
        """Print the line to stderr; on a terminal the next one takes its place."""
        end = "\r" if sys.stderr.isatty() and metrics["step"] < self.steps else "\n"
        print(self.line(metrics), file=sys.stderr, end=end, flush=True)
