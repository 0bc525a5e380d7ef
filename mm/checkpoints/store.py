"""A folder of tensors: safetensors files, one or in shards with an index, written whole.

A file is written beside its place, flushed and renamed into it, so that a reader never sees half of
one; `replace_folder` does the same for a whole folder.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from mm.checkpoints.tensor_file import StoredTensor, TensorFile, stored_dtype, write_tensors
from mm.errors import CheckpointError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
MAX_SHARD_BYTES = 5 * 10**9


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a file that appears at `path` whole, or not at all."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(scratch, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make a rename in `directory` outlast a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_folder(
    directory: Path, write: Callable[[Path], object], replaceable: Collection[str]
) -> None:
    """Let `write` fill a folder that then appears at `directory` whole, or not at all.

    Args:
        directory: a new folder, an empty one, or an older model to replace.
        write: gets a scratch folder beside it.
        replaceable: names of files that an older model may hold, next to its safetensors.

    Raises:
        CheckpointError: the folder holds something else, or cannot be written.
    """
    directory = directory.resolve()
    if directory.exists() and not directory.is_dir():
        raise CheckpointError(f"{directory} is a file: name a folder to save the model in")
    found = sorted(path.name for path in directory.glob("*"))
    others = [n for n in found if n not in replaceable and not n.endswith(".safetensors")]
    if others:
        raise CheckpointError(
            f"{directory} holds other files ({others[0]}), and saving replaces the folder: name a"
            " new one"
        )
    scratch = directory.with_name(f".{directory.name}.{os.getpid()}.saving")
    replaced = directory.with_name(f".{directory.name}.{os.getpid()}.replaced")
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        scratch.mkdir(parents=True)
        write(scratch)
        sync_directory(scratch)
        if directory.exists():
            os.replace(directory, replaced)
        try:
            os.replace(scratch, directory)
        except OSError:
            if replaced.exists():
                os.replace(replaced, directory)
            raise
        sync_directory(directory.parent)
    except OSError as error:
        raise CheckpointError(f"cannot write {directory}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all."""
    write_atomically(path, lambda file: file.write(data))


def save_tensors(
    tensors: Mapping[str, Tensor],
    directory: str | os.PathLike[str],
    max_shard_bytes: int = MAX_SHARD_BYTES,
    metadata: Mapping[str, str] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write tensors to `model.safetensors`, or to shards with an index if they are larger.

    Args:
        tensors: by name.
        directory: made if it does not exist.
        max_shard_bytes: a shard holds at most this much, unless one tensor alone is larger.
        metadata: short texts for the header; `format` is `pt` in any case.
        dtype: to store floating-point tensors in; None is each tensor's own.

    Raises:
        CheckpointError: a tensor's dtype has no name in the format.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    sizes = {name: t.numel() * stored_dtype(t, dtype).itemsize for name, t in tensors.items()}
    shards: list[dict[str, Tensor]] = [{}]
    filled = 0
    for name in sorted(tensors):
        if filled and filled + sizes[name] > max_shard_bytes:
            shards.append({})
            filled = 0
        shards[-1][name] = tensors[name]
        filled += sizes[name]

    def write(file: str, shard: Mapping[str, Tensor]) -> None:
        write_atomically(
            directory / file, lambda opened: write_tensors(opened, shard, metadata, dtype)
        )

    if len(shards) == 1:
        write(SINGLE, shards[0])
        (directory / INDEX).unlink(missing_ok=True)
        return
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        write(file, shard)
        weight_map |= dict.fromkeys(shard, file)
    total = sum(sizes.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    write_bytes(directory / INDEX, (json.dumps(index, indent=2) + "\n").encode())
    (directory / SINGLE).unlink(missing_ok=True)


def open_tensors(directory: str | os.PathLike[str]) -> dict[str, StoredTensor]:
    """Return every tensor of a checkpoint, found by the headers alone and not read yet.

    Raises:
        CheckpointError: a file is missing or damaged, or the index and the shards disagree.
    """
    directory = Path(directory)
    check_folder(directory)
    if not (directory / INDEX).exists():
        if not (directory / SINGLE).exists():
            others = sorted(path.name for path in directory.glob("*.bin"))
            hint = f"; {others[0]} can run code when it is read and isn't" if others else ""
            raise CheckpointError(
                f"{directory} has no weights ({SINGLE} or {INDEX}): name a folder that holds a"
                f" whole model{hint}"
            )
        return TensorFile(directory / SINGLE).tensors
    found: dict[str, StoredTensor] = {}
    for file, names in _shards(directory).items():
        if not (directory / file).exists():
            raise CheckpointError(
                f"{directory} has no {file}, which {INDEX} lists: copy that shard again"
            )
        tensors = TensorFile(directory / file).tensors
        missing = sorted(names - tensors.keys())
        if missing:
            raise CheckpointError(
                f"{directory / file} has no tensor {missing[0]!r}, which {INDEX} places there"
                f" ({len(missing)} such): copy that shard again"
            )
        found |= {name: tensors[name] for name in sorted(names)}
    return found


def load_tensors(directory: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read every tensor of a checkpoint, memory-mapped; raises as `open_tensors`."""
    return {name: stored.tensor() for name, stored in open_tensors(directory).items()}


def check_folder(directory: Path) -> None:
    """Raise CheckpointError unless `directory` is a folder."""
    if not directory.is_dir():
        what = "is not a folder" if directory.exists() else "does not exist"
        raise CheckpointError(f"model folder {directory} {what}: check the path")


def read_json(path: Path) -> dict[str, Any]:  # Any: JSON
    """Read a JSON object.

    Raises:
        CheckpointError: no such file, or something else in it.
    """
    try:
        data = json.loads(path.read_bytes().decode("utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{path.parent} has no {path.name}: name a folder that holds a whole model"
        ) from None
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:120]
        raise CheckpointError(f"{path} is not valid JSON ({reason}): copy it again") from None
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} is not a JSON object: copy it again")
    return data


def _shards(directory: Path) -> dict[str, set[str]]:
    """Read the index: each file, by name, with the tensors that it is read for."""
    weight_map = read_json(directory / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not all(
        isinstance(file, str) for file in weight_map.values()
    ):
        raise CheckpointError(f"{directory / INDEX} has no weight_map: copy it again")
    shards: dict[str, set[str]] = {}
    for name, file in sorted(weight_map.items(), key=lambda pair: pair[1]):
        if Path(file).name != file or file in ("", ".", ".."):
            raise CheckpointError(f"{directory / INDEX} names {file!r}, which is no file beside it")
        shards.setdefault(file, set()).add(name)
    return shards
