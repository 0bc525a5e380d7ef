"""Projectors: from an encoder's tokens to the decoder's width; the contract and the registry.

To add one, write `mm/projectors/foo.py` with a frozen dataclass `Config` and a class
`Projector(mm.projectors.Projector)`, and `conf/projector/foo.yaml`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mm.registry import Registry

Grid = tuple[int, int]  # rows, columns

_registry = Registry(
    "projector", "mm.projectors", "Projector", exclude={"attention", "checks", "shuffle"}
)


class Projector(nn.Module, ABC):
    """What every projector does. `config` is the projector's own frozen dataclass."""

    config: Any  # Any: each kind's dataclass has its own fields

    @property
    def num_residuals(self) -> int:
        """How many deeper layers K of the decoder get features of their own (DeepStack)."""
        return 0

    @abstractmethod
    def token_grid(self, grid: Grid) -> Grid:
        """Return the grid on which the tokens of a view of this patch grid lie, before running.

        Tokens that have no place, as those of learnt queries, lie in one row `(1, M)`.

        Raises:
            ValueError: the projector cannot take such a grid.
        """

    def num_tokens(self, grid: Grid) -> int:
        """Return how many tokens M a view of this patch grid takes; raises as `token_grid`."""
        rows, columns = self.token_grid(grid)
        return rows * columns

    @abstractmethod
    def init_weights(self, generator: torch.Generator) -> None:
        """Draw every parameter from `generator` alone, in a fixed order."""

    @abstractmethod
    def project(self, tokens: Tensor, grid: Grid) -> Tensor:
        """Map patch tokens `[B, N, D]` of views of one grid, row by row, to `[B, M, D_out]`.

        With residuals, a token's `(1 + K) D_out` values are the token itself and then those.
        """

    def forward(self, tokens: Tensor, grids: Sequence[Grid]) -> Tensor:
        """Map the patch tokens `[ΣN, D]` of views of any grids, in order, to `[ΣM, (1 + K) D_out]`.

        Raises:
            ValueError: the tokens do not fill the grids.
        """
        counts = [rows * columns for rows, columns in grids]
        if tokens.shape[0] != sum(counts):
            raise ValueError(
                f"{tokens.shape[0]} tokens do not fill {len(grids)} patch grids of"
                f" {sum(counts)} places: leave class tokens and registers out (the encoder's"
                " keep_prefix)"
            )
        if len(set(grids)) == 1:
            return self.project(tokens.unflatten(0, (len(grids), -1)), grids[0]).flatten(0, 1)
        views = tokens.split(counts)
        projected: list[Tensor] = [tokens] * len(grids)
        for grid in set(grids):  # views of one grid at once
            where = [n for n, other in enumerate(grids) if other == grid]
            alike = self.project(torch.stack([views[n] for n in where]), grid)
            for n, view in zip(where, alike, strict=True):
                projected[n] = view
        return torch.cat(projected)


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
