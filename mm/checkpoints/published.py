"""Which published checkpoint a folder holds, by the `model_type` of its `config.json`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from mm.checkpoints import siglip, store
from mm.encoders import VisionEncoder
from mm.errors import CheckpointError
from mm.registry import unknown_name_message

_ENCODERS: dict[str, Callable[[str | os.PathLike[str]], VisionEncoder]] = {
    model_type: siglip.load_siglip for model_type in siglip.MODEL_TYPES
}


def load_encoder(directory: str | os.PathLike[str]) -> VisionEncoder:
    """Load a published vision checkpoint.

    Raises:
        CheckpointError: the folder's model type is not known here, or the folder is damaged.
    """
    path = Path(directory) / "config.json"
    model_type = store.read_json(path).get("model_type")
    if model_type not in _ENCODERS:
        raise CheckpointError(
            f"{path}: {unknown_name_message('vision model_type', model_type, _ENCODERS)}"
        )
    return _ENCODERS[model_type](directory)
