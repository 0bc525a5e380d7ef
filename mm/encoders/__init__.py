"""Vision encoders: the contract that all keep, and how they are found by short name.

An encoder knows nothing of text. It owns its config, its preprocessing and its choice of feature.
It looks at a picture in one view or in several (tiles, a thumbnail), of one size or of the
picture's own, and maps each view to `[N, D]` patch tokens on an `(h, w)` grid, row by row.

To add one, write `mm/encoders/foo.py` with a frozen dataclass `Config` and a class
`Encoder(VisionEncoder)`, and `conf/encoder/foo.yaml`. If there are published weights, the class
says in `published` how their folders differ; nothing else needs to know of it.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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
    exclude={"backbone", "blocks", "conformance", "native", "packed", "pixels", "square", "tiles"},
)


Grid = tuple[int, int]  # rows, columns


@dataclass(frozen=True)
class Pictures:
    """Preprocessed pictures, as an encoder takes them. V views of all of them together.

    Args:
        pixel_values: `[V, 3, S, S]`, one square a view; or of an encoder of native resolution,
            flattened patches `[ΣN, P]`, view after view.
        views: for each picture, the patch grids of its views.
    """

    pixel_values: Tensor
    views: tuple[tuple[Grid, ...], ...]

    def __len__(self) -> int:
        return len(self.views)

    @property
    def grids(self) -> tuple[Grid, ...]:
        """The patch grids of all views, picture after picture."""
        return tuple(grid for views in self.views for grid in views)

    def to(self, device: torch.device | str) -> Pictures:
        """Move them."""
        return replace(self, pixel_values=self.pixel_values.to(device))

    @staticmethod
    def squares(pixel_values: Tensor, views: Callable[[int, int], tuple[Grid, ...]]) -> Pictures:
        """Make each of `[V, 3, S, S]` a picture of one view; `views` is the encoder's."""
        (grid,) = views(pixel_values.shape[-2], pixel_values.shape[-1])
        return Pictures(pixel_values, ((grid,),) * pixel_values.shape[0])

    @staticmethod
    def cat(parts: Sequence[Pictures]) -> Pictures:
        """Put pictures of one encoder together, in order."""
        views = tuple(views for part in parts for views in part.views)
        return Pictures(torch.cat([part.pixel_values for part in parts]), views)


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
    def preprocess(self, images: Sequence[Image | Tensor] | Tensor) -> Pictures:
        """Turn pictures into what `tokens` takes, in float32.

        Args:
            images: PIL pictures or uint8 tensors `[3, height, width]`, of any sizes; or one uint8
                tensor `[B, 3, height, width]`, which stays on its device.
        """

    @abstractmethod
    def views(self, height: int, width: int) -> tuple[Grid, ...]:
        """Return the patch grids of the views that a picture of this size will be seen in.

        Raises:
            ValueError: no picture of this size can be taken.
        """

    @abstractmethod
    def init_weights(self, generator: torch.Generator) -> None:
        """Draw every parameter from `generator` alone, in a fixed order."""

    @abstractmethod
    def forward(self, *args: Any, **kwargs: Any) -> Tensor:  # Any: native encoders take grids too
        """Map pixel values of V squares `[V, 3, S, S]` to patch tokens `[V, N, D]`, row by row.

        A class token and registers are left out, unless the config asks for them; then they come
        first, and there are `num_prefix_tokens` of them.
        """

    def tokens(self, pictures: Pictures) -> Tensor:
        """Map pictures to patch tokens `[ΣN, D]`, view after view, row by row.

        An encoder of native resolution has its own, which gives `forward` the grids too.
        """
        return self(pictures.pixel_values).flatten(0, 1)  # type: ignore[no-any-return]

    def from_processor(self, pixel_values: Tensor, **inputs: Tensor) -> Pictures:
        """Take the tensors that a published processor makes: here of squares.

        Raises:
            ValueError: a tensor that is not known here.
        """
        if inputs:
            raise ValueError(f"{', '.join(sorted(inputs))} is nothing that this encoder takes")
        return Pictures.squares(pixel_values, self.views)

    @torch.no_grad()
    def encode(self, images: Sequence[Image | Tensor]) -> list[tuple[Tensor, tuple[Grid, ...]]]:
        """Preprocess and run; return for each picture its tokens `[N, D]` and its views' grids.

        Prefix tokens that the config asks for are the first of a view, and not on its grid.
        """
        pictures = self.preprocess(images)
        tokens = self.tokens(pictures.to(next(self.parameters()).device))
        counts = [
            sum(self.num_prefix_tokens + rows * columns for rows, columns in views)
            for views in pictures.views
        ]
        return list(zip(tokens.split(counts), pictures.views, strict=True))


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
