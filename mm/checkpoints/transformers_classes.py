"""Which class of transformers is the same network as a model composed here, and how it stores it.

- `InternVLForConditionalGeneration`: InternViT, tiled or not, and `mlp` with its LayerNorm.
- `LlavaForConditionalGeneration`: an encoder of squares with a class token or nothing before the
  patches, read before its final norm, and `mlp` without LayerNorm and shuffling.
- `Qwen3VLForConditionalGeneration` and its mixture of experts: the Qwen3-VL tower, `deepstack`, and
  a decoder with positions in time, rows and columns.
- `Lfm2VlForConditionalGeneration`: SigLIP, read after its final norm, and `mlp`. The class is made
  for any size, and its processor keeps proportions where the encoder here squashes.

What differs in the least fits neither, and is told by its part: a folder that loads and computes
something else is worse than none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from mm import encoders, projectors
from mm.checkpoints import internvl, qwen3_vl
from mm.checkpoints.fill import Layout, Part, nested, whole
from mm.checkpoints.qwen3_config import published_config
from mm.checkpoints.whole_form import (
    Unfit,
    Whole,
    fit,
    layout_of,
    prepared,
    side_of,
    whole_config,
)
from mm.errors import CheckpointError
from mm.text.frame import QWEN_FRAME, PictureFrame
from mm.vlm import VisionLanguageModel

_VIDEO = "<|video_pad|>"
# Towers that Llava's class can hold: their `model_type`, and what leaves out what we do not have.
_TOWERS: dict[str, dict[str, Any]] = {
    "siglip": {"model_type": "siglip_vision_model", "vision_use_head": False},
    "clip": {"model_type": "clip_vision_model"},
    "dinov2": {"model_type": "dinov2"},
    "aimv2": {"model_type": "aimv2_vision_model", "use_head": False},
    "internvit": {"model_type": "internvl_vision"},
}


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
    kinds = {"InternVL": _internvl, "Llava": _llava, "Qwen3VL": _qwen3_vl, "Lfm2Vl": _lfm2_vl}
    reasons = []
    for name, make in kinds.items():
        try:
            return make(model, frame, published_config(model.decoder.config, dtype), decoder)
        except Unfit as reason:
            reasons.append(f"{name}'s does not fit the {reason}")
    # Classes of another encoder are told only where all are.
    reasons = [one for one in reasons if "fit the encoder, " not in one] or reasons
    raise CheckpointError(
        f"transformers has no class for this model ({'; '.join(reasons)}): export its decoder alone"
        " (--text-only), or compose and train one that fits"
    )


def _internvl(
    model: VisionLanguageModel, frame: PictureFrame, text: dict[str, Any], decoder: Layout
) -> Whole:
    encoder, projector = model.encoder.config, model.projector.config
    fit("encoder", encoders.name_of(type(model.encoder)), ("internvit",))
    fit("decoder's mrope_section", model.decoder.config.mrope_section, (None,))
    fit("encoder's keep_prefix", encoder.keep_prefix, (False,))
    fit("encoder's shortest_edge", encoder.shortest_edge, (None,))
    fit("encoder's use_thumbnail", encoder.use_thumbnail or encoder.max_tiles == 1, (True,))
    fit("encoder's min_tiles", encoder.min_tiles, range(1, encoder.max_tiles + 1))
    fit("projector", projectors.name_of(type(model.projector)), ("mlp",))
    fit("projector's layer_norm", projector.layer_norm, (True,))
    fit("projector's layer_norm_eps", projector.layer_norm_eps, (1e-5,))
    fit("projector's shuffle", projector.shuffle, (1, 2, 4, 8))
    side = side_of(model)
    (grid,) = set(model.encoder.views(side, side))
    num_tokens = model.projector.num_tokens(grid)
    size = {"height": side, "width": side}
    pictures = {
        **prepared(encoder, "GotOcr2ImageProcessor"),
        "crop_to_patches": encoder.max_tiles > 1,
        "max_patches": encoder.max_tiles,
        "min_patches": encoder.min_tiles,
        "size": size,
    }
    config = {
        **whole_config(
            model, text, "InternVLForConditionalGeneration", "internvl", _TOWERS["internvit"]
        ),
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
        "video_processor": {**prepared(encoder, None), **video},
    }
    tokens = {
        "start_image_token": frame.start,
        "end_image_token": frame.end.rstrip(),
        "context_image_token": frame.token,
        "video_token": _VIDEO,
    }
    image = frame.token + frame.end[len(frame.end.rstrip()) :]
    return Whole(config, layout_of(model, decoder), processor, pictures, tokens, image)


def _llava(
    model: VisionLanguageModel, frame: PictureFrame, text: dict[str, Any], decoder: Layout
) -> Whole:
    encoder, projector = model.encoder.config, model.projector.config
    tower = encoders.name_of(type(model.encoder))
    fit("encoder", tower, tuple(_TOWERS))
    fit("decoder's mrope_section", model.decoder.config.mrope_section, (None,))
    special = getattr(model.encoder, "num_special_tokens", 0)
    fit("encoder's class token and registers", special, (0, 1))
    fit("encoder's keep_prefix", getattr(encoder, "keep_prefix", False), (False,))
    fit("encoder's use_final_norm", encoder.use_final_norm, (False,))
    fit("encoder's max_tiles", getattr(encoder, "max_tiles", 1), (1,))
    fit("projector", projectors.name_of(type(model.projector)), ("mlp",))
    fit("projector's layer_norm", projector.layer_norm, (False,))
    fit("projector's shuffle", projector.shuffle, (1,))
    side = side_of(model)
    edge = getattr(encoder, "shortest_edge", None)
    size = {"height": side, "width": side}
    if edge is None:
        pictures = {**prepared(encoder, "SiglipImageProcessor"), "size": size}
    else:
        pictures = {**prepared(encoder, "CLIPImageProcessor"), "size": {"shortest_edge": edge}}
        pictures |= {"crop_size": size, "do_center_crop": True}
    strategy = "default" if special else "full"
    (grid,) = model.encoder.views(side, side)
    config = {
        **whole_config(model, text, "LlavaForConditionalGeneration", "llava", _TOWERS[tower]),
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
    return Whole(config, layout_of(model, decoder), processor, pictures, {}, image)


def _qwen3_vl(
    model: VisionLanguageModel, frame: PictureFrame, text: dict[str, Any], decoder: Layout
) -> Whole:
    encoder, projector = model.encoder.config, model.projector.config
    fit("encoder", encoders.name_of(type(model.encoder)), ("qwen3_vl",))
    fit("encoder's feature_layer", encoder.feature_layer, (-1, encoder.num_hidden_layers))
    fit("projector", projectors.name_of(type(model.projector)), ("deepstack",))
    fit("projector's layer_norm_eps", projector.layer_norm_eps, (1e-6,))
    fit("projector's shuffle", projector.shuffle, (encoder.spatial_merge_size,))
    fit("chat's picture frame", frame, (QWEN_FRAME,))
    settings = model.decoder.config
    fit("decoder's mrope_section", settings.mrope_section is not None, (True,))
    fit("decoder's rope_scaling", settings.rope_scaling, (None,))
    moe, stem = bool(settings.num_experts), "Qwen3VL"
    if moe:
        fit("decoder's norm_topk_prob", settings.norm_topk_prob, (True,))
        stem = "Qwen3VLMoe"
    model_type = "qwen3_vl_moe" if moe else "qwen3_vl"
    text = {**text, "model_type": f"{model_type}_text"}
    text["rope_scaling"] = {
        "mrope_interleaved": True,
        "mrope_section": list(settings.mrope_section or ()),
        "rope_type": "default",
    }
    tower = {"model_type": model_type, "out_hidden_size": projector.output_size}
    theirs = {"num_hidden_layers": "depth", "num_attention_heads": "num_heads"}
    theirs["num_channels"] = "in_channels"
    config = {
        **whole_config(model, text, f"{stem}ForConditionalGeneration", model_type, tower, theirs),
        "image_token_id": model.image_token_id,
    }
    size = {"longest_edge": encoder.max_pixels, "shortest_edge": encoder.min_pixels}
    pictures = {
        **prepared(encoder, "Qwen2VLImageProcessor"),
        "merge_size": encoder.spatial_merge_size,
        "patch_size": encoder.patch_size,
        "size": size,
        "temporal_patch_size": encoder.temporal_patch_size,
    }
    video = {key: value for key, value in pictures.items() if key != "image_processor_type"}
    video |= {"video_processor_type": "Qwen3VLVideoProcessor"}
    processor = {
        "image_processor": pictures,
        "processor_class": "Qwen3VLProcessor",
        "video_processor": video,
    }
    tokens = {
        "image_token": frame.token,
        "video_token": _VIDEO,
        "vision_start_token": frame.start,
        "vision_end_token": frame.end,
    }

    def stacked(name: str) -> Sequence[Part]:
        """Experts stand together, with the last two axes swapped."""
        return [Part(name, transposed=".mlp.experts." in name)]

    layouts = {"encoder": whole, "projector": whole, "decoder": stacked}
    layout = nested(layouts, qwen3_vl.NAMES.published)
    image = frame.start + frame.token + frame.end
    return Whole(config, layout, processor, pictures, tokens, image)


def _lfm2_vl(
    model: VisionLanguageModel, frame: PictureFrame, text: dict[str, Any], decoder: Layout
) -> Whole:
    encoder, projector = model.encoder.config, model.projector.config
    fit("encoder", encoders.name_of(type(model.encoder)), ("siglip",))
    fit("decoder's mrope_section", model.decoder.config.mrope_section, (None,))
    fit("encoder's use_final_norm", encoder.use_final_norm, (True,))
    fit("encoder's feature_layer", encoder.feature_layer, (-1, encoder.num_hidden_layers))
    fit("projector", projectors.name_of(type(model.projector)), ("mlp",))
    if projector.layer_norm:
        fit("projector's layer_norm_eps", projector.layer_norm_eps, (1e-5,))
    side, factor = side_of(model), projector.shuffle
    fit("encoder's image_size", side, (side // encoder.patch_size * encoder.patch_size,))
    (grid,) = model.encoder.views(side, side)
    num_tokens = model.projector.num_tokens(grid)
    tower = {**_TOWERS["siglip"], "model_type": "siglip2_vision_model"}
    tower["num_patches"] = grid[0] * grid[1]
    config = {
        **whole_config(model, text, "Lfm2VlForConditionalGeneration", "lfm2_vl", tower),
        "downsample_factor": factor,
        "image_token_id": model.image_token_id,
        "projector_bias": True,
        "projector_hidden_act": "gelu",
        "projector_hidden_size": projector.output_size,
        "projector_use_layernorm": projector.layer_norm,
    }
    del config["vision_config"]["image_size"]
    pictures = {
        **prepared(encoder, "Lfm2VlImageProcessor"),
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
        layout_of(model, decoder, internvl.IN_MEMORY),
        {"image_processor": pictures, "processor_class": "Lfm2VlProcessor"},
        pictures,
        tokens,
        frame.token + frame.end[len(frame.end.rstrip()) :],
        flat="model.vision_tower.embeddings.patch_embedding.weight",
        note="its processor keeps a picture's proportions, which the model here does not: make"
        f" pictures square ({side}x{side}) before they go through it",
    )
