"""A folder that transformers loads, made of a published folder or of mm's own checkpoint.

A whole model goes there if transformers has a class that is the same network; otherwise, or if
asked for, its decoder and the tokenizer do. Its chat frame goes along as a template.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mm.checkpoints import conversation, native, store, vision
from mm.checkpoints.fill import Layout, whole
from mm.checkpoints.published import format_of, load_vlm
from mm.checkpoints.qwen3 import (
    CONFIG,
    TOKENIZER,
    Experts,
    load_text,
    published_parts,
    save_qwen3,
    write_folder,
)
from mm.checkpoints.tensor_file import stored_dtype
from mm.checkpoints.transformers_classes import find_class
from mm.checkpoints.whole_form import Whole
from mm.text.chat import STOP_TOKENS, render, stop_token_ids
from mm.text.frame import PictureFrame

_FRAME = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' }}"
    "{%- if message.content is string %}{{- message.content }}"
    "{%- else %}{%- for part in message.content %}"
    "{%- if part.type == 'image' %}{{- 'IMAGE' }}{%- else %}{{- part.text }}{%- endif %}"
    "{%- endfor %}{%- endif %}"
    "{{- '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- 'OPENED' }}{%- endif %}"
)


def export(
    source: str | os.PathLike[str],
    directory: str | os.PathLike[str],
    *,
    text_only: bool = False,
    dtype: torch.dtype | None = None,
    experts: Experts = "each",
    max_shard_bytes: int = store.MAX_SHARD_BYTES,
) -> str | None:
    """Write a folder's model in a published layout.

    Args:
        source: a published folder, or one that `mm.checkpoints.native.save` wrote.
        directory: as in `mm.checkpoints.qwen3.save_qwen3`.
        text_only: write the decoder alone.
        dtype: to store the weights in; None is their own.
        experts: as in `save_qwen3`.
        max_shard_bytes: as in `save_qwen3`.

    Returns:
        What to know about the folder, if there is something.

    Raises:
        CheckpointError: the source is no model, or is damaged; transformers has no class for it;
            or the folder holds other files.
    """
    kind = format_of(source)
    if kind == "text":
        _export_text(Path(source), directory, dtype, experts, max_shard_bytes)
        return None
    loaded = load_vlm(source) if kind == "vlm" else native.load(source)
    decoder = loaded.model.decoder
    if text_only or not loaded.model.sees:
        files = _companions(loaded, None)
        end, pad = stop_token_ids(loaded.tokenizer)
        save_qwen3(
            decoder,
            directory,
            files=files,
            token_ids={"eos_token_id": end, "pad_token_id": pad},
            experts=experts,
            dtype=dtype,
            max_shard_bytes=max_shard_bytes,
        )
        if not loaded.model.sees:
            return None
        return "text only, without its encoder and projector"
    layout: Layout = partial(published_parts, config=decoder.config) if experts == "each" else whole
    stored = stored_dtype(decoder.model.embed_tokens.weight, dtype)
    frame = PictureFrame.of(loaded.config.get("chat", {}))
    found = find_class(loaded.model, frame, stored, layout)
    template = None
    if kind == "vlm":
        published = store.read_json(Path(source) / CONFIG)
        if published["model_type"] == found.config["model_type"]:
            template = conversation.read_template(Path(source))
    files = {**_companions(loaded, found, template), CONFIG: _json(found.config)}
    if (terms := Path(source) / "LICENSE").exists():
        files[terms.name] = terms.read_bytes()
    files |= {vision.PROCESSOR: _json(found.processor), vision.PICTURES: _json(found.pictures)}
    write_folder(directory, found.tensors(loaded.model), files, dtype, max_shard_bytes)
    return found.note


def _export_text(
    source: Path,
    directory: str | os.PathLike[str],
    dtype: torch.dtype | None,
    experts: Experts,
    max_shard_bytes: int,
) -> None:
    """Write a published text folder anew, with what belongs to it."""
    loaded = load_text(source)
    names = (TOKENIZER, *conversation.FILES, "LICENSE")
    published = store.read_json(source / CONFIG)
    kinds = ("bos_token_id", "eos_token_id", "pad_token_id")
    save_qwen3(
        loaded.decoder,
        directory,
        files={n: (source / n).read_bytes() for n in names if (source / n).exists()},
        token_ids={kind: published[kind] for kind in kinds if kind in published},
        experts=experts,
        dtype=dtype,
        max_shard_bytes=max_shard_bytes,
    )


def _companions(
    own: native.LoadedModel, found: Whole | None, published: str | None = None
) -> dict[str, bytes]:
    """Return the files beside weights and config, as transformers wants them.

    Args:
        found: the whole model's form; None is the decoder alone.
        published: the model's own chat template, if it has one that fits.
    """
    end, pad = STOP_TOKENS
    stops = stop_token_ids(own.tokenizer)
    settings = dict(own.config.get("generation", {}))
    stops = settings.pop("eos_token_id", None) or stops
    samples = settings.get("temperature", 0.0) > 0
    if not samples:
        settings.pop("temperature", None)  # transformers has no 0
    chat = own.config.get("chat", {})
    pieces = render(
        [("user", "")],
        thinking=chat.get("thinking", "none"),
        revision=chat.get("revision"),
        add_generation_prompt=True,
    )
    opened = "".join(piece.text for piece in pieces).rpartition("<|im_end|>\n")[2]
    template = _FRAME.replace("OPENED", opened.replace("\n", "\\n"))
    template = template.replace("IMAGE", found.image.replace("\n", "\\n") if found else "")
    template = published or template
    words: dict[str, Any] = {
        "chat_template": template,
        "clean_up_tokenization_spaces": False,
        "eos_token": end,
        "model_max_length": own.model.decoder.config.max_position_embeddings,
        "pad_token": pad,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    if found is not None and found.named_tokens:
        words["extra_special_tokens"] = found.named_tokens
    pad_id = own.tokenizer.token_id(pad)
    generation = {"do_sample": samples, "eos_token_id": stops, "pad_token_id": pad_id, **settings}
    files = {
        TOKENIZER: own.tokenizer.to_json().encode(),
        conversation.TOKENIZER_CONFIG: _json(words),
        conversation.GENERATION: _json(generation),
    }
    if found is not None:
        files[conversation.TEMPLATE] = template.encode()
    return files


def _json(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(dict(sorted(values.items())), indent=2, ensure_ascii=False) + "\n").encode()
