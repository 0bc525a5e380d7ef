"""A model as one of transformers' classes has it: the form, and what all classes share of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from torch import Tensor

from mm.checkpoints import internvl, vision
from mm.checkpoints.fill import Layout, nested, stored_tensors, taken_apart, whole
from mm.checkpoints.rules import NameRules
from mm.encoders.square import SquareEncoder
from mm.vlm import VisionLanguageModel

# Fields of encoders' configs that say how pictures are prepared, or which feature is read.
_NOT_OF_THE_NETWORK = frozenset(
    ("picture_size", "shortest_edge", "resample", "image_mean", "image_std", "keep_prefix")
    + ("feature_layer", "use_final_norm", "min_tiles", "max_tiles", "use_thumbnail")
    + ("min_pixels", "max_pixels")
)
_RESAMPLE = {"bilinear": 2, "bicubic": 3}  # PIL's numbers


@dataclass(frozen=True)
class Whole:
    """A whole model in the form of one of transformers' classes.

    Args:
        config: of `config.json`, without what the caller knows about tokens.
        layout: under which names our tensors are stored.
        processor: of `processor_config.json`.
        pictures: of `preprocessor_config.json`.
        named_tokens: what the processor asks the tokenizer for by name.
        image: what the chat template writes for a picture; the processor makes it a frame of
            placeholders.
        flat: a stored tensor that is a matrix there and a convolution here.
        note: how the folder's use differs from the model's, if it does.
    """

    config: dict[str, Any]  # JSON, as the next ones
    layout: Layout
    processor: dict[str, Any]
    pictures: dict[str, Any]
    named_tokens: dict[str, str]
    image: str
    flat: str | None = None
    note: str | None = None

    def tensors(self, model: VisionLanguageModel) -> dict[str, Tensor]:
        """Return the model's tensors as they are stored."""
        found = taken_apart(stored_tensors(model), self.layout)
        if self.flat is not None:  # over (row, column, channel), as the patches are flattened
            found[self.flat] = found[self.flat].permute(0, 2, 3, 1).flatten(1)
        return found


class Unfit(Exception):
    """Which part does not fit, and why."""


def side_of(model: VisionLanguageModel) -> int:
    """Return the side of the squares that an encoder's pictures become."""
    assert isinstance(model.encoder, SquareEncoder)  # for the type checker: its name told
    return model.encoder.picture_size


def whole_config(
    model: VisionLanguageModel,
    text: dict[str, Any],
    architecture: str,
    model_type: str,
    tower: Mapping[str, Any],
    renamed: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """Return what the configs of all classes have.

    Args:
        text: of the decoder.
        architecture: the name of the class.
        model_type: of the whole model.
        tower: of the encoder, beside what its own config says.
        renamed: from our fields of the encoder to published ones, where they differ.
    """
    published = type(model.encoder).published
    assert published is not None  # for the type checker: what classes hold is published
    fields = dataclasses.asdict(model.encoder.config).items()
    network = {renamed.get(k, k): value for k, value in fields if k not in _NOT_OF_THE_NETWORK}
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "text_config": text,
        "tie_word_embeddings": model.decoder.config.tie_word_embeddings,
        "torch_dtype": text["torch_dtype"],
        "vision_config": {**network, **dict(published.fixed), **tower},
    }


def layout_of(
    model: VisionLanguageModel, decoder: Layout, names: NameRules = internvl.NAMES
) -> Layout:
    """Return where a class that names its parts as InternVL's or Llava's has our tensors."""
    layouts = {"encoder": vision.layout_of(model.encoder), "projector": whole, "decoder": decoder}
    return nested(layouts, names.published)


def prepared(encoder: Any, kind: str | None) -> dict[str, Any]:  # Any: the encoder's own config
    """Return how pictures are prepared, but for their sizes."""
    found = {
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": list(encoder.image_mean),
        "image_std": list(encoder.image_std),
        "resample": _RESAMPLE[encoder.resample],
        "rescale_factor": 1 / 255,
    }
    return found | ({"image_processor_type": kind} if kind else {})


def fit(what: str, found: object, accepted: Any) -> None:  # Any: a tuple or a range
    """Raise Unfit unless a setting is one of those that a class has."""
    if found not in accepted:
        wanted = " or ".join(map(str, accepted)) if isinstance(accepted, tuple) else str(accepted)
        raise Unfit(f"{what}, which is {found}, not {wanted}")
