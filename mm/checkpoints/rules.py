"""Name rules of a published format: a short table that reads both ways."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from mm.errors import CheckpointError

_T = TypeVar("_T")


@dataclass(frozen=True)
class NameRules:
    """How published tensor names become ours.

    Args:
        prefixes: pairs (published, ours); the first that fits is swapped, other names stay.
        ignored: regular expressions of published tensors that are left out on purpose. Anything
            else that has no place is an error.
    """

    prefixes: tuple[tuple[str, str], ...] = ()
    ignored: tuple[str, ...] = ()

    def is_ignored(self, published: str) -> bool:
        """Tell whether a published tensor is left out on purpose."""
        return any(re.fullmatch(pattern, published) for pattern in self.ignored)

    def ours(self, published: str) -> str:
        """Return our name of a published tensor."""
        return _swap(published, self.prefixes)

    def published(self, ours: str) -> str:
        """Return the published name of our tensor."""
        return _swap(ours, ((mine, theirs) for theirs, mine in self.prefixes))

    def apply(self, stored: Mapping[str, _T], source: object) -> dict[str, _T]:
        """Return stored things under our names, without the ignored ones.

        Raises:
            CheckpointError: two of them would have one name.
        """
        found: dict[str, _T] = {}
        for name, value in stored.items():
            if self.is_ignored(name):
                continue
            if self.ours(name) in found:
                raise CheckpointError(
                    f"{source} stores {self.ours(name)} twice, with and without a prefix: remove"
                    " one"
                )
            found[self.ours(name)] = value
        return found


def _swap(name: str, prefixes: Iterable[tuple[str, str]]) -> str:
    for old, new in prefixes:
        if name.startswith(old):
            return new + name[len(old) :]
    return name
