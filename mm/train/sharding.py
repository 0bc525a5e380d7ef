"""A model whose weights lie in pieces on several processes, and the whole of it again.

Ref: "PyTorch FSDP", arXiv 2304.11277; here its second interface, `fully_shard`, which cuts every
parameter along its first dimension and keeps its name.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.modules.batchnorm import _BatchNorm

from mm.train.blocks import blocks_of
from mm.train.distributed import World


def shard(root: nn.Module, world: World, device: torch.device) -> None:
    """Cut the parameters of every repeated block, and then what is left, over the processes.

    Each holds the whole model when this is called, with the same weights. Gradients are summed, not
    averaged: the losses are shares of the step's.
    """
    mesh = init_device_mesh(device.type, (world.size,))
    empty = {parameter for parameter in root.parameters() if parameter.numel() == 0}
    for block in reversed(list(dict.fromkeys(blocks_of(root)))):  # inner ones first
        if not isinstance(block, nn.ModuleList | nn.ModuleDict) and list(block.parameters()):
            fully_shard(block, mesh=mesh, ignored_params=empty)
    fully_shard(root, mesh=mesh, ignored_params=empty)
    for module in root.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)


def local(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def piece(length: int, rank: int, size: int) -> tuple[int, int]:
    """Which of a tensor's `length` rows process `rank` of `size` holds: first, and after last."""
    rows = -(-length // size)
    return min(rank * rows, length), min((rank + 1) * rows, length)


class Whole:
    """Makes the whole of a model that is being trained in pieces.

    The first process evaluates and saves a copy of its own: generation asks for other shapes at
    every token, at which the pieces would have to be gathered anew, by all processes.

    Args:
        model: before it is cut, and before its blocks' `forward` is replaced; with one process it
            is its own whole.
    """

    def __init__(self, model: nn.Module, world: World) -> None:
        self.world = world
        self._shape: nn.Module | None = None
        if world.size > 1 and world.is_main:
            # The same modules around parameters that take no memory.
            self._shape = _copied(
                model,
                {
                    id(p): nn.Parameter(torch.empty_like(p, device="meta"), p.requires_grad)
                    for p in model.parameters()
                },
            )

    def of(self, model: nn.Module) -> nn.Module | None:
        """The model whole, with its present weights, on its device; None but in one process.

        All processes must call it, as each gives its pieces.
        """
        if self.world.size == 1:
            return model
        found: dict[str, Tensor] = {}
        for name, parameter in model.named_parameters():
            full = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
            if self._shape is not None:
                found[name] = nn.Parameter(full.detach(), parameter.requires_grad)
        if self._shape is None:
            return None
        found |= {name: buffer.clone() for name, buffer in model.named_buffers()}
        kept = dict(self._shape.named_parameters()) | dict(self._shape.named_buffers())
        return _copied(self._shape, {id(kept[name]): tensor for name, tensor in found.items()})


def _copied(module: nn.Module, instead: dict[int, Tensor]) -> nn.Module:
    """A copy with other tensors in place of some, which are named by id; tied ones stay tied."""
    memo: dict[int, Any] = dict(instead)  # Any: what deepcopy notes of all that it meets
    return copy.deepcopy(module, memo)


class Statistics:
    """Gives batch norms the statistics of all batches of a step, as if one process had seen them.

    A running mean r becomes (1 - m)r + mb with each batch's b. What the batches of one process add
    to it does not depend on where it started, so the processes' parts can be put one after another.

    Args:
        own: batches of a step that each process takes.
    """

    def __init__(self, modules: nn.Module, own: int, world: World) -> None:
        self.own, self.world = own, world
        self._norms = [m for m in modules.modules() if isinstance(m, _BatchNorm)]
        self._before: list[tuple[Tensor, Tensor, float]] = []

    def before(self) -> None:
        """Note what they are before a step."""
        self._before = []
        for norm in self._norms if self.world.size > 1 else ():
            if norm.training and norm.momentum and norm.running_mean is not None:
                for buffer in (norm.running_mean, norm.running_var):
                    assert buffer is not None  # for the type checker: there are both or none
                    self._before.append((buffer, buffer.clone(), 1 - norm.momentum))
                if norm.num_batches_tracked is not None:
                    norm.num_batches_tracked += self.own * (self.world.size - 1)

    @torch.no_grad()
    def join(self) -> None:
        """After a step, put the processes' parts together."""
        for buffer, start, rest in self._before:
            kept = rest**self.own
            added = buffer - kept * start
            parts = [torch.empty_like(added) for _ in range(self.world.size)]
            dist.all_gather(parts, added)
            for part in parts:
                start = kept * start + part
            buffer.copy_(start)
