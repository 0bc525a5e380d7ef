"""Tensors of a run on disk, in one piece or in one per process, read on any number of processes.

One process writes what `mm.checkpoints.store` writes. Several write a file each,
`piece-00001-of-00004.safetensors`, with their rows of every parameter, and the first writes the
rest and `pieces.json`, which says how many rows each has in all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from mm.checkpoints.store import open_tensors, read_json, save_tensors, write_atomically
from mm.checkpoints.tensor_file import TensorFile, write_tensors
from mm.errors import CheckpointError
from mm.train.distributed import World
from mm.train.sharding import local, piece

_INDEX = "pieces.json"


def save(tensors: Mapping[str, Tensor], directory: Path, world: World) -> None:
    """Write this process's part of the tensors into a folder that is there.

    Raises:
        OSError: it can't be written.
    """
    if world.size == 1:
        save_tensors({name: t.detach().cpu() for name, t in tensors.items()}, directory)
        return
    cut = {name: len(tensor) for name, tensor in tensors.items() if isinstance(tensor, DTensor)}
    mine = {name: local(t) for name, t in tensors.items() if name in cut or world.is_main}
    path = directory / _name(world.rank, world.size)
    write_atomically(path, lambda file: write_tensors(file, mine))
    if world.is_main:
        index = json.dumps({"pieces": world.size, "rows": cut}, indent=2) + "\n"
        write_atomically(directory / _INDEX, lambda file: file.write(index.encode()))


class Stored:
    """The tensors of a folder that `save` wrote, none of them read yet.

    Raises:
        CheckpointError: a file is missing or damaged.
    """

    def __init__(self, directory: Path) -> None:
        self._rows: dict[str, int] = {}
        if not (directory / _INDEX).exists():
            self._files = [open_tensors(directory)]
        else:
            index = read_json(directory / _INDEX)
            size = int(index["pieces"])
            self._rows = {str(name): int(rows) for name, rows in index["rows"].items()}
            self._files = [TensorFile(directory / _name(n, size)).tensors for n in range(size)]
        self.names = self._files[0].keys()
        self._where = directory

    def shape(self, name: str) -> tuple[int, ...]:
        """The whole tensor's shape."""
        shape = self._files[0][name].shape
        return (self._rows[name], *shape[1:]) if name in self._rows else shape

    def whole(self, name: str) -> Tensor:
        """A tensor, all of it."""
        if name not in self._rows:
            return self._files[0][name].tensor()
        return torch.cat([file[name].tensor() for file in self._files])

    def fill(self, name: str, place: Tensor, world: World) -> None:
        """Copy a tensor, or this process's rows of it, to where it belongs.

        Raises:
            CheckpointError: it is of another shape.
        """
        if self.shape(name) != tuple(place.shape):
            raise CheckpointError(
                f"{self._where} is of another model: {name} is {self.shape(name)} there and"
                f" {tuple(place.shape)} here"
            )
        if not isinstance(place, DTensor):
            place.copy_(self.whole(name))
            return
        target = local(place)
        first, end = piece(len(place), world.rank, world.size)
        for number, file in enumerate(self._files):
            held, last = piece(len(place), number, len(self._files))
            start, stop = max(first, held), min(end, last)
            if start < stop:
                target[start - first : stop - first] = file[name].tensor()[
                    start - held : stop - held
                ]


def _name(rank: int, size: int) -> str:
    return f"piece-{rank + 1:05d}-of-{size:05d}.safetensors"
