"""Marks that say of an answer that a model wrote it, and which one."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

# What IPTC's vocabulary of digital sources calls media that a trained model made.
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
_BLOCK, _NUM_BLOCKS = 1 << 16, 64
_WEIGHTS = ("*.safetensors",)
_OTHERS = ("config.json", "tokenizer.json")


def marks(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """The marks that go beside every answer of a model's folder: plain JSON data."""
    import mm

    return {
        "generated": True,
        "source_type": SOURCE_TYPE,
        "model": Path(directory).resolve().name,
        "model_hash": model_hash(directory),
        "software": f"mm {mm.__version__}",
    }


def model_hash(directory: str | os.PathLike[str]) -> str:
    """A hash that tells models apart in milliseconds, whatever their size.

    SHA-256 over name, size and content of `config.json`, `tokenizer.json` and the weights; of a
    file above 4 MiB over 64 blocks of 64 KiB, evenly spaced, the first and the last among them. It
    marks, and proves nothing: who wants a proof hashes the whole files, as a run's card does.
    """
    place, total = Path(directory), hashlib.sha256()
    files = [place / name for name in _OTHERS]
    files += [path for pattern in _WEIGHTS for path in place.rglob(pattern)]
    for path in sorted(path for path in files if path.is_file()):
        size = path.stat().st_size
        total.update(f"{path.relative_to(place).as_posix()} {size}\n".encode())
        with path.open("rb") as file:
            for start in _starts(size):
                file.seek(start)
                total.update(file.read(_BLOCK))
    return total.hexdigest()


def _starts(size: int) -> list[int]:
    """Where the blocks begin that are read of a file."""
    if size <= _BLOCK * _NUM_BLOCKS:
        return list(range(0, size, _BLOCK))
    return [(size - _BLOCK) * n // (_NUM_BLOCKS - 1) for n in range(_NUM_BLOCKS)]
