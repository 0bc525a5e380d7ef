"""mm's own checkpoint: a folder of plain data, from which a stranger's file cannot run code.

config.json         registered names and numbers, format and version
model.safetensors   or shards with an index
tokenizer.json
README.md           the card
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mm import vlm
from mm.checkpoints import store
from mm.checkpoints.fill import check_shapes, fill, stored_tensors, unfilled
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
    directory = Path(directory).resolve()
    config = {"format": FORMAT, "version": VERSION, **model.config}
    clashes = sorted(set(config) & set(extra or {}))
    if clashes:
        raise ValueError(f"extra sets {', '.join(clashes)}, which the model itself describes")
    config |= extra or {}
    tensors = {
        name: tensor.detach().to(dtype if tensor.is_floating_point() else None)
        for name, tensor in stored_tensors(model).items()
    }
    _refuse_other_files(directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    scratch = directory.with_name(f".{directory.name}.{os.getpid()}.saving")
    replaced = directory.with_name(f".{directory.name}.{os.getpid()}.replaced")
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        store.save_tensors(tensors, scratch, max_shard_bytes)
        text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
        for name, content in ((TOKENIZER, tokenizer.to_json()), (CARD, card), (CONFIG, text)):
            data = content.encode("utf-8")
            store.write_atomically(scratch / name, lambda file, data=data: file.write(data))  # type: ignore[misc]
        if directory.exists():
            os.replace(directory, replaced)
        os.replace(scratch, directory)
        store.sync_directory(directory.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


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
    if not directory.is_dir():
        what = "is not a folder" if directory.exists() else "does not exist"
        raise CheckpointError(f"model folder {directory} {what}: check the path")
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
    check_shapes(model, store.shapes(directory), directory)
    fill(model, store.iter_tensors(directory), directory, device, dtype)
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


def _refuse_other_files(directory: Path) -> None:
    if not directory.exists():
        return
    if not directory.is_dir():
        raise CheckpointError(f"{directory} is a file: name a folder to save the model in")
    ours = {CONFIG, TOKENIZER, CARD, store.INDEX}
    others = sorted(
        path.name
        for path in directory.iterdir()
        if path.name not in ours and path.suffix != ".safetensors"
    )
    if others:
        raise CheckpointError(
            f"{directory} holds other files ({others[0]}), and saving replaces the folder: name a"
            " new one"
        )
