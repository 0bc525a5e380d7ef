"""Which model a folder holds, by its `config.json`: mm's own, or a published `model_type`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import torch

from mm.checkpoints import internvl, lighton_ocr, native, qwen3_config, qwen3_vl, store, vision
from mm.encoders import VisionEncoder
from mm.errors import CheckpointError
from mm.registry import unknown_name_message

Format = Literal["mm", "text", "vlm"]

# Published models that see, by `model_type`. A reader takes directory, device and dtype.
_READERS: dict[str, Callable[..., native.LoadedModel]] = {
    **dict.fromkeys(internvl.MODEL_TYPES, internvl.load),
    **dict.fromkeys(lighton_ocr.MODEL_TYPES, lighton_ocr.load),
    **dict.fromkeys(qwen3_vl.MODEL_TYPES, qwen3_vl.load),
}
# They were trained with many requests for captions; this is one.
_CAPTIONS = {"en": "Describe this image in detail.", "ko": "이 이미지를 자세히 설명해 주세요."}


def format_of(directory: str | os.PathLike[str]) -> Format:
    """Say who reads a folder: "mm" is for `native.load`, "text" for `qwen3.load_text`, "vlm" for
    `load_vlm`.

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
    if model_type in _READERS:
        return "vlm"
    if model_type in vision.published_encoders():
        raise CheckpointError(
            f"{path} is a vision encoder's ({model_type}), which says no words: load it with"
            " mm.encoders.load, or name a folder that holds a whole model"
        )
    if model_type is None:
        raise CheckpointError(f"{path} has neither a format nor a model_type: it is no model's")
    known = (*qwen3_config.MODEL_TYPES, *_READERS)
    message = unknown_name_message("model_type", model_type, known)
    raise CheckpointError(f"{path}: {message}")


def load_vlm(
    directory: str | os.PathLike[str],
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> native.LoadedModel:
    """Load a published model that sees.

    Args:
        directory: as it was published.
        device: where to put the model.
        dtype: of its weights; None keeps the stored one.

    Returns:
        The model and its tokenizer, with what `mm.model.Model` reads of a config: `chat`,
        `generation` and `task_prompts`.

    Raises:
        CheckpointError: the folder is of another kind, or is damaged.
    """
    config = store.read_json(Path(directory) / native.CONFIG)
    model_type = _model_type(config) or ""
    if model_type not in _READERS:
        message = unknown_name_message("model_type", model_type, _READERS)
        raise CheckpointError(f"{Path(directory) / native.CONFIG}: {message}")
    loaded = _READERS[model_type](directory, device, dtype)
    config = {"task_prompts": {"caption": dict(_CAPTIONS)}, **loaded.config}
    return native.LoadedModel(loaded.model, loaded.tokenizer, config)


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
