"""What a run shows while it goes: speed, waiting for data, memory and the time that is left."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

import torch

from mm.data.packing import PackedBatch
from mm.decoder.qwen3 import Qwen3ForCausalLM
from mm.train.flops import decoder_flops, peak_flops, work_of

Batch = TypeVar("Batch")


class Progress:
    """Measures between two logged steps.

    Args:
        steps: of the whole run.
        start: steps that are done already.
        tokens: that they took.
        decoder: whose work is measured as a share of the device's peak, where that is known.
    """

    def __init__(
        self,
        steps: int,
        start: int,
        tokens: int,
        device: torch.device,
        decoder: Qwen3ForCausalLM | None = None,
    ) -> None:
        self.steps, self.tokens, self._device = steps, tokens, device
        self._decoder, self._flops, self._peak = decoder, 0.0, peak_flops(device)
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

    def count(self, rows: Iterable[PackedBatch], processes: int = 1) -> None:
        """Add a step: this process's rows, on the CPU; the other processes have as many."""
        for packed in rows:
            self.tokens += processes * packed.input_ids.numel()
            if self._decoder is not None and self._peak is not None:
                learns = self._decoder.model.norm.weight.requires_grad
                flops = decoder_flops(self._decoder.config, work_of(packed), trained=learns)
                self._flops += flops["usual"]

    def measure(self, done: int) -> dict[str, float]:
        """The figures since the last call, in the run's own units; then starts anew."""
        seconds = max(time.perf_counter() - self._began, 1e-9)
        found = {
            "tokens": self.tokens,
            "tokens_per_s": (self.tokens - self._tokens_before) / seconds,
            "data_wait": min(1.0, self._waited / seconds),
            "seconds_left": (self.steps - done) * seconds / max(done - self._since, 1),
        }
        if self._peak is not None and self._flops:
            found["mfu"] = self._flops / seconds / self._peak
        if self._device.type == "cuda":
            found["memory_gib"] = torch.cuda.max_memory_allocated(self._device) / 2**30
        self._since, self._tokens_before = done, self.tokens
        self.forget()
        return found

    def forget(self) -> None:
        """Leave out the time since the last logged step, as that of an evaluation."""
        self._waited, self._flops, self._began = 0.0, 0.0, time.perf_counter()

    def line(self, metrics: Mapping[str, float]) -> str:
        """One line for the person who watches."""
        memory = f"{metrics['memory_gib']:.1f} GiB  " if "memory_gib" in metrics else ""
        share = f"MFU {metrics['mfu']:.0%}  " if "mfu" in metrics else ""
        return (
            f"step {metrics['step']}/{self.steps}  loss {metrics['loss']:.4f}  patches "
            f"{metrics['patch_loss']:.3f}  {metrics['tokens_per_s'] / 1e3:.0f}k tok/s  {share}"
            f"waits {metrics['data_wait']:.0%}  {memory}{metrics['seconds_left'] / 60:.1f} min left"
        )

    def show(self, metrics: Mapping[str, float]) -> None:
        """Print the line to stderr; on a terminal the next one takes its place."""
        end = "\r" if sys.stderr.isatty() and metrics["step"] < self.steps else "\n"
        print(self.line(metrics), file=sys.stderr, end=end, flush=True)
