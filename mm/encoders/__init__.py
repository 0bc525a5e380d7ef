"""Vision encoders: the contract that all keep, and how they are found by short name.

An encoder knows nothing of text. It owns its config, its preprocessing and its choice of feature,
and maps images to `[N, D]` patch tokens, each with the `(h, w)` grid they lie on, row by row.

To add one, write `mm/encoders/foo.py` with a frozen dataclass `Config` and a class
`Encoder(VisionEncoder)`, and `conf/encoder/foo.yaml`.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mm.registry import Registry

if TYPE_CHECKING:
    from PIL.Image import Image

_registry = Registry("encoder", "mm.encoders", "Encoder", exclude={"conformance", "pixels"})


class VisionEncoder(nn.Module, ABC):
    """What every vision encoder does. `config` is the encoder's own frozen dataclass.

    Constructing one does no I/O and chooses no device. Checkpoints are loaded into modules made on
    the meta device, so a buffer that is computed rather than stored names `device="cpu"`.
    """

    config: Any  # Any: each family's dataclass has its own fields

    @property
    @abstractmethod
    def hidden_size(self) -> int:
        """Width D of a token."""

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
        """Map pixel values `[B, 3, S, S]` to patch tokens `[B, N, D]`, row by row."""

    @torch.no_grad()
    def encode(self, images: Sequence[Image | Tensor]) -> list[tuple[Tensor, tuple[int, int]]]:
        """Preprocess and run; return for each picture its tokens `[N, D]` and their grid."""
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
