"""How much memory a model's folder will take, told from its headers before anything is loaded."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mm.checkpoints import store

GB = 1e9  # bytes
_ROOM = 4096  # tokens; with room for fewer at a time, most work won't fit


@dataclass(frozen=True)
class Needs:
    """What a model takes of a device's memory, and what there is; in bytes.

    Args:
        weights: all weights, in the type that they are loaded as.
        mapped: those of them that stay in their files, and are read when they are touched.
        per_token: the cache of one token that is read or written.
        free: None if the system does not say.
    """

    weights: int
    mapped: int
    per_token: int
    free: int | None

    @property
    def fits(self) -> bool:
        """Whether the weights alone fit; what is mapped always does."""
        return self.free is None or self.weights - self.mapped <= self.free

    @property
    def tokens(self) -> int | None:
        """For how many tokens at a time there is room besides the weights, if that is known."""
        if self.free is None or not self.per_token:
            return None
        return max(0, self.free - self.weights + self.mapped) // self.per_token

    def __str__(self) -> str:
        parts = [f"{_gb(self.weights)} of weights"]
        if self.mapped:
            parts[0] += f", {_gb(self.mapped)} of them read from their files when needed"
        if self.free is not None:
            parts.append(f"{_gb(self.free)} of memory free")
        if self.per_token:
            parts.append(f"{_gb(1000 * self.per_token)} more for each 1,000 tokens at a time")
        if self.fits and self.tokens is not None and self.tokens < _ROOM:
            parts.append(
                f"room for {self.tokens:,} only: lower --batch-size and --max-new-tokens, or take a"
                " smaller model"
            )
        return "; ".join(parts)


def _gb(count: float) -> str:
    return f"{count / GB:.1f} GB" if count >= GB else f"{math.ceil(count / 1e6):,} MB"


def needs_of(
    directory: str | os.PathLike[str], device: torch.device, dtype: torch.dtype | None
) -> Needs:
    """Say what the model of a folder will take on a device.

    Args:
        directory: of mm's own format or a published one, of one file or several.
        device: where it would be put.
        dtype: of its weights; None keeps the stored one.

    Raises:
        CheckpointError: the folder holds no weights, or they are damaged.
    """
    directory = Path(directory)
    weights = mapped = 0
    for stored in store.open_tensors(directory).values():
        kind = stored.dtype
        wanted = dtype if dtype is not None and kind.is_floating_point else kind
        size = math.prod(stored.shape) * wanted.itemsize
        weights += size
        mapped += size if device.type == "cpu" and wanted == kind else 0
    sizes = _decoder(store.read_json(directory / "config.json"))
    layers, heads, width = (
        sizes.get(name) for name in ("num_hidden_layers", "num_key_value_heads", "head_dim")
    )
    per_token = 0
    if isinstance(layers, int) and isinstance(heads, int) and isinstance(width, int):
        per_token = 2 * layers * heads * width * (dtype or torch.bfloat16).itemsize
    return Needs(weights, mapped, per_token, free_memory(device))


def _decoder(config: Mapping[str, Any]) -> Mapping[str, Any]:  # Any: JSON
    """Return the decoder's fields, which have one name in every format."""
    own = config.get("decoder")
    if isinstance(own, Mapping):
        own = own.get("config")
    found = own or config.get("text_config") or config.get("llm_config") or config
    return found if isinstance(found, Mapping) else {}


def free_memory(device: torch.device) -> int | None:
    """Return how many bytes can be taken on a device; None if the system does not say."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu":
        return None
    found = []
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) * 1024)
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()  # a container's
        found += [int(limit)] if limit.isdigit() else []
    except (OSError, ValueError, IndexError):
        pass  # another system
    return min(found, default=None)
