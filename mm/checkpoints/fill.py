"""Put stored tensors into a module, strictly: each has its place and each place has its tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mm.checkpoints.tensor_file import StoredTensor
from mm.errors import CheckpointError

_LISTED = 20  # names in a message at most; the rest is counted


@dataclass(frozen=True)
class Part:
    """A stored tensor and the part of one of ours that it fills.

    Args:
        name: what it is stored as.
        index: which part, as an index into our tensor; () is all of it.
        transposed: the last two axes are stored the other way round.
    """

    name: str
    index: tuple[int | slice, ...] = ()
    transposed: bool = False

    def of(self, tensor: Tensor) -> Tensor:
        """Return that part of our tensor, as a view of the stored shape."""
        view = tensor[self.index]
        return view.transpose(-1, -2) if self.transposed else view


Layout = Callable[[str], Sequence[Part]]  # of one of our tensors, which stored ones make it


def whole(name: str) -> list[Part]:
    """Describe a tensor that is stored under its own name."""
    return [Part(name)]


def nested(layouts: Mapping[str, Layout], published: Callable[[str], str]) -> Layout:
    """Return the layout of a whole model, of those of its parts.

    Args:
        layouts: by the name of the part, which our names begin with, as `encoder.`.
        published: from a name that begins so to the stored one.
    """

    def parts(name: str) -> list[Part]:
        part, _, rest = name.partition(".")
        return [replace(one, name=published(f"{part}.{one.name}")) for one in layouts[part](rest)]

    return parts


def taken_apart(tensors: Mapping[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """Return tensors as a layout stores them, as views."""
    return {part.name: part.of(t) for name, t in tensors.items() for part in layout(name)}


def within(stored: Mapping[str, StoredTensor], part: str) -> dict[str, StoredTensor]:
    """Return what is stored of one part of a whole model, under the part's own names."""
    start = f"{part}."
    return {name[len(start) :]: one for name, one in stored.items() if name.startswith(start)}


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


@torch.no_grad()
def fill(
    module: nn.Module,
    stored: Mapping[str, StoredTensor],
    source: object,
    device: torch.device | str,
    dtype: torch.dtype | None,
    layout: Layout = whole,
) -> None:
    """Replace the module's parameters and buffers by stored ones, one at a time.

    What needs neither casting nor moving nor stacking is mapped, and read when it is touched; the
    rest is copied in pieces. Either way, memory holds no more than the weights.

    Args:
        module: usually made on the meta device.
        stored: what the files hold, by name.
        source: where they are, for messages.
        device: where to put it.
        dtype: of floating-point tensors; None keeps the stored one.
        layout: of one of our tensors, under which names its parts are stored.

    Raises:
        CheckpointError: tensors are missing, unexpected, of another shape or of a kind that does
            not fit, or `dtype` is no floating-point one.
    """
    if dtype is not None and not dtype.is_floating_point:
        raise CheckpointError(f"dtype is {dtype}; weights are bfloat16, float16 or float32")
    device = torch.device(device)
    places = stored_tensors(module)
    parts = {name: layout(name) for name in places}
    _check(places, parts, stored, source)
    # In the order of the files, which a disk reads fastest.
    for name in sorted(places, key=lambda name: _position(stored[parts[name][0].name])):
        place = places[name]
        for part in parts[name]:
            kind = stored[part.name].dtype
            if kind.is_floating_point != place.is_floating_point():
                raise CheckpointError(f"{part.name} of {source} is {kind}, not {place.dtype}")
        tensor = _read(place, parts[name], stored, device, dtype)
        path, _, leaf = name.rpartition(".")
        owner = module.get_submodule(path)
        if isinstance(place, nn.Parameter):
            setattr(owner, leaf, nn.Parameter(tensor, requires_grad=place.requires_grad))
        else:
            owner._buffers[leaf] = tensor
    for child in module.modules():
        tie = getattr(child, "tie_weights", None)
        if callable(tie):
            tie()
    module.to(device)  # what is computed rather than stored


def _read(
    place: Tensor,
    parts: Sequence[Part],
    stored: Mapping[str, StoredTensor],
    device: torch.device,
    dtype: torch.dtype | None,
) -> Tensor:
    first = stored[parts[0].name]
    wanted = dtype if dtype is not None and place.is_floating_point() else first.dtype
    if parts == [Part(first.name)] and device.type == "cpu" and first.dtype == wanted:
        return first.tensor()
    tensor = torch.empty(place.shape, dtype=wanted, device=device)
    for part in parts:
        stored[part.name].copy_to(part.of(tensor))
    return tensor


def _check(
    places: Mapping[str, Tensor],
    parts: Mapping[str, Sequence[Part]],
    stored: Mapping[str, StoredTensor],
    source: object,
) -> None:
    """Compare names and shapes, both ways."""
    expected = {
        part.name: tuple(part.of(place).shape)
        for name, place in places.items()
        for part in parts[name]
    }
    misshaped = [
        f"{name} ({list(stored[name].shape)}, not {list(shape)})"
        for name, shape in expected.items()
        if name in stored and stored[name].shape != shape
    ]
    problems = {
        "missing": sorted(expected.keys() - stored.keys()),
        "unexpected": sorted(stored.keys() - expected.keys()),
        "of another shape": misshaped,
    }
    problems = {kind: names for kind, names in problems.items() if names}
    if problems:
        share = _LISTED // len(problems)
        told = (f"{len(names)} {kind}: {_some(names, share)}" for kind, names in problems.items())
        raise CheckpointError(
            f"the tensors of {source} do not fit its config; {'; '.join(told)}:"
            " weights and config.json must come from one model"
        )


def _position(stored: StoredTensor) -> tuple[str, int]:
    return stored.file.path.name, stored.start


def _some(names: list[str], count: int) -> str:
    rest = len(names) - count
    return ", ".join(names[:count]) + (f" and {rest} more" if rest > 0 else "")
