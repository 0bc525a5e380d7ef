"""Published Qwen3 text checkpoints, dense: the tensor names are ours already.

The head follows the rule that transformers follows: a stored `lm_head.weight` wins; without one the
embedding is used if the config ties them; without one and untied the checkpoint is incomplete.
(Qwen3-0.6B and 1.7B say tied and store the head as well, 4B says tied and does not.)
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import torch

from mm.checkpoints import store
from mm.checkpoints.fill import check_shapes, fill, unfilled
from mm.checkpoints.rules import NameRules
from mm.decoder.qwen3 import Qwen3Config, Qwen3ForCausalLM
from mm.errors import CheckpointError
from mm.registry import make_config

MODEL_TYPE = "qwen3"
NAMES = NameRules(ignored=(r"model\.rotary_emb\.inv_freq",))  # computed from rope_theta
_HEAD, _EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
# Switches that the published dense models leave off, and this decoder does not have.
_REFUSED = {
    "quantization_config": (None,),
    "rope_scaling": (None,),
    "use_sliding_window": (None, False),
    "attention_bias": (None, False),
    "hidden_act": (None, "silu"),
}


def load_qwen3(
    directory: str | os.PathLike[str],
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> Qwen3ForCausalLM:
    """Load a published dense Qwen3 checkpoint.

    Args:
        directory: holds `config.json` and safetensors, one file or shards.
        device: where to put it.
        dtype: of the weights; None keeps the stored one.

    Raises:
        CheckpointError: a file is missing or damaged, or the model is of another kind.
    """
    directory = Path(directory)
    config = read_config(directory / "config.json")
    shapes = {
        name: shape for name, shape in store.shapes(directory).items() if not NAMES.is_ignored(name)
    }
    share = config.tie_word_embeddings
    if _HEAD in shapes and share:
        ends = {name: t for name, t in store.iter_tensors(directory) if name in (_HEAD, _EMBEDDING)}
        share = _EMBEDDING in ends and torch.equal(ends[_HEAD], ends[_EMBEDDING])
    elif not share and _HEAD not in shapes:
        raise CheckpointError(
            f"{directory} has no {_HEAD}, and its config does not tie the head to the embedding:"
            " a shard is missing, or tie_word_embeddings should be true"
        )
    config = dataclasses.replace(config, tie_word_embeddings=share)
    with unfilled():
        decoder = Qwen3ForCausalLM(config)
    if share:
        shapes.pop(_HEAD, None)
    check_shapes(decoder, shapes, directory)
    tensors = ((name, t) for name, t in store.iter_tensors(directory) if name in shapes)
    fill(decoder, tensors, directory, device, dtype)
    return decoder.eval()


def read_config(path: Path) -> Qwen3Config:
    """Translate a published `config.json`; raises CheckpointError."""
    published = store.read_json(path)
    if published.get("model_type") != MODEL_TYPE:
        raise CheckpointError(
            f"{path} has model_type {published.get('model_type')!r}; this reads {MODEL_TYPE!r}"
        )
    for key, accepted in _REFUSED.items():
        if published.get(key) not in accepted:
            raise CheckpointError(
                f"{path} sets {key} to {str(published[key])[:80]}, which this decoder does not do:"
                " use the plain published checkpoint"
            )
    fields: dict[str, Any] = {
        field.name: published[field.name]
        for field in dataclasses.fields(Qwen3Config)
        if field.name in published
    }
    fields["rope_theta"] = _rope_theta(published, path)
    fields.setdefault("tie_word_embeddings", False)  # the published class's default
    try:
        config: Qwen3Config = make_config(Qwen3Config, fields, "Qwen3's config")
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None
    return config


def _rope_theta(published: dict[str, Any], path: Path) -> Any:  # Any: make_config checks it
    """Read the base from either spelling: top level as published, or in `rope_parameters`."""
    nested = published.get("rope_parameters") or {}
    kind = nested.get("rope_type", "default")
    if kind != "default":
        raise CheckpointError(f"{path} asks for RoPE of type {kind!r}; only 'default' is known")
    found = {d["rope_theta"] for d in (published, nested) if d.get("rope_theta") is not None}
    if len(found) != 1:
        raise CheckpointError(f"{path} must give one rope_theta; it gives {sorted(found)}")
    return found.pop()
