"""Projectors: from an encoder's tokens to the decoder's width; the contract and the registry.

To add one, write `mm/projectors/foo.py` with a frozen dataclass `Config` and a class
`Projector(mm.projectors.Projector)`, and `conf/projector/foo.yaml`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mm.registry import Registry

_registry = Registry(
    "projector", "mm.projectors", "Projector", exclude={"attention", "checks", "shuffle"}
)


class Projector(nn.Module, ABC):
    """What every projector does. `config` is the projector's own frozen dataclass."""

    config: Any  # Any: each kind's dataclass has its own fields

    @abstractmethod
    def num_tokens(self, grid: tuple[int, int]) -> int:
        """Return how many tokens M an image on this patch grid will take, before running.

        Raises:
            ValueError: the projector cannot take such a grid.
        """

    @abstractmethod
    def init_weights(self, generator: torch.Generator) -> None:
        """Draw every parameter from `generator` alone, in a fixed order."""

    @abstractmethod
    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Map patch tokens `[B, N, D]` on `grid`, row by row, to `[B, M, D_out]`."""


def names() -> list[str]:
    """List the known projector names."""
    return _registry.names()


def get(name: str) -> type[Projector]:
    """Return the projector class registered as `name`."""
    projector: type[Projector] = _registry.get(name)
    return projector


def build(name: str, config: Mapping[str, Any]) -> Projector:  # plain JSON or YAML values
    """Make a projector from its name and plain config values."""
    projector: Projector = _registry.build(name, config)
    return projector


def name_of(projector: type) -> str:
    """Return the name of a projector class."""
    return _registry.name_of(projector)
