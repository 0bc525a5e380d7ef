"""Scrubbed shards, read at random: WebDataset tar files with a ledger that says what is in them.

`shard_format` says how a sample lies in a tar, `shard_writer` writes a directory, `shard_audit`
checks one, `forget` takes samples out again.
"""

import mmap
import os
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

from mm.data.sample import Sample
from mm.data.shard_format import END, unpack
from mm.data.shard_writer import ShardWriter, write_shards
from mm.privacy import ledger as ledgers
from mm.privacy.errors import LedgerError

__all__ = ["ShardReader", "ShardWriter", "write_shards"]


class ShardReader:
    """Read scrubbed shards by number; refuse anything else.

    Safe to share with forked or spawned loader processes: files are mapped on first use in each.

    Args:
        directory: written by `ShardWriter`.
        verify: hash every shard once. Pass False only where another process just did.

    Raises:
        LedgerError: not scrubbed, edited or not audited; names the command that helps.
    """

    def __init__(self, directory: str | os.PathLike[str], verify: bool = True) -> None:
        self.directory = Path(directory)
        self.ledger = ledgers.read(self.directory)
        if verify:
            ledgers.verify_shards(self.directory, self.ledger)
        self.policy = ledgers.policy_of(self.ledger)
        self._bounds = [
            array("q", [*shard.pop("offsets"), shard["bytes"] - len(END)])
            for shard in self.ledger["shards"]
        ]
        self._firsts = [0, *accumulate(len(bounds) - 1 for bounds in self._bounds)]
        self._maps: dict[int, mmap.mmap] = {}

    def __len__(self) -> int:
        return self._firsts[-1]

    def __getitem__(self, index: int) -> Sample:
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        index %= len(self)
        number = bisect_right(self._firsts, index) - 1
        place = index - self._firsts[number]
        start, end = self._bounds[number][place], self._bounds[number][place + 1]
        if number not in self._maps:
            path = self.directory / self.ledger["shards"][number]["file"]
            try:
                with open(path, "rb") as file:
                    self._maps[number] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError):
                raise LedgerError(f"{path} cannot be read: {ledgers.fix(self.directory)}") from None
        return unpack(self._maps[number][start:end]).sample

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": {}}
