"""A small table of GPUs: memory, peak bfloat16 FLOP/s without sparsity, memory bandwidth.

Memory is what the driver reports, which is a little off the number in the name. FLOP/s and
bandwidth are the makers' data sheets (for the cards with halved float32 accumulation, that rate).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mm.errors import ConfigError
from mm.registry import unknown_name_message


@dataclass(frozen=True)
class GPU:
    """One device. What is not known is None."""

    name: str
    memory: float  # bytes
    flops: float | None = None  # per second, bf16 with float32 accumulation
    bandwidth: float | None = None  # bytes per second


# name: (MiB, TFLOP/s, GB/s)
TABLE = {
    "a10g": (23028, 70, 600),
    "a100-40": (40960, 312, 1555),
    "a100-80": (81920, 312, 2039),
    "b200": (183359, 2250, 7700),
    "h100": (81559, 989, 3350),
    "h100-pcie": (81559, 756, 2000),
    "h200": (143771, 989, 4800),
    "l4": (23034, 121, 300),
    "l40s": (46068, 362, 864),
    "mi300x": (196592, 1307, 5300),
    "rtx3090": (24576, 71, 936),
    "rtx4090": (24564, 165, 1008),
    "rtx5090": (32607, 210, 1792),
    "t4": (15360, 65, 320),  # float16, as it has no units for bfloat16
}

_SIZE = re.compile(r"([\d.]+) ?(GB|GiB|TB|TiB)(?:@([\d.]+) ?(GB|TB)/s)?", re.IGNORECASE)
_UNITS = {"gb": 1e9, "gib": 2.0**30, "tb": 1e12, "tib": 2.0**40}


def find_gpu(text: str) -> GPU:
    """Find a GPU by name, or make one of a size such as `24GB`, `36GiB` or `36GB@400GB/s`.

    Raises:
        ConfigError: neither a known name nor a size; the message lists the names.
    """
    key = text.lower()
    if key in TABLE:
        mebibytes, teraflops, gigabytes = TABLE[key]
        return GPU(key, mebibytes * 2.0**20, teraflops * 1e12, gigabytes * 1e9)
    sized = _SIZE.fullmatch(text.strip())
    try:
        memory, bandwidth = (float(sized[i] or 0) for i in (1, 3)) if sized else (0.0, 0.0)
    except ValueError:  # two points in a number
        memory = bandwidth = 0.0
    if sized is None or memory <= 0 or (sized[3] and bandwidth <= 0):
        message = unknown_name_message("gpu", text, TABLE)
        raise ConfigError(f"{message} (or give its memory: gpu=24GB, gpu=36GB@400GB/s)")
    return GPU(
        text,
        memory * _UNITS[sized[2].lower()],
        bandwidth=bandwidth * _UNITS[sized[4].lower()] if sized[3] else None,
    )
