"""The safetensors format: a checked header, tensors that are mapped or copied in pieces.

    8 bytes: length of the header | header: JSON, padded with spaces | the tensors' bytes

It is short, and read and written here rather than by its library, so that the bytes depend on the
tensors and the metadata alone, and what has been copied elsewhere does not stay in memory.
"""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from mm.errors import CheckpointError

_MAX_HEADER_BYTES = 100 * 10**6  # the limit of the safetensors library
_PIECE_BYTES = 16 * 2**20  # read at a time when copying
# Wide types first, the order in which a file stores them, so that each is aligned to its width.
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
_DAMAGED = "the download or copy is damaged, get it again"


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file, not read yet.

    Args:
        file: where it is.
        name: its name there.
        kind: the format's name of its dtype, such as `BF16`.
        shape: its shape.
        start: its first byte, from the start of the file.
        stop: the byte after its last.
    """

    file: TensorFile
    name: str
    kind: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def dtype(self) -> torch.dtype:
        """Its dtype; raises CheckpointError for one that only quantised checkpoints use."""
        if self.kind not in _DTYPES:
            raise CheckpointError(
                f"{self.name} of {self.file.path} is stored as {self.kind}, which this does not"
                " read: use the plain checkpoint, in bfloat16, float16 or float32"
            )
        return _DTYPES[self.kind]

    def tensor(self) -> Tensor:
        """Return the mapped tensor: read when touched; writing to it leaves the file as it is."""
        count = math.prod(self.shape)
        if count == 0:
            return torch.empty(self.shape, dtype=self.dtype)
        if self.start % self.dtype.itemsize:
            return self.raw().clone().view(self.dtype).view(self.shape)
        memory = self.file.mapping
        flat = torch.frombuffer(memory, dtype=self.dtype, count=count, offset=self.start)
        return flat.view(self.shape)

    def raw(self) -> Tensor:
        """Return its bytes, mapped, uint8 `[stop - start]`."""
        if self.stop == self.start:
            return torch.empty(0, dtype=torch.uint8)
        return torch.frombuffer(
            self.file.mapping, dtype=torch.uint8, count=self.stop - self.start, offset=self.start
        )

    def copy_to(self, place: Tensor) -> None:
        """Copy into a tensor of this shape and any dtype, device and strides.

        The bytes pass through memory in pieces, so that the copy costs no more than its target.
        """
        source = self.tensor().view(self.shape or (1,))
        place = place.view(1) if not self.shape else place
        length = source.shape[0]
        rows = max(1, _PIECE_BYTES * length // max(1, self.stop - self.start))
        for start in range(0, length, rows):
            place[start : start + rows].copy_(source[start : start + rows])
            self._forget()

    def same_bytes(self, other: StoredTensor) -> bool:
        """Tell whether another tensor is this one, bit for bit."""
        if (self.kind, self.shape) != (other.kind, other.shape):
            return False
        same = True
        for mine, theirs in zip(
            self.raw().split(_PIECE_BYTES), other.raw().split(_PIECE_BYTES), strict=True
        ):
            same = same and torch.equal(mine, theirs)
            self._forget()
            other._forget()
        return same

    def _forget(self) -> None:
        # Give the pages back; only whole ones, as a neighbour may have been mapped and changed.
        first = -(-self.start // mmap.PAGESIZE) * mmap.PAGESIZE
        length = self.stop // mmap.PAGESIZE * mmap.PAGESIZE - first
        if length > 0:
            self.file.mapping.madvise(mmap.MADV_DONTNEED, first, length)


class TensorFile:
    """A safetensors file whose header has been checked.

    Args:
        path: the file.

    Raises:
        CheckpointError: it is missing, truncated or malformed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        header, base = read_header(path)
        self.tensors: dict[str, StoredTensor] = {}
        for name, entry in header.items():
            start, stop = (base + offset for offset in entry["data_offsets"])
            shape = tuple(entry["shape"])
            self.tensors[name] = StoredTensor(self, name, entry["dtype"], shape, start, stop)

    @cached_property
    def mapping(self) -> mmap.mmap:
        """The file's bytes, mapped when first needed and until the last tensor on them is gone."""
        try:
            with open(self.path, "rb") as file:
                # Copy on write: PyTorch wants memory that it may write to, and may train it.
                return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise CheckpointError(f"cannot read {self.path}: {reason}") from None


def read_header(path: Path) -> tuple[dict[str, Any], int]:  # Any: JSON, checked
    """Return a file's entries (dtype, shape, data_offsets) and where their bytes start.

    What is accepted is what the safetensors library accepts, but for a name that stands twice.

    Raises:
        CheckpointError: the file is missing, truncated or malformed.
    """
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise CheckpointError(f"{path} is no regular file: {_DAMAGED}")
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or 8 + min(length, _MAX_HEADER_BYTES) > size:
                raise CheckpointError(f"{path} is truncated at {size} bytes: {_DAMAGED}")
            if length > _MAX_HEADER_BYTES:
                raise CheckpointError(
                    f"{path} declares a header of {length} bytes, more than the"
                    f" {_MAX_HEADER_BYTES} allowed: it is no safetensors file, or {_DAMAGED}"
                )
            text = file.read(length).decode("utf-8")
        header, end = _parse(text)
    except FileNotFoundError:
        raise CheckpointError(f"{path.parent} has no {path.name}: {_DAMAGED}") from None
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise CheckpointError(f"{path} has no readable safetensors header: {_DAMAGED}") from None
    wanted = 8 + length + end
    if size != wanted:
        kind = "truncated" if size < wanted else "too long"
        raise CheckpointError(f"{path} is {kind}: {size} bytes of {wanted}; {_DAMAGED}")
    return header, 8 + length


def _parse(text: str) -> tuple[dict[str, Any], int]:
    """Return the entries of a header and how many bytes they take; raises what Python raises."""
    if not text.startswith("{"):
        raise ValueError("the header is no object")
    header = json.loads(text, object_pairs_hook=_without_repeats)
    metadata = header.pop("__metadata__", None)
    metadata = {} if metadata is None else metadata
    if not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("metadata is text")
    for name, entry in header.items():
        name.encode("utf-8")  # half a character in an escape
        shape, (start, end), kind = entry["shape"], entry["data_offsets"], entry["dtype"]
        if not isinstance(shape, list) or not isinstance(kind, str):
            raise TypeError("a shape is a list and a dtype is a name")
        if any(type(n) is not int or not 0 <= n < 2**63 for n in (*shape, start, end)):
            raise ValueError("a shape or an offset is no whole number")
        if kind in _DTYPES and end - start != math.prod(shape) * _DTYPES[kind].itemsize:
            raise ValueError("an entry's bytes do not fit its shape")
        if math.prod(n for n in shape if n) >= 2**63:
            raise ValueError("no tensor has that many elements")
    position = 0
    for start, end in sorted(entry["data_offsets"] for entry in header.values()):
        if start != position or end < start:
            raise ValueError("entries overlap or leave a gap")
        position = end
    return header, position


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands there twice")
    return found


def write_tensors(
    file: BinaryIO,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write a whole file, bringing one tensor at a time to `dtype` and to the CPU.

    Args:
        file: open for writing, at its start.
        tensors: by name.
        metadata: short texts for the header; `format` is `pt` in any case.
        dtype: of floating-point tensors; None is each tensor's own.

    Raises:
        CheckpointError: a tensor's dtype has no name in the format.
    """
    header: dict[str, Any] = {
        "__metadata__": dict(sorted({"format": "pt", **(metadata or {})}.items()))
    }
    stored = {name: stored_dtype(tensor, dtype) for name, tensor in tensors.items()}
    for name, kind in stored.items():
        if kind not in _NAMES:
            known = ", ".join(str(known).removeprefix("torch.") for known in _NAMES)
            raise CheckpointError(f"{name} is {kind}, which is not stored; known: {known}")
    order = sorted(tensors, key=lambda name: (list(_NAMES).index(stored[name]), name))
    start = 0
    for name in order:
        stop = start + tensors[name].numel() * stored[name].itemsize
        shape = list(tensors[name].shape)
        header[name] = {
            "dtype": _NAMES[stored[name]],
            "shape": shape,
            "data_offsets": [start, stop],
        }
        start = stop
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for name in order:
        flat = tensors[name].detach().to("cpu", stored[name]).contiguous().reshape(-1)
        file.write(flat.view(torch.uint8).numpy().data)


def stored_dtype(tensor: Tensor, dtype: torch.dtype | None) -> torch.dtype:
    """Return what a tensor is stored in if floating-point ones are stored in `dtype`."""
    return dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
