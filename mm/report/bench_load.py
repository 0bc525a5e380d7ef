"""How long loading takes, and how much memory at most, beside transformers on the same files.

Every load is a process of its own. Its peak is `VmHWM` of `/proc/self/status` at the end: the most
resident memory that the process ever had, Python and PyTorch included ("before"), and pages of
mapped files as well, so that a weight counts whether it was read or mapped. For the same reason one
byte of each page of the weights is read after loading, and the time until then is told apart: a
mapped weight costs its reading only then. "cold" runs ask the kernel to drop the files from its
cache first.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from mm.errors import CheckpointError, MMError, UsageError

READERS = ("mm", "transformers")
DTYPES = ("bfloat16", "float16", "float32")


def bench_load(args: argparse.Namespace) -> dict[str, Any]:
    """Load a checkpoint several times with each reader, taking turns.

    Args:
        args: `directory`, a Qwen3 folder, or None for a random one in the shape of Qwen3-4B (8 GB,
            three shards, removed afterwards); `dtype`, a name or None for bfloat16; `runs` of each
            kind, or None for 3.

    Returns:
        Sizes in bytes, and for each reader and state of the cache medians with their range.

    Raises:
        MMError: the folder is no Qwen3's, there is no such dtype, or a reader failed.
    """
    from mm.checkpoints.published import format_of

    dtype = getattr(args, "dtype", None) or "bfloat16"
    if dtype not in DTYPES:
        raise UsageError(f"unknown dtype {dtype!r}; known: {', '.join(DTYPES)}")
    runs = getattr(args, "runs", None) or 3
    if (directory := getattr(args, "directory", None)) is not None:
        if format_of(directory) != "text":
            raise CheckpointError(f"{directory} is mm's own, which transformers does not read")
        return _compare(Path(directory), dtype, runs)
    with tempfile.TemporaryDirectory(prefix="mm-bench-load-") as scratch:
        needed, free = 9 * 10**9, shutil.disk_usage(scratch).free
        if free < needed:
            raise OSError(f"{scratch} has {free / 1e9:.1f} GB free, and the model needs 9")
        write_random(Path(scratch) / "model")
        return _compare(Path(scratch) / "model", dtype, runs)


def write_random(
    directory: Path,
    max_shard_bytes: int = 4 * 10**9,
    store_head: bool = False,
    **changes: Any,  # other values of Qwen3Config's fields
) -> None:
    """Write a random bfloat16 checkpoint in the shape of Qwen3-4B.

    Args:
        directory: a new folder.
        max_shard_bytes: of a shard.
        store_head: store the tied head as well, as Qwen3-0.6B does.
    """
    import torch

    from mm.checkpoints import store
    from mm.checkpoints.fill import stored_tensors, unfilled
    from mm.checkpoints.qwen3 import published_parts
    from mm.checkpoints.qwen3_config import published_config
    from mm.decoder.qwen3 import Qwen3Config, Qwen3ForCausalLM

    sizes: dict[str, Any] = {
        "vocab_size": 151936,
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    }
    config = Qwen3Config(**sizes | changes)
    with unfilled():
        places = stored_tensors(Qwen3ForCausalLM(config))
    shapes = {
        part.name: part.of(place).shape
        for name, place in places.items()
        for part in published_parts(name, config)
    }
    if store_head:
        shapes["lm_head.weight"] = shapes["model.embed_tokens.weight"]
    # All tensors are views of one, so that the model need not fit into memory.
    largest = max(shape.numel() for shape in shapes.values())
    drawn = torch.empty(largest, dtype=torch.bfloat16)
    drawn.normal_(0.0, 0.02, generator=torch.Generator().manual_seed(0))
    tensors = {name: drawn[: shape.numel()].view(shape) for name, shape in shapes.items()}
    store.save_tensors(tensors, directory, max_shard_bytes)
    text = json.dumps(published_config(config, torch.bfloat16))
    store.write_bytes(directory / "config.json", text.encode())


def measure(reader: str, directory: str, dtype: str) -> dict[str, Any]:
    """Load once in this process; return seconds, and bytes of weights, before and at the peak."""
    import torch

    kind = getattr(torch, dtype)
    if reader == "mm":
        from mm.checkpoints.qwen3 import load_qwen3

        before = _status("VmRSS")
        start = time.perf_counter()
        model: torch.nn.Module = load_qwen3(directory, dtype=kind)
    else:
        import transformers

        transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        before = _status("VmRSS")
        start = time.perf_counter()
        model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=kind)
    loaded = time.perf_counter()
    weights = list(model.parameters())
    for weight in weights:
        weight.detach().view(-1).view(torch.uint8)[::4096].sum()
    touched = time.perf_counter()
    return {
        "load_s": loaded - start,
        "load_and_touch_s": touched - start,
        "before_bytes": before,
        "peak_bytes": _status("VmHWM"),
        "weights_bytes": sum(weight.nbytes for weight in weights),
    }


def run(words: list[str], conf: Path, **options: Any) -> dict[str, Any]:
    """Measure with a command line's words: a folder, or none."""
    given = {"dtype": options.get("dtype"), "runs": options.get("repeats")}
    return bench_load(argparse.Namespace(directory=words[0] if words else None, **given))


def table(result: dict[str, Any]) -> str:
    """Return the medians as a text of aligned columns."""
    rows = [("reader", "cache", "load s", "load+touch s", "before GB", "peak GB", "peak/weights")]
    for case in result["cases"]:
        before, peak = (case[key]["median"] for key in ("before_bytes", "peak_bytes"))
        times = (f"{case[key]['median']:.2f}" for key in ("load_s", "load_and_touch_s"))
        sizes = (
            f"{before / 1e9:.2f}",
            f"{peak / 1e9:.2f}",
            f"{peak / result['weights_bytes']:.3f}",
        )
        rows.append((case["reader"], case["cache"], *times, *sizes))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(lines)


def _compare(directory: Path, dtype: str, runs: int) -> dict[str, Any]:
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for _ in range(runs):
        for cache in ("cold", "warm"):
            for reader in READERS:
                for path in directory.glob("*.safetensors"):
                    _set_cached(path, cache == "warm")
                found.setdefault((reader, cache), []).append(_in_a_child(reader, directory, dtype))
    weights = {run["weights_bytes"] for group in found.values() for run in group}
    if len(weights) != 1:
        raise AssertionError(f"the readers loaded different models: {sorted(weights)} bytes")
    cases = [
        {
            "reader": reader,
            "cache": cache,
            **{key: _spread([run[key] for run in group]) for key in group[0] if key[0] != "w"},
        }
        for (reader, cache), group in found.items()
    ]
    return {
        "weights_bytes": weights.pop(),
        "file_bytes": sum(path.stat().st_size for path in directory.glob("*.safetensors")),
        "dtype": dtype,
        "runs": runs,
        "cases": cases,
    }


def _status(field: str) -> int:
    """Return one of this process's sizes, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(field))) * 1024


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def _in_a_child(reader: str, directory: Path, dtype: str) -> dict[str, Any]:
    call = f"measure({reader!r}, {str(directory)!r}, {dtype!r})"
    code = f"import json\nfrom mm.report.bench_load import measure\nprint(json.dumps({call}))"
    path = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))},
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1][:300]
        raise MMError(f"loading with {reader} failed, status {done.returncode}: {reason}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _set_cached(path: Path, wanted: bool) -> None:
    """Bring a file into the kernel's cache, or ask to drop it from there."""
    with open(path, "rb", buffering=0) as file:
        if wanted:
            buffer = bytearray(2**24)
            while file.readinto(buffer):
                pass
        else:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
