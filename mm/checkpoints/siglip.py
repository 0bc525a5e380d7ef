"""Published SigLIP and SigLIP 2 (fixed resolution) checkpoints, whole or vision tower only.

Whole ones put `vision_model.` before the tower's names and nest its config, often leaving out what
equals the class defaults; `preprocessor_config.json` says how pictures are resized.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from mm.checkpoints import store
from mm.checkpoints.fill import fill, unfilled
from mm.checkpoints.rules import NameRules
from mm.encoders.siglip import Config, Encoder
from mm.errors import CheckpointError
from mm.registry import make_config

MODEL_TYPES = ("siglip", "siglip_vision_model")
NAMES = NameRules(
    prefixes=(("vision_model.", ""),),
    ignored=(
        r"(vision_model\.)?head\..*",  # attention pooling, which gives one vector for a picture
        r"(vision_model\.)?embeddings\.position_ids",  # 0, 1, 2, ...: older files stored it
        r"text_model\..*",
        r"logit_(scale|bias)",
    ),
)
_RESAMPLE = {2: "bilinear", 3: "bicubic"}  # PIL's numbers
_FIELDS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "image_size",
    "patch_size",
    "num_channels",
    "layer_norm_eps",
    "hidden_act",
)


def load_siglip(
    directory: str | os.PathLike[str],
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> Encoder:
    """Load a published SigLIP vision tower with its preprocessing.

    Args:
        directory: holds `config.json`, `preprocessor_config.json` and safetensors.
        device: where to put it.
        dtype: of the weights; None keeps the stored one.

    Raises:
        CheckpointError: a file is missing or damaged, or asks for what SigLIP does not do.
    """
    directory = Path(directory)
    config = read_config(directory)
    with unfilled():
        encoder = Encoder(config)
    stored = NAMES.apply(store.open_tensors(directory), directory)
    fill(encoder, stored, directory, device, dtype)
    return encoder.eval()


def read_config(directory: Path) -> Config:
    """Translate the published config and preprocessing; raises CheckpointError."""
    path = directory / "config.json"
    whole = store.read_json(path)
    model_type = whole.get("model_type")
    if model_type not in MODEL_TYPES:
        raise CheckpointError(f"{path} has model_type {model_type!r}, not {MODEL_TYPES[0]!r}")
    tower = whole.get("vision_config", {}) if model_type == MODEL_TYPES[0] else whole
    pictures = store.read_json(directory / "preprocessor_config.json")
    fields: dict[str, Any] = {name: tower[name] for name in _FIELDS if name in tower}
    try:
        config: Config = make_config(Config, fields | _preprocessing(pictures), "SigLIP's config")
    except ValueError as error:
        raise CheckpointError(f"{directory}: {error}") from None
    size = pictures.get("size", {})
    if size != {"height": config.image_size, "width": config.image_size}:
        raise CheckpointError(
            f"{directory / 'preprocessor_config.json'} resizes to {size}, but config.json has"
            f" image_size {config.image_size}: they must agree"
        )
    return config


def _preprocessing(pictures: dict[str, Any]) -> dict[str, Any]:
    for switch in ("do_resize", "do_rescale", "do_normalize"):
        if pictures.get(switch, True) is not True:
            raise ValueError(f"preprocessor_config.json switches off {switch}, which SigLIP needs")
    if abs(pictures.get("rescale_factor", 1 / 255) - 1 / 255) > 1e-9:
        raise ValueError("preprocessor_config.json has a rescale_factor other than 1/255")
    resample = pictures.get("resample", 3)
    if resample not in _RESAMPLE:
        raise ValueError(f"preprocessor_config.json has resample {resample!r}; known: 2 and 3")
    half = [0.5, 0.5, 0.5]
    return {
        "resample": _RESAMPLE[resample],
        "image_mean": pictures.get("image_mean", half),
        "image_std": pictures.get("image_std", half),
    }
