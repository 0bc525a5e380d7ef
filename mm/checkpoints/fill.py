"""Put stored tensors into a module, strictly: each has its place and each place has its tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mm.errors import CheckpointError

_LISTED = 3  # names in a message; the rest is counted


class _KeepValues(TorchFunctionMode):
    """Leaves out every `torch.nn.init` function."""

    def __torch_function__(  # Any: whatever torch calls
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


@contextmanager
def unfilled() -> Iterator[None]:
    """Make modules on the meta device, without drawing values that a checkpoint replaces anyway.

    Drawing costs nothing there, but the first draw imports PyTorch's compiler, which takes most of
    a second.
    """
    with _KeepValues(), torch.device("meta"):
        yield


def stored_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return what a checkpoint of `module` stores: its state, shared tensors once."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            found[name] = tensor
    return found


def check_shapes(module: nn.Module, shapes: Mapping[str, tuple[int, ...]], source: object) -> None:
    """Compare stored shapes by name with the module's.

    Raises:
        CheckpointError: tensors are missing, unexpected or of another shape.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in stored_tensors(module).items()}
    misshaped = [
        f"{name} ({list(shapes[name])}, not {list(shape)})"
        for name, shape in expected.items()
        if name in shapes and shapes[name] != shape
    ]
    problems = [
        f"{len(names)} {kind}: {_some(names)}"
        for kind, names in (
            ("missing", sorted(set(expected) - set(shapes))),
            ("unexpected", sorted(set(shapes) - set(expected))),
            ("of another shape", misshaped),
        )
        if names
    ]
    if problems:
        raise CheckpointError(
            f"the tensors of {source} do not fit its config; {'; '.join(problems)}:"
            " weights and config.json must come from one model"
        )


@torch.no_grad()
def fill(
    module: nn.Module,
    tensors: Iterable[tuple[str, Tensor]],
    source: object,
    device: torch.device | str,
    dtype: torch.dtype | None,
) -> None:
    """Replace the module's parameters and buffers, casting and moving one tensor at a time.

    Args:
        module: usually made on the meta device.
        tensors: names and values; `check_shapes` has been called on them.
        source: where they come from, for messages.
        device: where to put them.
        dtype: of floating-point tensors; None keeps the stored one.
    """
    expected = stored_tensors(module)
    for name, tensor in tensors:
        place = expected.pop(name)
        if tensor.is_floating_point() != place.is_floating_point():
            raise CheckpointError(f"{name} of {source} is {tensor.dtype}: it must be {place.dtype}")
        tensor = tensor.to(device, dtype if tensor.is_floating_point() else None)
        path, _, leaf = name.rpartition(".")
        owner = module.get_submodule(path)
        if isinstance(place, nn.Parameter):
            setattr(owner, leaf, nn.Parameter(tensor, requires_grad=place.requires_grad))
        else:
            owner._buffers[leaf] = tensor
    assert not expected, "check_shapes was not called"
    for part in module.modules():
        tie = getattr(part, "tie_weights", None)
        if callable(tie):
            tie()
    module.to(device)  # what is computed rather than stored


def _some(names: list[str]) -> str:
    rest = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {rest} more" if rest > 0 else "")
