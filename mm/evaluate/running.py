"""The model of a run that still trains, read from a checkpoint as it would be saved.

So a task's figures are the same whether it is asked while training, of a checkpoint, or of the
finished model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from mm.errors import CheckpointError
from mm.registry import make_config
from mm.text.tokenizer import Tokenizer
from mm.train.build import model_config
from mm.train.lora import add_lora, merge_lora
from mm.train.pieces import Stored
from mm.train.recipe import RecipeConfig
from mm.train.run import CHECKPOINTS, checkpoints_of, step_of
from mm.vlm import VisionLanguageModel, build

# As `mm.train.build.save_model` saves.
SAVED_DTYPE = torch.bfloat16
TRAINED_CHAT = {"thinking": "none"}


def checkpoint_of(directory: Path) -> Path | None:
    """The checkpoint that a folder is, or the newest of a run; None if it is neither."""
    if (directory / "weights").is_dir() and directory.parent.name == CHECKPOINTS:
        return directory
    found = checkpoints_of(directory)
    return found[-1] if found else None


def read_running(
    checkpoint: Path, device: torch.device
) -> tuple[VisionLanguageModel, Tokenizer, int]:
    """Read a run's checkpoint; return its model, tokenizer and step.

    Raises:
        CheckpointError: it is damaged, or of another configuration than the run's.
    """
    run = checkpoint.parents[1]
    try:
        config: dict[str, Any] = yaml.safe_load((run / "config.yaml").read_text("utf-8"))
        recipe: RecipeConfig = make_config(RecipeConfig, config["recipe"], "recipe")
        tokenizer = Tokenizer.from_file(config["tokenizer"])
        model = build(model_config(config, tokenizer))
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{run} has no whole config.yaml beside its checkpoints: {error}"
        ) from error
    model.init_weights(torch.Generator().manual_seed(0))
    add_lora(model, recipe.lora, torch.Generator().manual_seed(0))
    _fill(model, Stored(checkpoint / "weights"), checkpoint)
    merge_lora(model)
    for tensor in floating(model).values():
        tensor.copy_(tensor.to(SAVED_DTYPE))
    return model.to(device), tokenizer, step_of(checkpoint)


def floating(model: nn.Module) -> dict[str, Tensor]:
    """What is rounded when a model is saved, by name; the tensors themselves."""
    return {n: t.detach() for n, t in model.state_dict().items() if t.is_floating_point()}


def _fill(model: nn.Module, stored: Stored, checkpoint: Path) -> None:
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            key = f"model.{name}"
            if key in stored.names:
                tensor.copy_(stored.whole(key))
            elif not _is_tied(model, name):
                raise CheckpointError(f"{checkpoint} lacks {name}: it is of another model")


def _is_tied(model: nn.Module, name: str) -> bool:
    """Whether a tensor is another name of a parameter, under which it is stored once."""
    return name not in dict(model.named_parameters()) | dict(model.named_buffers())
