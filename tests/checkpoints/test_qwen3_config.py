"""Qwen3's config.json: every spelling is read, what we don't do is refused, both ways are equal."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mm.checkpoints.qwen3_config import published_config, read_config
from mm.decoder.qwen3 import Qwen3Config, RopeScaling
from mm.errors import CheckpointError

SIZES = {
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "rope_theta": 3e5,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
}
EXPERTS = {
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 20,
    "norm_topk_prob": True,
    "decoder_sparse_step": 2,
    "mlp_only_layers": (1,),
    "router_aux_loss_coef": 0.01,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
CONFIGS = {
    "dense": Qwen3Config(**SIZES),
    "tied": Qwen3Config(**{**SIZES, "tie_word_embeddings": True}),
    "experts": Qwen3Config(**SIZES, **EXPERTS),
    "yarn": Qwen3Config(**SIZES, rope_scaling=RopeScaling(**YARN)),
    "all of yarn": Qwen3Config(
        **SIZES,
        rope_scaling=RopeScaling("yarn", 2.0, 16, 1.5, beta_fast=16.0, beta_slow=2.0),
    ),
}
# The keys that stand in the published files of Qwen3-0.6B and Qwen3-Coder-30B-A3B.
DENSE = {
    **SIZES,
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "max_window_layers": 28,
    "model_type": "qwen3",
    "rope_scaling": None,
    "sliding_window": None,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.51.0",
    "use_cache": True,
    "use_sliding_window": False,
}
MOE = {
    **{key: value for key, value in DENSE.items() if key not in ("bos_token_id", "attention_bias")},
    **EXPERTS,
    "architectures": ["Qwen3MoeForCausalLM"],
    "mlp_only_layers": [1],
    "model_type": "qwen3_moe",
    "output_router_logits": False,
    "qkv_bias": False,
    "shared_expert_intermediate_size": 0,
    "use_qk_norm": True,
}


def read(folder: Path, published: dict[str, Any]) -> Qwen3Config:
    kept = {key: value for key, value in published.items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(kept))
    return read_config(folder / "config.json")


def test_published_files_are_read(tmp_path):
    assert read(tmp_path, DENSE) == CONFIGS["dense"]
    assert read(tmp_path, MOE) == CONFIGS["experts"]


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_what_we_write_we_read(tmp_path, name, dtype):
    published = published_config(CONFIGS[name], dtype)
    assert read(tmp_path, published) == CONFIGS[name]
    assert published["torch_dtype"] == str(dtype).removeprefix("torch.")


@pytest.mark.parametrize("name", CONFIGS)
def test_transformers_reads_ours_and_we_read_theirs(tmp_path, name):
    transformers = pytest.importorskip("transformers", reason="the reference is not installed")
    ours = CONFIGS[name]
    read(tmp_path, published_config(ours, torch.bfloat16))
    theirs = transformers.AutoConfig.from_pretrained(tmp_path)
    for field in dataclasses.fields(ours):
        value = getattr(ours, field.name)
        if field.name == "rope_theta":
            assert theirs.rope_parameters["rope_theta"] == value
        elif field.name == "rope_scaling":
            for key, wanted in dataclasses.asdict(value).items() if value else ():
                assert theirs.rope_parameters.get(key) == wanted, key
        elif field.name == "mrope_section":
            assert value is None
        elif name == "experts" or hasattr(theirs, field.name):
            assert getattr(theirs, field.name) in (
                value,
                list(value) if type(value) is tuple else value,
            )
    assert theirs.dtype == torch.bfloat16
    theirs.save_pretrained(tmp_path / "saved")
    stored = json.loads((tmp_path / "saved/config.json").read_text())
    # The other spellings, or the test would not show that they are read.
    assert "rope_theta" not in stored and "torch_dtype" not in stored
    assert "num_experts" not in stored
    assert read_config(tmp_path / "saved/config.json") == ours


@pytest.mark.parametrize(
    ("changes", "theta"),
    [
        ({"rope_theta": 5000000}, 5e6),
        ({"rope_theta": ..., "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}, 1e4),
        ({"rope_theta": ..., "rope_scaling": {"rope_type": "default", "rope_theta": 1e4}}, 1e4),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 3e5}}, 3e5),
        ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 1.0}}, 3e5),
        ({"rope_parameters": None}, 3e5),
    ],
)
def test_rope_theta_is_read_where_it_stands(tmp_path, changes, theta):
    config = read(tmp_path, DENSE | changes)
    assert config.rope_theta == theta and config.rope_scaling is None


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_scaling": YARN},
        {"rope_scaling": {**YARN, "type": "yarn", "rope_type": ...}},
        {"rope_scaling": {**YARN, "type": "yarn"}},
        {"rope_scaling": {**YARN, "beta_fast": None, "attention_factor": None}},
        {"rope_theta": ..., "rope_parameters": {**YARN, "rope_theta": 3e5}},
        {"rope_scaling": YARN, "rope_parameters": {**YARN, "rope_theta": 3e5}},
        {"rope_scaling": YARN, "rope_parameters": {"rope_theta": 3e5}},
        {
            "rope_scaling": {**YARN, "original_max_position_embeddings": ...},
            "original_max_position_embeddings": 32,
        },
    ],
)
def test_yarn_is_read_in_every_spelling(tmp_path, changes):
    for key, value in changes.items():
        if isinstance(value, dict):
            changes[key] = {k: v for k, v in value.items() if v is not ...}
    assert read(tmp_path, DENSE | changes) == CONFIGS["yarn"]


def test_absent_keys_mean_what_they_mean_to_the_published_classes(tmp_path):
    optional = ("max_position_embeddings", "rms_norm_eps", "tie_word_embeddings", "head_dim")
    dense = read(tmp_path, DENSE | dict.fromkeys(optional, ...))
    assert (dense.max_position_embeddings, dense.rms_norm_eps) == (32768, 1e-6)
    assert (dense.tie_word_embeddings, dense.head_dim) == (False, 128)
    more = ("num_experts_per_tok", "norm_topk_prob", "decoder_sparse_step", "mlp_only_layers")
    experts = read(tmp_path, MOE | dict.fromkeys((*optional, *more), ...) | {"num_experts": 9})
    assert experts.head_dim == 32 // 4
    assert (experts.num_experts_per_tok, experts.norm_topk_prob) == (8, False)
    assert (experts.decoder_sparse_step, experts.mlp_only_layers) == (1, ())
    assert read(tmp_path, MOE | {"mlp_only_layers": None}).mlp_only_layers == ()


def test_number_of_experts_is_read_in_both_spellings(tmp_path):
    assert read(tmp_path, MOE | {"num_experts": ..., "num_local_experts": 6}).num_experts == 6
    assert read(tmp_path, MOE | {"num_local_experts": 6}).num_experts == 6
    assert read(tmp_path, DENSE | EXPERTS).num_experts == 0  # not of a dense model


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "llama"}, "unknown model_type 'llama'; known: qwen3, qwen3_moe"),
        ({"model_type": "qwen2"}, "did you mean 'qwen3'?"),
        ({"model_type": ...}, "unknown model_type 'None'"),
        ({"model_type": ["qwen3"]}, "unknown model_type"),
        ({"model_type": "x" * 10**6}, "unknown model_type 'xxx"),
        ({"rope_theta": ...}, r"must give one rope_theta; it gives \[\]"),
        ({"rope_theta": "1e6"}, "rope_theta of Qwen3's config is '1e6'; it must be a number"),
        ({"rope_theta": [1e6]}, "rope_theta of Qwen3's config"),
        ({"rope_parameters": {"rope_theta": 2e4}}, r"rope_theta; it gives \[300000.0, 20000.0\]"),
        ({"rope_parameters": {"rope_type": "llama3"}}, "of type 'llama3'; known: default, yarn"),
        ({"rope_parameters": {"mrope_section": [1]}}, "has 'mrope_section', which plain RoPE"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "a partial_rotary_factor"),
        ({"rope_scaling": "yarn"}, "rope_scaling is yarn; it must be an object or null"),
        ({"rope_scaling": {"rope_type": "yarn"}}, "rope_scaling of Qwen3's config needs .* factor"),
        ({"rope_scaling": {**YARN, "factor": 0.5}}, "factor of rope_scaling is 0.5"),
        ({"rope_scaling": {**YARN, "mscale": 1.0}}, "unknown field .*'mscale'"),
        (
            {"rope_scaling": YARN, "rope_parameters": {**YARN, "factor": 2.0}},
            "rope_parameters and rope_scaling differ",
        ),
        ({"quantization_config": {"quant_method": "fp8"}}, "sets quantization_config to"),
        ({"dual_chunk_attention_config": {}}, "sets dual_chunk_attention_config to"),
        ({"use_sliding_window": True}, "sets use_sliding_window to True"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "sets layer_types to"),
        ({"layer_types": 3}, "sets layer_types to 3"),
        ({"attention_bias": True}, "sets attention_bias to True"),
        ({"qkv_bias": True}, "sets qkv_bias to True"),
        ({"use_qk_norm": False}, "sets use_qk_norm to False"),
        ({"shared_expert_intermediate_size": 64}, "sets shared_expert_intermediate_size to 64"),
        ({"hidden_act": "gelu"}, "sets hidden_act to gelu"),
        ({"partial_rotary_factor": 0.25}, "sets partial_rotary_factor to 0.25"),
        ({"hidden_size": ...}, "needs a value for hidden_size"),
        ({"hidden_size": "32"}, "hidden_size of Qwen3's config is '32'"),
        ({"num_key_value_heads": 3}, "num_attention_heads is 4; it must be a multiple"),
    ],
)
def test_config_of_another_kind_is_one_clear_line(tmp_path, changes, message):
    with pytest.raises(CheckpointError, match=message) as error:
        read(tmp_path, DENSE | changes)
    assert "config.json" in str(error.value) and len(str(error.value)) < 500
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_experts": ...}, r"must give one num_experts; it gives \[\]"),
        ({"num_experts": 0}, "num_experts is 0 in a mixture of experts"),
        ({"num_local_experts": 8}, r"must give one num_experts; it gives \[6, 8\]"),
        ({"moe_intermediate_size": ...}, "moe_intermediate_size is 0"),
        ({"num_experts": True}, "it must be a whole number"),
        ({"num_attention_heads": 0, "head_dim": ...}, "num_attention_heads is 0"),
    ],
)
def test_mixture_that_makes_no_sense_is_one_clear_line(tmp_path, changes, message):
    with pytest.raises(CheckpointError, match=message):
        read(tmp_path, MOE | changes)
