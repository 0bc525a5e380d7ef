"""From a folder to a model that is ready to use: mm's own checkpoints and published ones."""

import os
from pathlib import Path
from typing import Any

import torch

from mm.checkpoints import native
from mm.checkpoints.needs import Needs, needs_of
from mm.checkpoints.needs import free_memory as free_memory
from mm.checkpoints.published import format_of, load_vlm
from mm.checkpoints.qwen3 import load_text
from mm.errors import CheckpointError, ConfigError, UsageError
from mm.text.tokenizer import Tokenizer
from mm.vlm import VisionLanguageModel

ASSETS = Path(__file__).with_name("assets")
SHIPPED = "scenes-12m"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
TEXT_TOKENS = 2048  # of a text model's answer at most, if its folder doesn't say

Ready = tuple[VisionLanguageModel, Tokenizer, dict[str, Any]]  # the last is `config.json`


def read_folder(path: str | os.PathLike[str] | None, device: str, dtype: str | None) -> Ready:
    """Read a model, its tokenizer and its settings; arguments and errors as `mm.load`."""
    if path is None:
        path = ASSETS / SHIPPED
        if not path.is_dir():
            raise CheckpointError(
                f"the package's own model {SHIPPED} is missing from {ASSETS}: name a model's "
                "folder, or train one with `python scripts/train.py experiment=scenes`"
            )
    place, numbers = _place(device, dtype)
    try:
        kind = format_of(path)
        needs = needs_of(path, place, numbers)
        if not needs.fits:
            smaller = "" if numbers.itemsize == 2 else " dtype 'bfloat16',"
            raise UsageError(
                f"the model in {os.fspath(path)} does not fit on {place.type}: {needs};"
                f" use{smaller} another device or a smaller model"
            )
        if kind == "text":
            return _read_text(path, place, numbers)
        loaded = (load_vlm if kind == "vlm" else native.load)(path, place, numbers)
    except torch.OutOfMemoryError:
        raise UsageError(
            f"the GPU's memory is too small for the model in {os.fspath(path)}: use device 'cpu',"
            " or a smaller model"
        ) from None
    config = loaded.config
    if kind == "vlm":
        config["generation"] = {"max_new_tokens": TEXT_TOKENS, **config["generation"]}
    return loaded.model, loaded.tokenizer, config


def memory_needed(path: str | os.PathLike[str], device: str, dtype: str | None) -> Needs:
    """Say what `read_folder` would take of the device's memory; raises as it does."""
    format_of(path)
    return needs_of(path, *_place(device, dtype))


def _place(device: str, dtype: str | None) -> tuple[torch.device, torch.dtype]:
    if dtype is not None and dtype not in DTYPES:
        raise ConfigError(f"unknown dtype {dtype!r}; known: {', '.join(DTYPES)}")
    place = pick_device(device)
    default = torch.bfloat16 if place.type == "cuda" else torch.float32
    return place, DTYPES[dtype] if dtype else default


def _read_text(path: str | os.PathLike[str], device: torch.device, dtype: torch.dtype) -> Ready:
    loaded = load_text(path, device, dtype)
    config = {
        "chat": {"revision": loaded.chat_revision},
        "generation": {"max_new_tokens": TEXT_TOKENS, **loaded.generation},
    }
    return VisionLanguageModel(None, None, loaded.decoder, None), loaded.tokenizer, config


def pick_device(name: str) -> torch.device:
    """Turn "auto", "cpu", "cuda" or "cuda:N" into a device.

    Raises:
        UsageError: no such word, or no such GPU.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()):
        raise UsageError(f"unknown device {name!r}; known: auto, cpu, cuda, cuda:N")
    count = torch.cuda.device_count() if kind == "cuda" else 1
    if count == 0:
        raise UsageError(f"device {name!r} was asked for, but PyTorch sees no GPU: use 'cpu'")
    if index and int(index) >= count:
        raise UsageError(f"device {name!r} was asked for, but the last one is '{kind}:{count - 1}'")
    return torch.device(name)
