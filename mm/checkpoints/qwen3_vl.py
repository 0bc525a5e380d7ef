"""Published Qwen3-VL models, dense and mixtures of experts.

Names are ours but for the beginnings. The head and the experts are stored as `mm.checkpoints.qwen3`
says; published experts are stacked with the last two axes swapped, and transformers writes them as
they are here. What the config says of the head counts at its top level; routers always normalise,
whatever it says of that.

Chats are framed as by the text models of July 2025, a picture as `mm.text.frame` has it. Left out:
video.

Ref: "Qwen3-VL Technical Report" (arXiv 2511.21631).
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
from mm.registry import make_config
from mm.text.chat import Revision, revision_of
from mm.text.frame import QWEN_FRAME
from mm.text.tokenizer import Tokenizer
from mm.vlm import VisionLanguageModel

# Published `model_type`, and that of the text model whose config the nested one extends.
_TEXT = {"qwen3_vl": qwen3_config.DENSE, "qwen3_vl_moe": qwen3_config.MOE}
MODEL_TYPES = tuple(_TEXT)
NAMES = NameRules(
    prefixes=(
        ("model.visual.merger.", "projector.merger."),
        ("model.visual.deepstack_merger_list.", "projector.deepstack_merger_list."),
        ("model.visual.", "encoder."),
        ("model.language_model.", "decoder.model."),
        ("lm_head.", "decoder.lm_head."),
    ),
    ignored=(r"model\.(language_model\.rotary_emb|visual\.rotary_pos_emb)\.inv_freq",),
)
# What absent keys of `text_config` mean to the published classes.
_DEFAULTS: dict[str, Any] = {"max_position_embeddings": 128000, "head_dim": 128}
_SECTION = (24, 20, 20)
_IMAGE_TOKEN = 151655


def load(
    directory: str | os.PathLike[str],
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> native.LoadedModel:
    """Load a published folder whole.

    Args:
        directory: holds `config.json`, `tokenizer.json`, safetensors, and how pictures are
            prepared; without a file of that, they are as for all published models.
        device: where to put the model.
        dtype: of its weights; None keeps the stored one.

    Returns:
        The model and its tokenizer, with `chat` and `generation` as `mm.model.Model` reads them.

    Raises:
        CheckpointError: a file is missing or damaged, or asks for what is not done here.
    """
    directory = Path(directory)
    store.check_folder(directory)
    path = directory / qwen3.CONFIG
    published = store.read_json(path)
    decoder = read_decoder(published, path)
    tokenizer = _tokenizer(directory, decoder)
    stored = {
        name: one
        for name, one in store.open_tensors(directory).items()
        if not NAMES.is_ignored(name)
    }
    ours = NAMES.apply(stored, directory)
    of_decoder = within(ours, "decoder")
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
    generation = conversation.read_generation(directory, tokenizer, decoder.vocab_size)
    chat = _chat(directory, tokenizer, model.image_token_id)
    config = {"chat": chat, "generation": generation}
    return native.LoadedModel(model.eval(), tokenizer, config)


def read_decoder(published: Mapping[str, Any], source: object) -> Qwen3Config:
    """Translate the decoder's config.

    Args:
        published: the whole model's.
        source: where it stands, for messages.

    Raises:
        CheckpointError: there is none, or it asks for what is not done here.
    """
    if published.get("quantization_config") is not None:
        raise CheckpointError(
            f"{source} sets quantization_config, which is not done here: use the plain published"
            " checkpoint"
        )
    text = published.get("text_config")
    if not isinstance(text, Mapping):
        raise CheckpointError(f"{source} has no text_config: name a folder of a whole model")
    fields = {**_DEFAULTS, **text, "model_type": _TEXT[str(published.get("model_type"))]}
    fields["tie_word_embeddings"] = published.get("tie_word_embeddings", False)
    if fields["model_type"] == qwen3_config.MOE:
        fields["norm_topk_prob"] = True
    section: object = None
    for key in ("rope_parameters", "rope_scaling"):
        if isinstance(fields.get(key), Mapping):
            rope = dict(fields[key])
            section = rope.pop("mrope_section", None) or section
            if not rope.pop("mrope_interleaved", True):
                raise CheckpointError(
                    f"{source} sets mrope_interleaved to false, which this decoder does not do"
                )
            fields[key] = rope
    plain = qwen3_config.translate(fields, source)
    try:
        values = dataclasses.asdict(plain) | {"mrope_section": section or _SECTION}
        config: Qwen3Config = make_config(Qwen3Config, values, "Qwen3-VL's text_config")
    except ValueError as error:
        raise CheckpointError(f"{source}: {error}") from None
    return config


def read_revision(directory: Path) -> Revision | None:
    """Recognise the chat template, see `mm.text.chat.revision_of`; None if it is another family's.

    Raises:
        CheckpointError: the file that should have it is damaged.
    """
    template = conversation.read_template(directory)
    return "instruct-2507" if template is None else revision_of(template)


def _tokenizer(directory: Path, decoder: Qwen3Config) -> Tokenizer:
    path = directory / qwen3.TOKENIZER
    tokenizer = Tokenizer.from_file(path)
    if tokenizer.vocab_size > decoder.vocab_size:
        raise CheckpointError(
            f"{path} has {tokenizer.vocab_size} tokens for a decoder of {decoder.vocab_size}: it"
            " belongs to another model"
        )
    return tokenizer


def _chat(directory: Path, tokenizer: Tokenizer, image_token_id: int | None) -> dict[str, Any]:
    """Say how a chat is framed, and a picture in it where that is not as published."""
    chat: dict[str, Any] = {"revision": read_revision(directory)}
    if image_token_id is not None and tokenizer.is_added(image_token_id):
        token = tokenizer.token_bytes(image_token_id, skip_special=False).decode()
        if token != QWEN_FRAME.token:
            chat["image_token"] = token
    return chat


def _pictures(directory: Path) -> dict[str, Any]:
    """Read how pictures are prepared; where no file says it, as all published models have it."""
    if not any((directory / name).exists() for name in (vision.PICTURES, vision.PROCESSOR)):
        return {}
    found = vision.read_pictures(directory)
    for name in ("image_mean", "image_std"):
        if name not in found:  # the published class's own is of another family
            raise CheckpointError(f"{directory}: nothing says {name}, which pictures need")
    return found


def _build(
    published: Mapping[str, Any], decoder: Qwen3Config, directory: Path
) -> VisionLanguageModel:
    """Make the model without its weights."""
    path = directory / qwen3.CONFIG
    tower = published.get("vision_config")
    if not isinstance(tower, Mapping):
        raise CheckpointError(f"{path} has no vision_config: name a folder of a whole model")
    kind = encoders.get("qwen3_vl")
    encoder = vision.translate(kind, tower, _pictures(directory), directory)
    projector = {
        "input_size": encoder.hidden_size * (1 + len(encoder.deepstack_visual_indexes)),
        "output_size": tower.get("out_hidden_size", decoder.hidden_size),
        "num_residuals": len(encoder.deepstack_visual_indexes),
        "shuffle": encoder.spatial_merge_size,
    }
    try:
        with unfilled():
            return vlm.build(
                {
                    "encoder": {"name": "qwen3_vl", "config": dataclasses.asdict(encoder)},
                    "projector": {"name": "deepstack", "config": projector},
                    "decoder": {"name": "qwen3", "config": dataclasses.asdict(decoder)},
                    "image_token_id": published.get("image_token_id", _IMAGE_TOKEN),
                }
            )
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None
