"""Which model a folder holds, by its `config.json`: mm's own, or a published `model_type`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from mm.checkpoints import native, qwen3_config, store, vision
from mm.encoders import VisionEncoder
from mm.errors import CheckpointError
from mm.registry import unknown_name_message

Format = Literal["mm", "text"]


def format_of(directory: str | os.PathLike[str]) -> Format:
    """Say who reads a folder: "mm" is for `native.load`, "text" for `qwen3.load_text`.

    Raises:
        CheckpointError: it is no model, or one of another architecture.
    """
    path = Path(directory) / native.CONFIG
    store.check_folder(Path(directory))
    config = store.read_json(path)
    if "format" in config:  # another format is told by `native.load`
        return "mm"
    model_type = _model_type(config)
    if model_type in qwen3_config.MODEL_TYPES:
        return "text"
    if model_type in vision.published_encoders():
        raise CheckpointError(
            f"{path} is a vision encoder's ({model_type}), which says no words: load it with"
            " mm.encoders.load, or name a folder that holds a whole model"
        )
    if model_type is None:
        raise CheckpointError(f"{path} has neither a format nor a model_type: it is no model's")
    message = unknown_name_message("model_type", model_type, qwen3_config.MODEL_TYPES)
    raise CheckpointError(f"{path}: {message}")


def load_encoder(directory: str | os.PathLike[str]) -> VisionEncoder:
    """Load a published vision checkpoint.

    Raises:
        CheckpointError: the folder's model type is not known here, or the folder is damaged.
    """
    path = Path(directory) / "config.json"
    store.check_folder(Path(directory))
    config = store.read_json(path)
    model_type = _model_type(config)
    if model_type is None and "architecture" in config:
        return vision.load_timm(directory)
    known = vision.published_encoders()
    if model_type not in known:
        raise CheckpointError(
            f"{path}: {unknown_name_message('vision model_type', model_type, known)}"
        )
    return vision.load_vision(directory, known[model_type])


def _model_type(config: Mapping[str, object]) -> str | None:
    found = config.get("model_type")
    return found if found is None else str(found)[:80]
