"""Any backbone of the timm library by its name, with timm's own preprocessing.

Transformers and convolutional networks alike: what counts is that timm gives their inner features
as a map, which nearly all of its models do. Tensors have timm's names after `backbone.`. Batch
norms keep their stored statistics, so that a picture's tokens do not depend on its neighbours.

Ref: https://github.com/huggingface/pytorch-image-models. It is an extra: `pip install timm`.

B pictures, N patches, D width, C channels, S side in pixels.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from mm.encoders import Grid, Pictures
from mm.encoders.backbone import BackboneEncoder
from mm.encoders.pixels import to_picture
from mm.errors import UsageError

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Config:
    """Which backbone, and how it wants its pictures.

    None is what timm says of `model` (a name with its tag, as `vit_base_patch16_224.augreg_in21k`);
    the encoder's own `config` has the values. `feature_layer` counts blocks or stages: -1 is the
    last, 1 the first. `keep_prefix` gives the class token and registers too, where there are any.
    """

    model: str
    hidden_size: int | None = None
    image_size: int | None = None
    resample: Literal["bicubic", "bilinear"] | None = None
    crop_pct: float | None = None
    crop_mode: Literal["center", "squash", "border"] | None = None
    image_mean: tuple[float, ...] | None = None
    image_std: tuple[float, ...] | None = None
    feature_layer: int = -1
    use_final_norm: bool = True
    keep_prefix: bool = False

    def __post_init__(self) -> None:
        if self.feature_layer == 0:
            raise ValueError(
                "feature_layer is 0; timm's blocks count from 1, or from the end as -1"
            )


def library() -> Any:  # Any: timm brings no types
    """Import timm; raises UsageError if it is not installed."""
    try:
        import timm
    except ImportError:
        raise UsageError("encoder 'timm' needs the library timm: `pip install timm`") from None
    return timm


def make_backbone(name: str, image_size: int | None) -> nn.Module:
    """Make a backbone without its classifier, with random weights, where modules are being made.

    Raises:
        UsageError: timm is missing, or has no model of this name.
    """
    timm = library()
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=3)
        raise UsageError(
            f"timm has no model {architecture!r}"
            + (f"; did you mean {' or '.join(near)}?" if near else ": see timm.list_models()")
        )
    size = {} if image_size is None else {"img_size": image_size}
    try:
        made: nn.Module = timm.create_model(name, pretrained=False, num_classes=0, **size)
    except TypeError:  # convolutional networks take any size, and no such argument
        made = timm.create_model(name, pretrained=False, num_classes=0)
    return made


class Encoder(BackboneEncoder):
    """A timm backbone."""

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__()
        timm = library()
        backbone = make_backbone(config.model, config.image_size)
        if not hasattr(backbone, "forward_intermediates"):
            raise UsageError(
                f"timm's {config.model} does not give its inner features: take another"
            )
        said = timm.data.resolve_model_data_config(backbone)
        values: dict[str, Any] = {
            "image_size": said["input_size"][-1],
            "resample": said["interpolation"],
            "crop_pct": said["crop_pct"],
            "crop_mode": said["crop_mode"],
            "image_mean": tuple(said["mean"]),
            "image_std": tuple(said["std"]),
        }
        unset = {name: v for name, v in values.items() if getattr(config, name) is None}
        self.config = dataclasses.replace(config, **unset)
        probe = backbone
        if not next(backbone.parameters()).is_meta:
            with torch.device("meta"):
                probe = make_backbone(config.model, config.image_size)
        side, device = self.config.image_size or 0, next(probe.parameters()).device
        with torch.enable_grad():
            pixels = torch.empty(1, 3, side, side, device=device)
            try:
                found, prefix = self._features(probe.eval(), pixels)
            except AssertionError as error:  # how timm refuses an option
                raise UsageError(
                    f"timm's {config.model} cannot give this feature ({error}): change"
                    " use_final_norm or keep_prefix"
                ) from None
            reached = found.sum() if prefix is None else found.sum() + prefix.sum()
        _freeze_unread(backbone, probe, reached)
        shape = found.shape
        self._grid = int(shape[2]), int(shape[3])
        if config.hidden_size not in (None, shape[1]):
            raise UsageError(
                f"hidden_size is {config.hidden_size}; this layer of {config.model} has {shape[1]}"
            )
        self.config = dataclasses.replace(self.config, hidden_size=int(shape[1]))
        self.backbone = _with_computed_buffers(backbone, config)

    @property
    def hidden_size(self) -> int:
        """Width D of a token."""
        return int(self.config.hidden_size or 0)

    @property
    def num_prefix_tokens(self) -> int:
        """How many tokens (class token, registers) `forward` gives before the patches."""
        return int(getattr(self.backbone, "num_prefix_tokens", 0)) if self.config.keep_prefix else 0

    def views(self, height: int, width: int) -> tuple[Grid, ...]:
        """Return the grid of the feature map: the same for every picture."""
        return (self._grid,)

    def preprocess(self, images: Sequence[Image | Tensor] | Tensor) -> Pictures:
        """Run timm's own transform for evaluation on each picture.

        Pictures of one tensor come out on its device.
        """
        config = self.config
        transform = library().data.create_transform(
            input_size=(3, config.image_size, config.image_size),
            interpolation=config.resample,
            mean=config.image_mean,
            std=config.image_std,
            crop_pct=config.crop_pct,
            crop_mode=config.crop_mode,
        )
        pixel_values = torch.stack([transform(to_picture(image)) for image in images])
        if isinstance(images, Tensor):
            pixel_values = pixel_values.to(images.device)
        return Pictures.squares(pixel_values, self.views)

    def _features(self, backbone: nn.Module, pixel_values: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the feature map `[B, D, h, w]` and the prefix tokens, if they are kept."""
        config, layer = self.config, self.config.feature_layer
        keep = config.keep_prefix and bool(getattr(backbone, "num_prefix_tokens", 0))
        (found,) = backbone.forward_intermediates(  # type: ignore[operator]
            pixel_values,
            indices=[layer - 1 if layer > 0 else layer],
            norm=config.use_final_norm,
            stop_early=True,
            output_fmt="NCHW",
            intermediates_only=True,
            **({"return_prefix_tokens": True} if keep else {}),
        )
        return found if keep else (found, None)

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
        feature_map, prefix = self._features(self.backbone, pixel_values.to(weight.dtype))
        tokens = feature_map.flatten(2).transpose(1, 2)
        return tokens if prefix is None else torch.cat([prefix, tokens], dim=1)


def _freeze_unread(backbone: nn.Module, probe: nn.Module, reached: Tensor) -> None:
    """Ask for no gradients of what features do not come from, such as the norms of a classifier."""
    parameters = list(probe.parameters())
    gradients = torch.autograd.grad(reached, parameters, allow_unused=True)
    for parameter, gradient in zip(backbone.parameters(), gradients, strict=True):
        parameter.requires_grad_(gradient is not None)


def _with_computed_buffers(backbone: nn.Module, config: Config) -> nn.Module:
    """Give a backbone on the meta device the buffers that no checkpoint stores."""
    stored = backbone.state_dict().keys()
    if not any(b.is_meta and name not in stored for name, b in backbone.named_buffers()):
        return backbone
    with torch.device("cpu"):
        filled = make_backbone(config.model, config.image_size)
    for name, buffer in filled.named_buffers():
        path, _, leaf = name.rpartition(".")
        if name not in stored:
            backbone.get_submodule(path)._buffers[leaf] = buffer
    return backbone
