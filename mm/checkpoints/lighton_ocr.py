"""Published LightOnOCR models: a Pixtral tower, a patch merger and a small Qwen3 that reads pages.

Names are ours but for the beginnings; the head is stored as `mm.checkpoints.qwen3` says. The models
are asked nothing: a picture alone makes them write down what they see, so that is their caption.

Ref: LightOnOCR (lightonai/LightOnOCR-1B-1025), as transformers runs it.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mm import encoders, vlm
from mm.checkpoints import conversation, native, qwen3, qwen3_config, store, vision
from mm.checkpoints.fill import Layout, fill, nested, unfilled, whole, within
from mm.checkpoints.rules import NameRules
from mm.decoder.qwen3 import Qwen3Config
from mm.errors import CheckpointError
from mm.text.chat import Revision
from mm.text.frame import QWEN_FRAME
from mm.text.tokenizer import Tokenizer
from mm.vlm import VisionLanguageModel

MODEL_TYPES = ("lighton_ocr", "mistral3")  # the latter is said by older files
NAMES = NameRules(
    prefixes=(
        ("model.vision_encoder.", "encoder."),
        ("model.vision_projection.", "projector."),
        ("model.language_model.", "decoder.model."),
        ("lm_head.", "decoder.lm_head."),
    ),
    ignored=(
        r"model\.vision_encoder\.patch_positional_embedding\.inv_freq",
        r"model\.language_model\.rotary_emb\.inv_freq",
    ),
)
_FIXED: dict[str, Any] = {
    "projector_hidden_act": "gelu",
    "multimodal_projector_bias": False,
    "vision_feature_layer": -1,
    "quantization_config": None,
}
_IMAGE_TOKEN = 151655
# Its template gives a chat without a system turn an empty one, frames no picture, and ends the line
# of a text beside pictures.
_EMPTY_SYSTEM = "<|im_start|>system<|im_end|>"
_FRAME = {
    "image_start": "",
    "image_token": QWEN_FRAME.token,
    "image_end": "",
    "opening": f"{_EMPTY_SYSTEM}\n",
    "text_end": "\n",
}


def load(
    directory: str | os.PathLike[str],
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> native.LoadedModel:
    """Load a published folder whole.

    Args:
        directory: holds `config.json`, `tokenizer.json`, how pictures are prepared, safetensors.
        device: where to put the model.
        dtype: of its weights; None keeps the stored one.

    Returns:
        The model and its tokenizer, with `chat`, `generation` and `task_prompts` as
        `mm.model.Model` reads them.

    Raises:
        CheckpointError: a file is missing or damaged, or asks for what is not done here.
    """
    directory = Path(directory)
    store.check_folder(directory)
    path = directory / qwen3.CONFIG
    published = store.read_json(path)
    for key, value in _FIXED.items():
        if published.get(key, value) != value:
            raise CheckpointError(
                f"{path} sets {key} to {str(published[key])[:80]}, which is not done here: use the"
                " plain published checkpoint"
            )
    decoder = _decoder(published, path)
    tokenizer = Tokenizer.from_file(directory / qwen3.TOKENIZER)
    wanted = published.get("image_token_id", _IMAGE_TOKEN)
    if tokenizer.vocab_size > decoder.vocab_size or wanted != tokenizer.token_id(QWEN_FRAME.token):
        raise CheckpointError(
            f"{directory / qwen3.TOKENIZER} has {tokenizer.vocab_size} tokens, and"
            f" {QWEN_FRAME.token} as {tokenizer.token_id(QWEN_FRAME.token)}; config.json has"
            f" {decoder.vocab_size}, and {wanted}: it belongs to another model"
        )
    found = store.open_tensors(directory)
    stored = {name: one for name, one in found.items() if not NAMES.is_ignored(name)}
    of_decoder = within(NAMES.apply(stored, directory), "decoder")
    tied = qwen3.is_shared(decoder, of_decoder, directory)
    decoder = dataclasses.replace(decoder, tie_word_embeddings=tied)
    if tied:
        stored.pop("lm_head.weight", None)
    model = _build(published, decoder, directory)
    layouts: dict[str, Layout] = {
        "encoder": whole,
        "projector": whole,
        "decoder": qwen3.layout_of(decoder, of_decoder),
    }
    fill(model, stored, directory, device, dtype, nested(layouts, NAMES.published))
    config = {
        "chat": {"revision": _revision(directory), **_FRAME},
        "generation": conversation.read_generation(directory, tokenizer, decoder.vocab_size),
        "task_prompts": {"caption": {"en": "", "ko": ""}},
    }
    return native.LoadedModel(model.eval(), tokenizer, config)


def _revision(directory: Path) -> Revision | None:
    """Say that chats are framed as here; None if the folder's template is another one."""
    template = conversation.read_template(directory)
    is_known = template is None or (_EMPTY_SYSTEM in template and QWEN_FRAME.token in template)
    return "instruct-2507" if is_known else None


def _decoder(published: Mapping[str, Any], path: Path) -> Qwen3Config:
    """Translate the decoder's config; tying is said at the top, or else it is tied."""
    text = published.get("text_config")
    if not isinstance(text, Mapping):
        raise CheckpointError(f"{path} has no text_config: name a folder of a whole model")
    tied = published.get("tie_word_embeddings", True)
    config: Qwen3Config = qwen3_config.translate({**text, "tie_word_embeddings": tied}, path)
    return config


def _build(
    published: Mapping[str, Any], decoder: Qwen3Config, directory: Path
) -> VisionLanguageModel:
    """Make the model without its weights."""
    path = directory / qwen3.CONFIG
    tower = published.get("vision_config")
    if not isinstance(tower, Mapping):
        raise CheckpointError(f"{path} has no vision_config: name a folder of a whole model")
    tower = dict(tower)
    rope = tower.pop("rope_parameters", None)
    if isinstance(rope, Mapping) and "rope_theta" in rope:
        tower["rope_theta"] = rope["rope_theta"]
    pictures = vision.read_pictures(directory)
    encoder = vision.translate(encoders.get("pixtral"), tower, pictures, directory)
    projector = {
        "input_size": encoder.hidden_size,
        "output_size": decoder.hidden_size,
        "spatial_merge_size": published.get("spatial_merge_size", 2),
        "rms_norm_eps": decoder.rms_norm_eps,
    }
    described = {
        "encoder": {"name": "pixtral", "config": dataclasses.asdict(encoder)},
        "projector": {"name": "patch_merger", "config": projector},
        "decoder": {"name": "qwen3", "config": dataclasses.asdict(decoder)},
        "image_token_id": published.get("image_token_id", _IMAGE_TOKEN),
    }
    try:
        with unfilled():
            return vlm.build(described)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None
