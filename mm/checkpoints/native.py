"""mm's own checkpoint: a folder of plain data, from which a stranger's file cannot run code.

config.json         registered names and numbers, format and version
model.safetensors   or shards with an index
tokenizer.json
README.md           the card
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mm import vlm
from mm.checkpoints import store
from mm.checkpoints.fill import fill, stored_tensors, unfilled
from mm.errors import CheckpointError
from mm.text.tokenizer import Tokenizer
from mm.vlm import VisionLanguageModel

FORMAT = "mm"
VERSION = 1
CONFIG = "config.json"
TOKENIZER = "tokenizer.json"
CARD = "README.md"


@dataclass(frozen=True)
class LoadedModel:
    """A model, its tokenizer, and all of `config.json`."""

    model: VisionLanguageModel
    tokenizer: Tokenizer
    config: dict[str, Any]  # JSON


def save(
    model: VisionLanguageModel,
    tokenizer: Tokenizer,
    directory: str | os.PathLike[str],
    *,
    card: str,
    extra: Mapping[str, Any] | None = None,  # JSON values
    dtype: torch.dtype | None = None,
    max_shard_bytes: int = store.MAX_SHARD_BYTES,
) -> None:
    """Write a checkpoint; the folder appears whole or not at all.

    Args:
        directory: a new folder, an empty one, or an older checkpoint to replace.
        card: Markdown for README.md.
        extra: further entries of `config.json`, such as `chat`, `generation`, `task_prompts` and
            `training`.
        dtype: to store floating-point tensors in; None is each tensor's own.
        max_shard_bytes: see `mm.checkpoints.store.save_tensors`.

    Raises:
        ValueError: `extra` has an entry that describes the model itself.
        CheckpointError: the folder holds something else.
    """
    config = {"format": FORMAT, "version": VERSION, **model.config}
    clashes = sorted(set(config) & set(extra or {}))
    if clashes:
        raise ValueError(f"extra sets {', '.join(clashes)}, which the model itself describes")
    config |= extra or {}
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    files = {TOKENIZER: tokenizer.to_json(), CARD: card, CONFIG: text}

    def write(scratch: Path) -> None:
        store.save_tensors(stored_tensors(model), scratch, max_shard_bytes, dtype=dtype)
        for name, content in files.items():
            store.write_bytes(scratch / name, content.encode("utf-8"))

    store.replace_folder(Path(directory), write, replaceable={*files, store.INDEX})


def load(
    directory: str | os.PathLike[str],
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> LoadedModel:
    """Read a checkpoint, strictly.

    Args:
        directory: a folder that `save` wrote.
        device: where to put the model.
        dtype: of its weights; None keeps the stored one.

    Raises:
        CheckpointError: a file is missing or damaged, the version is another, a name is unknown,
            or the weights do not fit the config.
    """
    directory = Path(directory)
    store.check_folder(directory)
    config = store.read_json(directory / CONFIG)
    _check_version(config, directory / CONFIG)
    try:
        with unfilled():
            model = vlm.build(config)
    except ValueError as error:
        raise CheckpointError(f"{directory / CONFIG}: {error}") from None
    tokenizer = Tokenizer.from_file(directory / TOKENIZER)
    rows = model.decoder.config.vocab_size
    if tokenizer.vocab_size > rows:
        raise CheckpointError(
            f"{directory / TOKENIZER} has {tokenizer.vocab_size} tokens for a decoder of {rows}:"
            " it belongs to another model"
        )
    fill(model, store.open_tensors(directory), directory, device, dtype)
    return LoadedModel(model.eval(), tokenizer, config)


def _check_version(config: Mapping[str, Any], path: Path) -> None:
    found = config.get("format")
    if found != FORMAT:
        hint = f", but a published {config['model_type']!r}" if "model_type" in config else ""
        raise CheckpointError(f"{path} is not a checkpoint of mm (format {found!r}){hint}")
    version = config.get("version")
    if version != VERSION:
        newer = isinstance(version, int) and version > VERSION
        fix = "install a newer mm" if newer else "save it again with this mm"
        raise CheckpointError(f"{path} is of version {version!r}, this mm reads {VERSION}: {fix}")
