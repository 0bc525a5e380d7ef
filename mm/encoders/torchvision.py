"""Any classifier of torchvision by its name as a backbone, with torchvision's own preprocessing.

What counts is one of its inner results: a map `[B, D, h, w]`, or tokens `[B, 1 + N, D]` with the
class token first. Tensors have torchvision's names after `backbone.`. Batch norms keep their stored
statistics, so that a picture's tokens do not depend on its neighbours.

Ref: https://docs.pytorch.org/vision/stable/models.html and its `feature_extraction`.

B pictures, N patches, D width, S side in pixels.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from mm.encoders import Grid, Pictures
from mm.encoders.backbone import BackboneEncoder
from mm.encoders.pixels import to_picture
from mm.errors import UsageError
from mm.registry import unknown_name_message

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Config:
    """Which backbone, which of its results, and how it wants its pictures.

    None is what torchvision says of the model's default weights; the encoder's own `config` has the
    values. `node` names the result as `torchvision.models.feature_extraction` does (`layer3`,
    `encoder.layers.encoder_layer_10`); None is the last map, or what a transformer's last norm
    gives. `keep_prefix` gives the class token too, if there is one.
    """

    model: str
    node: str | None = None
    hidden_size: int | None = None
    image_size: int | None = None
    shortest_edge: int | None = None
    resample: Literal["bicubic", "bilinear"] | None = None
    image_mean: tuple[float, ...] | None = None
    image_std: tuple[float, ...] | None = None
    keep_prefix: bool = False


def library() -> Any:  # Any: torchvision is not read by the type checker
    """Import torchvision's models; raises UsageError if it is not installed."""
    try:
        import torchvision.models.feature_extraction
    except ImportError:
        raise UsageError(
            "encoder 'torchvision' needs the library torchvision: `pip install torchvision`"
        ) from None
    return torchvision.models


class Encoder(BackboneEncoder):
    """A torchvision backbone."""

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__()
        models = library()
        known = models.list_models(module=models)
        if config.model not in known:
            message = unknown_name_message("torchvision model", config.model, known)
            raise UsageError(message)
        transforms = models.get_model_weights(config.model).DEFAULT.transforms()
        said = {
            "image_size": transforms.crop_size[0],
            "shortest_edge": transforms.resize_size[0],
            "resample": transforms.interpolation.value,
            "image_mean": tuple(transforms.mean),
            "image_std": tuple(transforms.std),
        }
        config = dataclasses.replace(
            config, **{name: v for name, v in said.items() if getattr(config, name) is None}
        )
        side = config.image_size or 0
        size = (1, 3, side, side)
        made = whole = _make(models, config)
        if not next(made.parameters()).is_meta:
            with torch.device("meta"):
                whole = _make(models, config)
        pixels = torch.empty(size, device=next(whole.parameters()).device)
        extract = models.feature_extraction
        node = config.node or _last_node(extract, whole, pixels)
        nodes = extract.get_graph_node_names(whole)[1]
        if not any(f"{name}.".startswith(f"{node}.") for name in nodes):
            raise UsageError(
                f"torchvision's {config.model} has no node {node!r}: see"
                " torchvision.models.feature_extraction.get_graph_node_names"
            )
        probe = extract.create_feature_extractor(whole, {node: "x"}).eval()
        shape = tuple(probe(pixels)["x"].shape)
        self.config = dataclasses.replace(config, node=node)
        self._shape = _checked_shape(shape, self.config)
        if config.hidden_size not in (None, self._shape[0]):
            raise UsageError(
                f"hidden_size is {config.hidden_size}; {node!r} of {config.model} has"
                f" {self._shape[0]}"
            )
        self.config = dataclasses.replace(self.config, hidden_size=self._shape[0])
        self.backbone = extract.create_feature_extractor(made, {node: "x"})

    @property
    def hidden_size(self) -> int:
        """Width D of a token."""
        return self._shape[0]

    @property
    def num_prefix_tokens(self) -> int:
        """How many tokens (a class token) `forward` gives before the patches."""
        return self._shape[3] if self.config.keep_prefix else 0

    def views(self, height: int, width: int) -> tuple[Grid, ...]:
        """Return the grid of the feature map: the same for every picture."""
        return ((self._shape[1], self._shape[2]),)

    def preprocess(self, images: Sequence[Image | Tensor] | Tensor) -> Pictures:
        """Run torchvision's own transform on each picture.

        Pictures of one tensor come out on its device; at once, if they have the right size.
        """
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms._presets import ImageClassification

        config = self.config
        transform = ImageClassification(
            crop_size=config.image_size,
            resize_size=config.shortest_edge,
            mean=config.image_mean,
            std=config.image_std,
            interpolation=InterpolationMode(config.resample),
        )
        side, edge = config.image_size, config.shortest_edge
        if isinstance(images, Tensor) and images.shape[-2:] == (side, side) and edge == side:
            return Pictures.squares(transform(images), self.views)
        pixel_values = torch.stack([transform(to_picture(image)) for image in images])
        if isinstance(images, Tensor):
            pixel_values = pixel_values.to(images.device)
        return Pictures.squares(pixel_values, self.views)

    def __deepcopy__(self, memo: dict[int, Any]) -> Encoder:
        """Copy; by themselves, torchvision's graphs come out of a copy in training mode."""
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        copied.__dict__ = copy.deepcopy(self.__dict__, memo)
        return copied.train(self.training)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Map pixel values `[B, 3, S, S]` to tokens `[B, N, D]`, row by row.

        Raises:
            ValueError: another size than the encoder is made for.
        """
        side = self.config.image_size
        if pixel_values.shape[1:] != (3, side, side):
            raise ValueError(
                f"pixel values are {tuple(pixel_values.shape)}; this encoder needs [B, 3, {side},"
                f" {side}]: use its preprocess()"
            )
        weight = next(self.parameters())
        x: Tensor = self.backbone(pixel_values.to(weight.dtype))["x"]
        if x.ndim == 4:
            return x.flatten(2).transpose(1, 2)
        return x if self.config.keep_prefix else x[:, self._shape[3] :]


def _make(models: Any, config: Config) -> nn.Module:
    name = config.model
    transformer = {"image_size": config.image_size} if name.startswith("vit_") else {}
    # Draws its weights; the keyword of two older networks says not to warn of it.
    quiet = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    made: nn.Module = models.get_model(name, weights=None, **transformer, **quiet)
    return made.eval()


def _last_node(extract: Any, model: nn.Module, pixels: Tensor) -> str:
    """Name the last map of a network, or a transformer's last tokens."""
    names = extract.get_graph_node_names(model)[1]
    if "encoder.ln" in names:
        return "encoder.ln"
    every = extract.create_feature_extractor(model, {name: name for name in names[1:]})
    results = every(pixels)
    maps = [
        name
        for name in names[1:]
        if isinstance(results[name], Tensor)
        and results[name].ndim == 4
        and min(results[name].shape[2:]) > 1
    ]
    return str(maps[-1])


def _checked_shape(shape: tuple[int, ...], config: Config) -> tuple[int, int, int, int]:
    """Return width, rows, columns and the number of prefix tokens of a result's shape."""
    if len(shape) == 4:
        return shape[1], shape[2], shape[3], 0
    side = int((shape[1] - 1) ** 0.5) if len(shape) == 3 else 0
    if len(shape) != 3 or side * side + 1 != shape[1]:
        raise UsageError(
            f"node {config.node!r} of torchvision's {config.model} gives {list(shape)}, which is"
            " neither a map nor tokens: choose another"
        )
    return shape[2], side, side, 1
