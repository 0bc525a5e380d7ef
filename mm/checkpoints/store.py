"""Tensors on disk: safetensors files, one or in shards, written whole and read by memory mapping.

A file is written beside its place, flushed and renamed into it, so that a reader never sees half of
one. The bytes depend on the tensors and the metadata alone. The `safetensors` library writes
metadata in a random order, so the format, which is short, is written here:

    8 bytes: length of the header | header: JSON, padded with spaces | the tensors' bytes
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from mm.errors import CheckpointError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
MAX_SHARD_BYTES = 5 * 10**9
_MAX_HEADER_BYTES = 100 * 10**6  # the limit of the safetensors library
_DTYPES = {
    "F64": torch.float64,
    "I64": torch.int64,
    "F32": torch.float32,
    "I32": torch.int32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


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


def save_tensors(
    tensors: Mapping[str, Tensor],
    directory: str | os.PathLike[str],
    max_shard_bytes: int = MAX_SHARD_BYTES,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write tensors to `model.safetensors`, or to shards with an index if they are larger.

    Args:
        tensors: by name; each is stored in its own dtype.
        directory: made if it does not exist.
        max_shard_bytes: a shard holds at most this much, unless one tensor alone is larger.
        metadata: short texts for the header; `format` is `pt` in any case.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    shards: list[dict[str, Tensor]] = [{}]
    filled = 0
    for name in sorted(tensors):
        if filled and filled + tensors[name].nbytes > max_shard_bytes:
            shards.append({})
            filled = 0
        shards[-1][name] = tensors[name]
        filled += tensors[name].nbytes
    if len(shards) == 1:
        _write_file(directory / SINGLE, shards[0], metadata)
        (directory / INDEX).unlink(missing_ok=True)
        return
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _write_file(directory / file, shard, metadata)
        weight_map |= dict.fromkeys(shard, file)
    total = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    text = json.dumps(index, indent=2) + "\n"
    write_atomically(directory / INDEX, lambda file: file.write(text.encode()))
    (directory / SINGLE).unlink(missing_ok=True)


def load_tensors(directory: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read every tensor of a checkpoint, memory-mapped; see `iter_tensors`."""
    return dict(iter_tensors(directory))


def iter_tensors(directory: str | os.PathLike[str]) -> Iterator[tuple[str, Tensor]]:
    """Yield names and memory-mapped tensors of a checkpoint, one shard after the other.

    Raises:
        CheckpointError: a file is missing or damaged, or the index and the shards disagree.
    """
    from safetensors import SafetensorError, safe_open

    for path, names in _files(Path(directory)):
        try:
            with safe_open(path, framework="pt", device="cpu") as file:
                for name in names:
                    yield name, file.get_tensor(name)
        except (SafetensorError, OSError) as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(f"{path} cannot be read ({reason}): copy it again") from None


def shapes(directory: str | os.PathLike[str]) -> dict[str, tuple[int, ...]]:
    """Return every tensor's shape, from the headers alone; raises as `iter_tensors`."""
    found: dict[str, tuple[int, ...]] = {}
    for path, names in _files(Path(directory)):
        header = read_header(path)
        found |= {name: tuple(header[name]["shape"]) for name in names}
    return found


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


def read_header(path: Path) -> dict[str, Any]:  # Any: JSON, checked
    """Return a safetensors file's entries (dtype, shape, data_offsets), once they fit the file.

    Raises:
        CheckpointError: the file is missing, truncated or malformed.
    """
    damaged = "the download or copy is damaged, get it again"
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or 8 + min(length, _MAX_HEADER_BYTES) > size:
                raise CheckpointError(f"{path} is truncated at {size} bytes: {damaged}")
            if length > _MAX_HEADER_BYTES:
                raise CheckpointError(
                    f"{path} declares a header of {length} bytes, more than the"
                    f" {_MAX_HEADER_BYTES} allowed: it is no safetensors file, or {damaged}"
                )
            header = json.loads(file.read(length).decode("utf-8"))
            header.pop("__metadata__", None)
            ends = [_entry_end(entry) for entry in header.values()]
    except FileNotFoundError:
        raise CheckpointError(f"{path.parent} has no {path.name}: {damaged}") from None
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise CheckpointError(f"{path} has no readable safetensors header: {damaged}") from None
    wanted = 8 + length + max(ends, default=0)
    if size != wanted:
        kind = "truncated" if size < wanted else "too long"
        raise CheckpointError(f"{path} is {kind}: {size} bytes of {wanted}; {damaged}")
    return dict(header)


def _entry_end(entry: Any) -> int:  # Any: JSON, checked here
    shape, (start, end), dtype = entry["shape"], entry["data_offsets"], entry["dtype"]
    numbers = [*shape, start, end]
    if any(not isinstance(number, int) or number < 0 for number in numbers):
        raise ValueError("a shape or an offset is no whole number")
    if dtype in _DTYPES and end - start != math.prod(shape) * _DTYPES[dtype].itemsize:
        raise ValueError("an entry's bytes do not fit its shape")
    return int(end)


def _files(directory: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield each weights file of a checkpoint and the tensors it is read for."""
    if not directory.is_dir():
        what = "is not a folder" if directory.exists() else "does not exist"
        raise CheckpointError(f"model folder {directory} {what}: check the path")
    if not (directory / INDEX).exists():
        if not (directory / SINGLE).exists():
            raise CheckpointError(
                f"{directory} has no weights ({SINGLE} or {INDEX}): name a folder that holds a"
                " whole model"
            )
        yield directory / SINGLE, sorted(read_header(directory / SINGLE))
        return
    weight_map = read_json(directory / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not all(
        isinstance(file, str) for file in weight_map.values()
    ):
        raise CheckpointError(f"{directory / INDEX} has no weight_map: copy it again")
    for file in sorted(set(weight_map.values())):
        if Path(file).name != file or file in ("", ".", ".."):
            raise CheckpointError(f"{directory / INDEX} names {file!r}, which is no file beside it")
        if not (directory / file).exists():
            raise CheckpointError(
                f"{directory} has no {file}, which {INDEX} lists: copy that shard again"
            )
        names = sorted(name for name, place in weight_map.items() if place == file)
        missing = sorted(set(names) - set(read_header(directory / file)))
        if missing:
            raise CheckpointError(
                f"{directory / file} has no tensor {missing[0]!r}, which {INDEX} places there"
                f" ({len(missing)} such): copy that shard again"
            )
        yield directory / file, names


def _write_file(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None
) -> None:
    header: dict[str, Any] = {
        "__metadata__": dict(sorted({"format": "pt", **(metadata or {})}.items()))
    }
    # Wide types first keep every tensor aligned to its own width.
    order = sorted(tensors, key=lambda name: (list(_NAMES).index(tensors[name].dtype), name))
    start = 0
    for name in order:
        tensor = tensors[name]
        end = start + tensor.nbytes
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)

    def write(file: BinaryIO) -> None:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            flat = tensors[name].detach().cpu().contiguous().reshape(-1)
            file.write(flat.view(torch.uint8).numpy().data)

    write_atomically(path, write)
