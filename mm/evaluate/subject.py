"""The model that is asked: where it is read from, and how its folder says to ask it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from mm.checkpoints import native
from mm.checkpoints.published import format_of, load_vlm
from mm.errors import CheckpointError
from mm.evaluate.running import TRAINED_CHAT, checkpoint_of, read_running
from mm.text.tokenizer import Tokenizer
from mm.vlm import VisionLanguageModel


@dataclass(frozen=True)
class Subject:
    """A model to ask, and how its folder says to ask it."""

    model: VisionLanguageModel
    tokenizer: Tokenizer
    chat: Mapping[str, Any] = field(default_factory=dict)
    num_beams: int = 1
    pictures_per_batch: int = 64
    batch_size: int = 128


def read_subject(directory: str, device: torch.device) -> Subject:
    """Read a model that sees; a run's folder stands for its model, or its newest checkpoint.

    Raises:
        CheckpointError: it cannot be read, or sees nothing.
    """
    place = Path(directory)
    if not (place / "config.json").exists():
        if (place / "model" / "config.json").exists():
            directory = str(place / "model")
        elif checkpoint := checkpoint_of(place):
            model, tokenizer, _ = read_running(checkpoint, device)
            return Subject(model.eval(), tokenizer, TRAINED_CHAT)
    kind = format_of(directory)
    if kind == "text":
        raise CheckpointError(
            f"{directory} is a text model's, but tasks show pictures: name a model that sees"
        )
    few: dict[str, Any] = {}
    if kind == "vlm":
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        loaded = load_vlm(directory, device, dtype)
        few = {"pictures_per_batch": 4, "batch_size": 8}  # their pictures are many tokens
    else:
        loaded = native.load(directory, device=device, dtype=torch.float32)
    beams = loaded.config.get("generation", {}).get("num_beams", 1)
    chat = loaded.config.get("chat", {})
    return Subject(loaded.model.eval(), loaded.tokenizer, chat, beams, **few)
