"""What the checks share: what they are given, how they fail, pictures and comparisons."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from mm.encoders import Grid, Pictures, VisionEncoder

if TYPE_CHECKING:
    from PIL.Image import Image


class TakesTokens(Protocol):
    """What a projector does."""

    def num_tokens(self, grid: Grid) -> int: ...
    def __call__(self, tokens: Tensor, grids: Sequence[Grid]) -> Tensor: ...


@dataclass(frozen=True)
class Reference:
    """Another implementation with the same weights, on the CPU.

    Args:
        inputs: from an RGB picture to the tensors that its processor makes, by name.
        features: from those, and the grids of their views, to patch tokens `[ΣN, D]`.
    """

    inputs: Callable[[Image], Mapping[str, Tensor]]
    features: Callable[[Mapping[str, Tensor], Sequence[Grid]], Tensor]


@dataclass(frozen=True)
class Surroundings:
    """What the checks need from outside.

    Args:
        save_and_load: through mm's own checkpoint; None leaves that check out.
        projectors: by name, each of which takes the encoder's width.
        reference: None leaves the comparisons out.
        compile_backend: of `torch.compile`; None leaves compiling out.
        least_per_second: pictures a second that throughput must reach.
        batch_size: of the throughput's batches.
        skip: names of checks to leave out.
    """

    save_and_load: Callable[[VisionEncoder], VisionEncoder] | None = None
    projectors: Mapping[str, TakesTokens] = field(default_factory=dict)
    reference: Reference | None = None
    compile_backend: str | None = "inductor"
    least_per_second: float = 0.0
    batch_size: int = 4
    skip: Collection[str] = ()


class Broken(Exception):
    """A check that fails: what was seen, and what to change."""

    def __init__(self, seen: str, fix: str) -> None:
        super().__init__(seen)
        self.fix = fix


class Skipped(Exception):
    """A check that does not apply."""


@torch.no_grad()
def disturb(encoder: nn.Module, seed: int = 0) -> None:
    """Move every parameter a little off its initial value, so that none is without effect."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in encoder.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        scale = 0.1 if parameter.ndim < 2 else 0.02
        parameter.add_(scale * noise.to(parameter.device, parameter.dtype))


def picture(height: int, width: int, mode: str = "RGB") -> Image:
    """Make a picture of noise, where every rounding and every tap of a filter shows."""
    from PIL import Image as pictures

    generator = torch.Generator().manual_seed(height * width)
    values = torch.randint(0, 256, (height, width, 4), generator=generator, dtype=torch.uint8)
    rgba = pictures.frombytes("RGBA", (width, height), values.numpy().tobytes())
    return rgba if mode == "RGBA" else rgba.convert("RGB").convert(mode)


def hard_pictures() -> dict[str, Image]:
    """Make the pictures that preprocessing gets wrong first."""
    return {
        "one pixel": picture(1, 1),
        "tiny": picture(3, 5),
        "huge": picture(1600, 2400),
        "1 to 20": picture(40, 800),
        "20 to 1": picture(800, 40),
        "grey": picture(50, 70, "L"),
        "palette": picture(50, 70, "P"),
        "alpha": picture(50, 70, "RGBA"),
        "grey and alpha": picture(50, 70, "LA"),
    }


def tiny_values(config_type: Any) -> dict[str, Any]:  # Any: a dataclass of the family's own
    """Return values for those fields of a config that make its encoder tiny."""
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 32,
        "picture_size": 32,
        "shortest_edge": 36,
        "patch_size": 8,
        "num_patches": 16,
        "max_num_patches": 24,
        "num_position_embeddings": 16,
        "min_pixels": 512,
        "max_pixels": 1536,
        "longest_edge": 48,
        "deepstack_visual_indexes": (0,),
    }
    hints = typing.get_type_hints(config_type)
    hints = {field.name: hints[field.name] for field in dataclasses.fields(config_type)}
    pictures = ("image_size", "picture_size", "shortest_edge")
    # Where a size may be None, some library's network has its own; pictures it takes of any size.
    return {
        name: size
        for name, size in sizes.items()
        if name in hints
        and (
            hints[name] is int
            or isinstance(size, tuple)
            or (name in pictures and int in typing.get_args(hints[name]))
        )
    }


def device_of(encoder: nn.Module) -> torch.device:
    return next(encoder.parameters()).device


def some_images(count: int = 2) -> list[Image]:
    return [picture(40 + 9 * index, 60 - 7 * index) for index in range(count)]


def some_pictures(encoder: VisionEncoder, count: int = 2) -> Pictures:
    return encoder.preprocess(some_images(count)).to(device_of(encoder))


def patches_of(encoder: VisionEncoder, pictures: Pictures) -> Tensor:
    """Run an encoder; return its patch tokens `[ΣN, D]`, without those that come before them."""
    prefix = encoder.num_prefix_tokens
    counts = [prefix + rows * columns for rows, columns in pictures.grids]
    return torch.cat([view[prefix:] for view in encoder.tokens(pictures).split(counts)])


def deviations_off(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference, in standard deviations of what is expected."""
    if found.shape != expected.shape:
        return float("inf")
    spread = expected.float().std().clamp(min=1e-12)
    off = float((found.float() - expected.float()).abs().max() / spread)
    return off if off == off else float("inf")


def differing_state(a: nn.Module, b: nn.Module) -> list[str]:
    """Name what differs between two modules' states."""
    left, right = a.state_dict(), b.state_dict()
    shared = left.keys() & right.keys()
    differing = {
        name
        for name in shared
        if left[name].dtype != right[name].dtype
        or not torch.equal(left[name].cpu(), right[name].cpu())
    }
    return sorted((left.keys() ^ right.keys()) | differing)


def some_of(names: Collection[str]) -> str:
    listed = sorted(names)
    more = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
    return ", ".join(listed[:3]) + more
