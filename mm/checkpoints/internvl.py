"""Published InternVL models with a Qwen3 decoder, dense and mixtures of experts, and Qianfan-OCR.

Two formats are published, of the same network:

- that of transformers (`internvl`, the `-HF` folders): the tower as transformers names it, query,
  key and value apart;
- the original one (`internvl_chat`; `qianfan_ocr` has the names, and the other's config): the tower
  as it is here, the projector as the numbered layers of `mlp1`.

Pictures are cut into tiles (`mm.encoders.tiles`). The head is never taken for granted: a stored one
wins over what the config says about tying, as in `mm.checkpoints.qwen3`.

Ref: InternVL 3.5 (arXiv 2508.18265).
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from mm import encoders, vlm
from mm.checkpoints import conversation, native, qwen3, qwen3_config, store, vision
from mm.checkpoints.fill import Layout, fill, nested, unfilled, whole, within
from mm.checkpoints.rules import NameRules
from mm.errors import CheckpointError
from mm.text.tokenizer import Tokenizer
from mm.vlm import VisionLanguageModel

TRANSFORMERS, ORIGINAL, QIANFAN = "internvl", "internvl_chat", "qianfan_ocr"
MODEL_TYPES = (TRANSFORMERS, ORIGINAL, QIANFAN)

_IGNORED = (r"(model\.)?language_model\.(model\.)?rotary_emb\.inv_freq",)
_MLP1 = (
    ("mlp1.0.", "projector.layer_norm."),
    ("mlp1.1.", "projector.linear_1."),
    ("mlp1.3.", "projector.linear_2."),
)
NAMES = NameRules(
    prefixes=(
        ("vision_tower.", "encoder."),
        ("multi_modal_projector.", "projector."),
        ("language_model.", "decoder."),
    ),
    ignored=_IGNORED,
)
# As transformers 5 has it in memory, and as later classes of this kind store it.
IN_MEMORY = NameRules(
    (
        ("model.vision_tower.", "encoder."),
        ("model.multi_modal_projector.", "projector."),
        ("model.language_model.", "decoder.model."),
        ("lm_head.", "decoder.lm_head."),
    ),
    _IGNORED,
)
_KNOWN = (
    NAMES,
    # As transformers 5 writes Qianfan-OCR: the tower's rule catches the decoder's layers. It comes
    # before the original format's, which such names follow too.
    NameRules(
        (
            ("vision_model.", "encoder."),
            *_MLP1,
            ("language_model.model.encoder.layers.", "decoder.model.layers."),
            ("language_model.", "decoder."),
        ),
        _IGNORED,
    ),
    NameRules((("vision_model.", "encoder."), *_MLP1, ("language_model.", "decoder.")), _IGNORED),
    IN_MEMORY,
)
_PLACEHOLDER = "<IMG_CONTEXT>"
# Statistics of the tiles in the original format, where no file has them.
_IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
_FIXED: dict[str, Any] = {
    "projector_hidden_act": "gelu",
    "vision_feature_select_strategy": "default",
    "ps_version": "v2",
    "quantization_config": None,
}


def load(
    directory: str | os.PathLike[str],
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> native.LoadedModel:
    """Load a published folder whole.

    Args:
        directory: holds `config.json`, the tokenizer, safetensors, and for transformers' format how
            pictures are prepared.
        device: where to put the model.
        dtype: of its weights; None keeps the stored one.

    Returns:
        The model and its tokenizer, with `chat` and `generation` as `mm.model.Model` reads them.

    Raises:
        CheckpointError: a file is missing or damaged, the decoder is no Qwen3, or the folder asks
            for what is not done here.
    """
    directory = Path(directory)
    store.check_folder(directory)
    path = directory / qwen3.CONFIG
    published = store.read_json(path)
    decoder = _decoder_config(published, path)
    tokenizer = Tokenizer.from_file(directory / qwen3.TOKENIZER)
    if tokenizer.vocab_size > decoder.vocab_size:
        raise CheckpointError(
            f"{directory / qwen3.TOKENIZER} has {tokenizer.vocab_size} tokens for a decoder of"
            f" {decoder.vocab_size}: it belongs to another model"
        )
    stored = store.open_tensors(directory)
    rules = _rules_of(stored)
    stored = {name: one for name, one in stored.items() if not rules.is_ignored(name)}
    ours = rules.apply(stored, directory)
    of_decoder = within(ours, "decoder")
    decoder = dataclasses.replace(
        decoder, tie_word_embeddings=qwen3.is_shared(decoder, of_decoder, directory)
    )
    if decoder.tie_word_embeddings:
        stored.pop(rules.published("decoder.lm_head.weight"), None)
    model = _build(published, decoder, tokenizer, directory)
    layouts: dict[str, Layout] = {
        "encoder": vision.layout_of(model.encoder, within(ours, "encoder")),
        "projector": whole,
        "decoder": qwen3.layout_of(decoder, of_decoder),
    }
    fill(model, stored, directory, device, dtype, nested(layouts, rules.published))
    chat = _chat(published, directory, tokenizer, model)
    generation = conversation.read_generation(directory, tokenizer, decoder.vocab_size)
    return native.LoadedModel(model.eval(), tokenizer, {"chat": chat, "generation": generation})


def _decoder_config(published: Mapping[str, Any], path: Path) -> Any:  # Any: Qwen3Config
    """Read the decoder's config; tying is told by the whole model's, which has its own default."""
    key = "llm_config" if published.get("model_type") == ORIGINAL else "text_config"
    nested_config = published.get(key)
    if not isinstance(nested_config, Mapping):
        raise CheckpointError(f"{path} has no {key}: name a folder that holds a whole model")
    config = qwen3_config.translate(nested_config, path)
    if published.get("model_type") == ORIGINAL:
        return config
    tied = published.get("tie_word_embeddings", published.get("model_type") == TRANSFORMERS)
    return dataclasses.replace(config, tie_word_embeddings=bool(tied))


def _rules_of(stored: Collection[str]) -> NameRules:
    """Return the rules that most of the stored names follow, there and back."""
    return max(_KNOWN, key=lambda rules: sum(_follows(name, rules) for name in stored))


def _follows(name: str, rules: NameRules) -> bool:
    ours = rules.ours(name)
    return ours != name and rules.published(ours) == name


def _build(
    published: Mapping[str, Any], decoder: Any, tokenizer: Tokenizer, directory: Path
) -> VisionLanguageModel:
    """Make the model without its weights."""
    path = directory / qwen3.CONFIG
    original = published.get("model_type") == ORIGINAL
    for key, value in _FIXED.items():
        if published.get(key, value) != value:
            raise CheckpointError(
                f"{path} sets {key} to {str(published[key])[:80]}, which is not done here: use the"
                " plain published checkpoint"
            )
    tower = published.get("vision_config")
    if not isinstance(tower, Mapping):
        raise CheckpointError(f"{path} has no vision_config: name a folder of a whole model")
    if published.get("model_type") == QIANFAN:
        tower = {"attention_bias": True, **tower}
    layer = published.get("select_layer" if original else "vision_feature_layer", -1)
    ratio = published.get("downsample_ratio", 0.5)
    shuffle = round(1 / ratio) if isinstance(ratio, float | int) and 0 < ratio <= 1 else 0
    if not shuffle or shuffle * ratio != 1:
        raise CheckpointError(f"{path}: downsample_ratio is {ratio!r}; it must be 1, 1/2, 1/3, ...")
    pictures = _pictures(published, directory)
    kind = encoders.get("internvit")
    encoder = vision.translate(kind, tower, pictures, directory)
    image_token = published.get("image_token_id")
    if original and _is_added(tokenizer, _PLACEHOLDER):
        image_token = tokenizer.token_id(_PLACEHOLDER)  # its own code finds it so
    seen = {"feature_layer": layer, "use_thumbnail": published.get("use_thumbnail", True)}
    widths = {"input_size": encoder.hidden_size, "output_size": decoder.hidden_size}
    described = {
        "encoder": {"name": "internvit", "config": dataclasses.asdict(encoder) | seen},
        "projector": {"name": "mlp", "config": {**widths, "shuffle": shuffle}},
        "decoder": {"name": "qwen3", "config": dataclasses.asdict(decoder)},
        "image_token_id": image_token,
    }
    try:
        with unfilled():
            return vlm.build(described)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _pictures(published: Mapping[str, Any], directory: Path) -> dict[str, Any]:
    """Say how pictures are prepared: by the processor's file, or by the original config."""
    if published.get("model_type") != ORIGINAL:
        # Whatever its file says, the processor of the whole model cuts tiles.
        return {**vision.read_pictures(directory), "crop_to_patches": True}
    side = published.get("force_image_size") or published["vision_config"].get("image_size", 448)
    return {
        "size": side,
        "crop_to_patches": published.get("dynamic_image_size", True),
        "min_patches": published.get("min_dynamic_patch", 1),
        "max_patches": published.get("max_dynamic_patch", 12),
        **_IMAGENET,
    }


def _chat(
    published: Mapping[str, Any],
    directory: Path,
    tokenizer: Tokenizer,
    model: VisionLanguageModel,
) -> dict[str, Any]:
    """Say how a chat is framed, and a picture in it."""
    assert model.image_token_id is not None  # for the type checker: the config names it
    token = tokenizer.token_bytes(model.image_token_id, skip_special=False).decode()
    names = conversation.read_named_tokens(directory)
    start = names.get("start_image_token", "<img>")
    end = names.get("end_image_token", "</img>")
    for name in (start, token, end):
        if not _is_added(tokenizer, name):
            raise CheckpointError(
                f"{directory / qwen3.TOKENIZER} has no added token {name!r}, which frames"
                " pictures: it belongs to another model"
            )
    frame = {"image_start": start, "image_token": token, "image_end": f"{end}\n"}
    template = conversation.read_template(directory)
    if published.get("model_type") == ORIGINAL or template is None:
        return {"revision": "instruct-2507", **frame}  # its own code frames chats, in this way
    if not re.search(rf"({re.escape(token)}|<image>)(\\n|\n)", template):
        frame["image_end"] = end
    plain = "<|im_start|>" in template and "tools" not in template and "think" not in template
    revision = "instruct-2507" if plain else conversation.read_chat_revision(directory)
    return {"revision": revision, **frame}


def _is_added(tokenizer: Tokenizer, token: str) -> bool:
    try:
        return tokenizer.is_added(tokenizer.token_id(token))
    except KeyError:
        return False
