"""The repeated blocks of a model: what is compiled, computed again or sharded one by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def blocks_of(module: nn.Module) -> Iterator[nn.Module]:
    """The members of every stack of layers, outer ones before those within them."""
    for found in module.modules():
        if isinstance(found, nn.ModuleList):
            yield from found


def compile_blocks(model: nn.Module) -> None:
    """Compile the repeated blocks one by one.

    All blocks of a stack share one compiled graph, so this starts in a fraction of the time that
    compiling the whole model takes.
    """
    for block in blocks_of(model):
        block.compile()


def recompute_blocks(parts: Iterable[nn.Module]) -> None:
    """Keep only what enters a part's repeated blocks; compute the rest again going backward."""
    for part in parts:
        for block in blocks_of(part):
            _recompute(block)


def _recompute(block: nn.Module) -> None:
    forward = block.forward

    def again(*args: Any, **kwargs: Any) -> Any:  # Any: as the block's own forward
        if not torch.is_grad_enabled() or not block.training:
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    block.forward = again
