"""Which class of transformers is the same network as a model composed here, and how it stores it.

- `InternVLForConditionalGeneration`: InternViT, tiled or not, and `mlp` with its LayerNorm.
- `LlavaForConditionalGeneration`: an encoder of squares with a class token or nothing before the
  patches, read before its final norm, and `mlp` without LayerNorm and shuffling.
- `Lfm2VlForConditionalGeneration`: SigLIP, read after its final norm, and `mlp`. The class is made
  for any size, and its processor keeps proportions where the encoder here squashes.

What differs in the least fits neither, and is told by its part: a folder that loads and computes
something else is worse than none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mm import encoders, projectors
from mm.checkpoints import internvl, vision
from mm.checkpoints.fill import Layout, nested, stored_tensors, taken_apart, whole
from mm.checkpoints.qwen3_config import published_config
from mm.checkpoints.rules import NameRules
from mm.encoders.square import SquareEncoder
from mm.errors import CheckpointError
from mm.text.frame import PictureFrame
from mm.vlm import VisionLanguageModel

# Fields of encoders' configs that say how pictures are prepared, or which feature is read.
_NOT_OF_THE_NETWORK = frozenset(
    ("picture_size", "shortest_edge", "resample", "image_mean", "image_std", "keep_prefix")
    + ("feature_layer", "use_final_norm", "min_tiles", "max_tiles", "use_thumbnail")
)
# Towers that Llava's class can hold: their `model_type`, and what leaves out what we do not have.
_TOWERS: dict[str, dict[str, Any]] = {
    "siglip": {"model_type": "siglip_vision_model", "vision_use_head": False},
    "clip": {"model_type": "clip_vision_model"},
    "dinov2": {"model_type": "dinov2"},
    "aimv2": {"model_type": "aimv2_vision_model", "use_head": False},
    "internvit": {"model_type": "internvl_vision"},
}
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


class _Unfit(Exception):
    """Which part does not fit, and why."""


def find_class(
    model: VisionLanguageModel, frame: PictureFrame, dtype: torch.dtype, decoder: Layout
) -> Whole:
    """Return the model in the form of the first class that is the same network.

    Args:
        model: with an encoder and a projector.
        frame: how a picture stands in the text.
        dtype: of the stored weights.
        decoder: how the decoder's tensors are stored.

    Raises:
        CheckpointError: none is; the message names for each the part that does not fit.
    """
    kinds: dict[str, Callable[..., Whole]]
    kinds = {"InternVL": _internvl, "Llava": _llava, "Lfm2Vl": _lfm2_vl}
    reasons = []
    for name, make in kinds.items():
        try:
            return make(model, frame, published_config(model.decoder.config, dtype), decoder)
        except _Unfit as reason:
            reasons.append(f"{name}'s does not fit the {reason}")
    raise CheckpointError(
        f"transformers has no class for this model ({'; '.join(reasons)}): export its decoder alone"
        " (--text-only), or compose and train one that fits"
    )


def _internvl(
    model: VisionLanguageModel, frame: PictureFrame, text: dict[str, Any], decoder: Layout
) -> Whole:
    encoder, projector = model.encoder.config, model.projector.config
    _fit("encoder", encoders.name_of(type(model.encoder)), ("internvit",))
    _fit("encoder's keep_prefix", encoder.keep_prefix, (False,))
    _fit("encoder's shortest_edge", encoder.shortest_edge, (None,))
    _fit("encoder's use_thumbnail", encoder.use_thumbnail or encoder.max_tiles == 1, (True,))
    _fit("encoder's min_tiles", encoder.min_tiles, range(1, encoder.max_tiles + 1))
    _fit("projector", projectors.name_of(type(model.projector)), ("mlp",))
    _fit("projector's layer_norm", projector.layer_norm, (True,))
    _fit("projector's layer_norm_eps", projector.layer_norm_eps, (1e-5,))
    _fit("projector's shuffle", projector.shuffle, (1, 2, 4, 8))
    side = _side(model)
    (grid,) = set(model.encoder.views(side, side))
    num_tokens = model.projector.num_tokens(grid)
    size = {"height": side, "width": side}
    pictures = {
        **_prepared(encoder, "GotOcr2ImageProcessor"),
        "crop_to_patches": encoder.max_tiles > 1,
        "max_patches": encoder.max_tiles,
        "min_patches": encoder.min_tiles,
        "size": size,
    }
    config = {
        **_whole(model, text, "InternVLForConditionalGeneration", "internvl"),
        "downsample_ratio": 1 / projector.shuffle,
        "image_seq_length": num_tokens,
        "image_token_id": model.image_token_id,
        "projector_hidden_act": "gelu",
        "vision_feature_layer": encoder.feature_layer,
        "vision_feature_select_strategy": "default",
    }
    video = {"video_processor_type": "InternVLVideoProcessor", "size": size}
    processor = {
        "image_processor": pictures,
        "image_seq_length": num_tokens,
        "processor_class": "InternVLProcessor",
        "video_processor": {**_prepared(encoder, None), **video},
    }
    tokens = {
        "start_image_token": frame.start,
        "end_image_token": frame.end.rstrip(),
        "context_image_token": frame.token,
        "video_token": "<|video_pad|>",
    }
    image = frame.token + frame.end[len(frame.end.rstrip()) :]
    return Whole(config, _layout(model, decoder), processor, pictures, tokens, image)


def _llava(
    model: VisionLanguageModel, frame: PictureFrame, text: dict[str, Any], decoder: Layout
) -> Whole:
    encoder, projector = model.encoder.config, model.projector.config
    _fit("encoder", encoders.name_of(type(model.encoder)), tuple(_TOWERS))
    special = getattr(model.encoder, "num_special_tokens", 0)
    _fit("encoder's class token and registers", special, (0, 1))
    _fit("encoder's keep_prefix", getattr(encoder, "keep_prefix", False), (False,))
    _fit("encoder's use_final_norm", encoder.use_final_norm, (False,))
    _fit("encoder's max_tiles", getattr(encoder, "max_tiles", 1), (1,))
    _fit("projector", projectors.name_of(type(model.projector)), ("mlp",))
    _fit("projector's layer_norm", projector.layer_norm, (False,))
    _fit("projector's shuffle", projector.shuffle, (1,))
    side = _side(model)
    edge = getattr(encoder, "shortest_edge", None)
    size = {"height": side, "width": side}
    if edge is None:
        pictures = {**_prepared(encoder, "SiglipImageProcessor"), "size": size}
    else:
        pictures = {**_prepared(encoder, "CLIPImageProcessor"), "size": {"shortest_edge": edge}}
        pictures |= {"crop_size": size, "do_center_crop": True}
    strategy = "default" if special else "full"
    (grid,) = model.encoder.views(side, side)
    config = {
        **_whole(model, text, "LlavaForConditionalGeneration", "llava"),
        "image_seq_length": model.projector.num_tokens(grid),
        "image_token_index": model.image_token_id,
        "multimodal_projector_bias": True,
        "projector_hidden_act": "gelu",
        "vision_feature_layer": encoder.feature_layer,
        "vision_feature_select_strategy": strategy,
    }
    processor = {
        "image_token": frame.token,
        "num_additional_image_tokens": special,
        "patch_size": encoder.patch_size,
        "processor_class": "LlavaProcessor",
        "vision_feature_select_strategy": strategy,
    }
    image = frame.start + frame.token + frame.end
    return Whole(config, _layout(model, decoder), processor, pictures, {}, image)


def _lfm2_vl(
    model: VisionLanguageModel, frame: PictureFrame, text: dict[str, Any], decoder: Layout
) -> Whole:
    encoder, projector = model.encoder.config, model.projector.config
    _fit("encoder", encoders.name_of(type(model.encoder)), ("siglip",))
    _fit("encoder's use_final_norm", encoder.use_final_norm, (True,))
    _fit("encoder's feature_layer", encoder.feature_layer, (-1, encoder.num_hidden_layers))
    _fit("projector", projectors.name_of(type(model.projector)), ("mlp",))
    if projector.layer_norm:
        _fit("projector's layer_norm_eps", projector.layer_norm_eps, (1e-5,))
    side, factor = _side(model), projector.shuffle
    _fit("encoder's image_size", side, (side // encoder.patch_size * encoder.patch_size,))
    (grid,) = model.encoder.views(side, side)
    num_tokens = model.projector.num_tokens(grid)
    config = {
        **_whole(model, text, "Lfm2VlForConditionalGeneration", "lfm2_vl"),
        "downsample_factor": factor,
        "image_token_id": model.image_token_id,
        "projector_bias": True,
        "projector_hidden_act": "gelu",
        "projector_hidden_size": projector.output_size,
        "projector_use_layernorm": projector.layer_norm,
    }
    tower = config["vision_config"]
    del tower["image_size"]
    tower |= {"model_type": "siglip2_vision_model", "num_patches": grid[0] * grid[1]}
    pictures = {
        **_prepared(encoder, "Lfm2VlImageProcessor"),
        "do_image_splitting": False,
        "downsample_factor": factor,
        "encoder_patch_size": encoder.patch_size,
        "max_image_tokens": num_tokens,
        "max_num_patches": grid[0] * grid[1],
        "min_image_tokens": num_tokens,
        "tile_size": side,
        "use_thumbnail": False,
    }
    tokens = {
        "image_token": frame.token,
        "image_start_token": frame.start,
        "image_end_token": frame.end.rstrip(),
    }
    return Whole(
        config,
        _layout(model, decoder, internvl.IN_MEMORY),
        {"image_processor": pictures, "processor_class": "Lfm2VlProcessor"},
        pictures,
        tokens,
        frame.token + frame.end[len(frame.end.rstrip()) :],
        flat="model.vision_tower.embeddings.patch_embedding.weight",
        note="its processor keeps a picture's proportions, which the model here does not: make"
        f" pictures square ({side}x{side}) before they go through it",
    )


def _side(model: VisionLanguageModel) -> int:
    assert isinstance(model.encoder, SquareEncoder)  # for the type checker: `_TOWERS` are
    return model.encoder.picture_size


def _whole(
    model: VisionLanguageModel, text: dict[str, Any], architecture: str, model_type: str
) -> dict[str, Any]:
    """Return what the configs of both classes have, in one form."""
    name = encoders.name_of(type(model.encoder))
    tower = dataclasses.asdict(model.encoder.config).items()
    published = type(model.encoder).published
    assert published is not None  # for the type checker: `_TOWERS` are published
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "text_config": text,
        "tie_word_embeddings": model.decoder.config.tie_word_embeddings,
        "torch_dtype": text["torch_dtype"],
        "vision_config": {
            **{field: value for field, value in tower if field not in _NOT_OF_THE_NETWORK},
            **dict(published.fixed),
            **_TOWERS[name],
        },
    }


def _layout(
    model: VisionLanguageModel, decoder: Layout, names: NameRules = internvl.NAMES
) -> Layout:
    layouts = {"encoder": vision.layout_of(model.encoder), "projector": whole, "decoder": decoder}
    return nested(layouts, names.published)


def _prepared(encoder: Any, kind: str | None) -> dict[str, Any]:  # Any: the encoder's own config
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


def _fit(what: str, found: object, accepted: Any) -> None:  # Any: a tuple or a range
    if found not in accepted:
        wanted = " or ".join(map(str, accepted)) if isinstance(accepted, tuple) else str(accepted)
        raise _Unfit(f"{what}, which is {found}, not {wanted}")
