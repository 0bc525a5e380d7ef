"""A folder that transformers loads, made of a published Qwen3 folder or of mm's own checkpoint.

From mm's own, the decoder and the tokenizer go there: transformers has no model that would put our
encoders and projectors together with them. Its chat frame goes along as a template.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch

from mm.checkpoints import conversation, native, store
from mm.checkpoints.published import format_of
from mm.checkpoints.qwen3 import CONFIG, TOKENIZER, Experts, load_text, save_qwen3
from mm.text.chat import STOP_TOKENS, render, stop_token_ids

_FRAME = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- 'OPENED' }}{%- endif %}"
)


def export(
    source: str | os.PathLike[str],
    directory: str | os.PathLike[str],
    *,
    dtype: torch.dtype | None = None,
    experts: Experts = "each",
    max_shard_bytes: int = store.MAX_SHARD_BYTES,
) -> list[str]:
    """Write the text model of a folder in the published layout.

    Args:
        source: a published Qwen3 folder, or one that `mm.checkpoints.native.save` wrote.
        directory: as in `mm.checkpoints.qwen3.save_qwen3`.
        dtype: to store the weights in; None is their own.
        experts: as in `save_qwen3`.
        max_shard_bytes: as in `save_qwen3`.

    Returns:
        The parts of the model that were left out, by name.

    Raises:
        CheckpointError: the source is no model, or is damaged; or the folder holds other files.
    """
    left_out: list[str] = []
    files: dict[str, bytes] = {}
    if format_of(source) == "text":
        loaded = load_text(source)
        decoder = loaded.decoder
        for name in (TOKENIZER, *conversation.FILES, "LICENSE"):
            path = Path(source) / name
            if path.exists():
                files[name] = path.read_bytes()
        published = store.read_json(Path(source) / CONFIG)
        kinds = ("bos_token_id", "eos_token_id", "pad_token_id")
        token_ids = {kind: published[kind] for kind in kinds if kind in published}
    else:
        own = native.load(source)
        decoder = own.model.decoder
        left_out = [name for name, _ in own.model.named_children() if name != "decoder"]
        texts = _companions(own, decoder.config.max_position_embeddings)
        files = {name: text.encode("utf-8") for name, text in texts.items()}
        end, pad = stop_token_ids(own.tokenizer)
        token_ids = {"eos_token_id": end, "pad_token_id": pad}
    save_qwen3(
        decoder,
        directory,
        files=files,
        token_ids=token_ids,
        experts=experts,
        dtype=dtype,
        max_shard_bytes=max_shard_bytes,
    )
    return left_out


def _companions(own: native.LoadedModel, max_length: int) -> dict[str, str]:
    """Return the files beside the weights, as transformers wants them."""
    end, pad = STOP_TOKENS
    stops = stop_token_ids(own.tokenizer)
    settings = own.config.get("generation", {})
    chat = own.config.get("chat", {})
    pieces = render(
        [("user", "")],
        thinking=chat.get("thinking", "none"),
        revision=chat.get("revision"),
        add_generation_prompt=True,
    )
    opened = "".join(piece.text for piece in pieces).rpartition("<|im_end|>\n")[2]
    words: dict[str, Any] = {
        "chat_template": _FRAME.replace("OPENED", opened.replace("\n", "\\n")),
        "clean_up_tokenization_spaces": False,
        "eos_token": end,
        "model_max_length": max_length,
        "pad_token": pad,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    generation = {"do_sample": False, "eos_token_id": stops, "pad_token_id": stops[1], **settings}
    return {
        TOKENIZER: own.tokenizer.to_json(),
        conversation.TOKENIZER_CONFIG: json.dumps(words, indent=2) + "\n",
        conversation.GENERATION: json.dumps(generation, indent=2) + "\n",
    }
