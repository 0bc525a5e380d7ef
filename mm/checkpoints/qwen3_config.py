"""Qwen3's published `config.json`, read in every spelling and written in the first one.

Files differ by age: `rope_theta` and `rope_scaling` side by side, as first published, or both in
`rope_parameters`; `num_experts`, or `num_local_experts`; `type` for `rope_type`. Neither
`torch_dtype` nor `dtype` is read, as the weights themselves say what they are. Absent keys mean
what they mean to the published classes (`configuration_qwen3` and `configuration_qwen3_moe` of
transformers), except that sizes and `rope_theta` have to be there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mm.checkpoints import store
from mm.decoder.qwen3 import Qwen3Config
from mm.errors import CheckpointError
from mm.registry import make_config, unknown_name_message

DENSE, MOE = "qwen3", "qwen3_moe"
MODEL_TYPES = (DENSE, MOE)
_ARCHITECTURES = {DENSE: "Qwen3ForCausalLM", MOE: "Qwen3MoeForCausalLM"}
_MOE_FIELDS = (
    "num_experts",
    "num_experts_per_tok",
    "moe_intermediate_size",
    "norm_topk_prob",
    "decoder_sparse_step",
    "mlp_only_layers",
    "router_aux_loss_coef",
)
# Switches that the published models leave as they are here, and this decoder does not have.
_REFUSED: dict[str, tuple[Any, ...]] = {
    "quantization_config": (None,),
    "dual_chunk_attention_config": (None,),
    "use_sliding_window": (None, False),
    "attention_bias": (None, False),
    "qkv_bias": (None, False),
    "use_qk_norm": (None, True),
    "shared_expert_intermediate_size": (None, 0),
    "partial_rotary_factor": (None, 1),
    "hidden_act": (None, "silu"),
}


def read_config(path: Path) -> Qwen3Config:
    """Translate a published `config.json`.

    Args:
        path: the file.

    Raises:
        CheckpointError: it is missing or damaged, is of another architecture, asks for what this
            decoder does not do, or has a value that makes no sense.
    """
    return translate(store.read_json(path), path)


def translate(published: Mapping[str, Any], source: object) -> Qwen3Config:
    """Translate a published config, such as the `text_config` of a larger one.

    Args:
        published: its values; `model_type` is one of `MODEL_TYPES`.
        source: where they stand, for messages.

    Raises:
        CheckpointError: as `read_config`.
    """
    model_type = published.get("model_type")
    if model_type not in MODEL_TYPES:
        name = str(model_type)[:80]
        raise CheckpointError(f"{source}: {unknown_name_message('model_type', name, MODEL_TYPES)}")
    for key, accepted in _REFUSED.items():
        if published.get(key) not in accepted:
            _refuse(source, key, published[key])
    kinds = published.get("layer_types") or []
    if not isinstance(kinds, list) or any(kind != "full_attention" for kind in kinds):
        _refuse(source, "layer_types", kinds)
    try:
        fields = _fields(published, model_type)
        config: Qwen3Config = make_config(Qwen3Config, fields, "Qwen3's config")
    except ValueError as error:
        raise CheckpointError(f"{source}: {error}") from None
    return config


def published_config(config: Qwen3Config, dtype: torch.dtype) -> dict[str, Any]:
    """Return the content of a published `config.json`, as the first releases spell it.

    Args:
        config: the decoder's.
        dtype: of its weights.
    """
    model_type = MOE if config.num_experts else DENSE
    fields = dataclasses.asdict(config)  # JSON values, but for the tuple
    fields["mlp_only_layers"] = list(config.mlp_only_layers)
    del fields["mrope_section"]  # which text does not need
    if config.rope_scaling is not None:
        scaling = {k: v for k, v in fields["rope_scaling"].items() if v is not None}
        fields["rope_scaling"] = scaling
    if model_type == DENSE:
        fields = {name: value for name, value in fields.items() if name not in _MOE_FIELDS}
    fields |= {
        "architectures": [_ARCHITECTURES[model_type]],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "hidden_act": "silu",
        "max_window_layers": config.num_hidden_layers,
        "model_type": model_type,
        "sliding_window": None,
        "torch_dtype": str(dtype).removeprefix("torch."),
        "use_cache": True,
        "use_sliding_window": False,
    }
    return dict(sorted(fields.items()))


def _fields(published: Mapping[str, Any], model_type: str) -> dict[str, Any]:
    """Return the values of Qwen3Config's fields; raises ValueError."""
    known = {field.name for field in dataclasses.fields(Qwen3Config)} - {"mrope_section"}
    if model_type == DENSE:
        known -= set(_MOE_FIELDS)
    fields = {key: published[key] for key in known if published.get(key) is not None}
    fields.setdefault("tie_word_embeddings", False)
    fields.setdefault("max_position_embeddings", 32768)
    if model_type == MOE:
        spellings = ("num_experts", "num_local_experts")
        fields["num_experts"] = _one("num_experts", [published.get(key) for key in spellings])
        if fields["num_experts"] == 0:
            raise ValueError("num_experts is 0 in a mixture of experts; it must be at least 1")
        D, H = fields.get("hidden_size"), fields.get("num_attention_heads")
        if isinstance(D, int) and isinstance(H, int) and H > 0:
            fields.setdefault("head_dim", D // H)  # the mixtures' class has no default of its own
    fields["rope_theta"], fields["rope_scaling"] = _rope(published)
    return fields


def _rope(published: Mapping[str, Any]) -> tuple[Any, dict[str, Any] | None]:
    """Read base and scaling from wherever they stand; raises ValueError."""
    thetas = [published.get("rope_theta")]
    scalings: list[dict[str, Any]] = []
    for key in ("rope_parameters", "rope_scaling"):
        nested = published.get(key)
        if nested is None:
            continue
        if not isinstance(nested, dict):
            raise ValueError(f"{key} is {str(nested)[:80]}; it must be an object or null")
        values = {name: value for name, value in nested.items() if value is not None}
        thetas.append(values.pop("rope_theta", None))
        kind = values.pop("type", None)
        kind = values.pop("rope_type", kind) or "default"
        if values.pop("partial_rotary_factor", 1) != 1:
            raise ValueError(f"{key} has a partial_rotary_factor, which Qwen3 does not")
        if kind == "yarn":
            original = published.get("original_max_position_embeddings")
            if original is not None:
                values["original_max_position_embeddings"] = original
            scalings.append({"rope_type": kind, **values})
        elif kind != "default":
            raise ValueError(f"{key} asks for RoPE of type {kind!r}; known: default, yarn")
        elif values:
            raise ValueError(f"{key} has {sorted(values)[0]!r}, which plain RoPE does not know")
    theta = _one("rope_theta", thetas)
    if len(scalings) == 2 and scalings[0] != scalings[1]:
        raise ValueError("rope_parameters and rope_scaling differ: remove one")
    return theta, scalings[0] if scalings else None


def _one(name: str, values: list[Any]) -> Any:  # JSON values; make_config checks the one
    """Return the one value that is not None; raises ValueError."""
    found = [value for value in values if value is not None]
    if not found or any(value != found[0] for value in found):
        raise ValueError(f"it must give one {name}; it gives {str(found)[:80]}")
    return found[0]


def _refuse(source: object, key: str, value: object) -> None:
    raise CheckpointError(
        f"{source} sets {key} to {str(value)[:80]}, which this decoder does not do: use the plain"
        " published checkpoint"
    )
