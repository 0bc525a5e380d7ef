"""Vision encoders: the contract that all keep, and how they are found by short name.

An encoder knows nothing of text. It owns its config, its preprocessing and its choice of feature,
and maps images to `[N, D]` patch tokens, each with the `(h, w)` grid they lie on, row by row.

To add one, write `mm/encoders/foo.py` with a frozen dataclass `Config` and a class
`Encoder(VisionEncoder)`, and `conf/encoder/foo.yaml`. If there are published weights, the class
says in `published` how their folders differ; nothing else needs to know of it.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from mm.registry import Registry

if TYPE_CHECKING:
    from PIL.Image import Image

_registry = Registry(
    "encoder",
    "mm.encoders",
    "Encoder",
    exclude={"blocks", "conformance", "native", "packed", "pixels", "square", "tiles"},
)


@dataclass(frozen=True)
class Published:
    """Which published folders are a family's, and where they differ from `Config` and `Encoder`.

    What is not said here is the same: config fields and tensors have one name in both.

    Args:
        model_types: `model_type` of a tower's own `config.json`.
        whole: `model_type` of models whose config holds the tower's as `vision_config`.
        prefixes: pairs (published, ours) of how tensor names begin.
        ignored: regular expressions of published tensors that are left out on purpose.
        fields: pairs (published, ours) of config fields.
        fixed: pairs (published field, value): what the network does. Any other value is refused.
        stored_as: where one more layout is published: from one of our names to the published
            tensors whose rows, one after the other, make it.
    """

    model_types: tuple[str, ...]
    whole: tuple[str, ...] = ()
    prefixes: tuple[tuple[str, str], ...] = ()
    ignored: tuple[str, ...] = ()
    fields: tuple[tuple[str, str], ...] = ()
    fixed: tuple[tuple[str, object], ...] = ()
    stored_as: Callable[[str], Sequence[str]] | None = None


class VisionEncoder(nn.Module, ABC):
    """What every vision encoder does. `config` is the encoder's own frozen dataclass.

    Constructing one does no I/O and chooses no device. Checkpoints are loaded into modules made on
    the meta device, so a buffer that is computed rather than stored names `device="cpu"`.
    """

    config: Any  # Any: each family's dataclass has its own fields
    published: ClassVar[Published | None] = None

    @property
    @abstractmethod
    def hidden_size(self) -> int:
        """Width D of a token."""

    @property
    def num_prefix_tokens(self) -> int:
        """How many tokens (class token, registers) `forward` gives before the patches."""
        return 0

    @abstractmethod
    def preprocess(self, images: Sequence[Image | Tensor] | Tensor) -> Tensor:
        """Turn pictures into what `forward` takes.

        Args:
            images: PIL pictures or uint8 tensors `[3, height, width]`, of any sizes; or one uint8
                tensor `[B, 3, height, width]`, which stays on its device.

        Returns:
            float32 pixel values `[B, 3, S, S]`.
        """

    @abstractmethod
    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Return the patch grid (rows, columns) that a picture of this size will get."""

    @abstractmethod
    def init_weights(self, generator: torch.Generator) -> None:
        """Draw every parameter from `generator` alone, in a fixed order."""

    @abstractmethod
    def forward(self, pixel_values: Tensor) -> Tensor:
        """Map pixel values `[B, 3, S, S]` to patch tokens `[B, N, D]`, row by row.

        A class token and registers are left out, unless the config asks for them; then they come
        first, and there are `num_prefix_tokens` of them.
        """

    @torch.no_grad()
    def encode(self, images: Sequence[Image | Tensor]) -> list[tuple[Tensor, tuple[int, int]]]:
        """Preprocess and run; return for each picture its tokens `[N, D]` and their grid.

        Prefix tokens that the config asks for are the first of the N, and not on the grid.
        """
        device = next(self.parameters()).device
        tokens = self(self.preprocess(images).to(device))
        return [
            (one, self.grid(*image_size(image))) for one, image in zip(tokens, images, strict=True)
        ]


def image_size(image: Image | Tensor) -> tuple[int, int]:
    """Return (height, width) of a PIL picture or of a tensor `[C, height, width]`."""
    if isinstance(image, Tensor):
        return image.shape[-2], image.shape[-1]
    return image.height, image.width


def names() -> list[str]:
    """List the known encoder names."""
    return _registry.names()


def get(name: str) -> type[VisionEncoder]:
    """Return the encoder class registered as `name`."""
    encoder: type[VisionEncoder] = _registry.get(name)
    return encoder


def build(name: str, config: Mapping[str, Any]) -> VisionEncoder:  # plain JSON or YAML values
    """Make an encoder from its name and plain config values."""
    encoder: VisionEncoder = _registry.build(name, config)
    return encoder


def config_type(encoder: type[VisionEncoder]) -> Any:  # Any: a dataclass of the family's own
    """Return the config dataclass of an encoder class."""
    return _registry.config_type(name_of(encoder))


def name_of(encoder: type) -> str:
    """Return the name of an encoder class."""
    return _registry.name_of(encoder)


def load(directory: str | os.PathLike[str]) -> VisionEncoder:
    """Load a published vision checkpoint, with its own preprocessing.

    Raises:
        CheckpointError: the directory is no vision checkpoint that is known here, or is damaged.
    """
    from mm.checkpoints.published import load_encoder

    return load_encoder(directory)
