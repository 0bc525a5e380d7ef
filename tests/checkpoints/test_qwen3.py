"""Published Qwen3 folders, as transformers saves them and as the original files spell them."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from mm.checkpoints import store
from mm.checkpoints.qwen3 import NAMES, load_qwen3
from mm.errors import CheckpointError
from tests.conftest import redraw

EXACT = {"atol": 2e-5, "rtol": 1e-4}


@pytest.fixture
def tensors(tiny_decoder) -> dict[str, torch.Tensor]:
    state = tiny_decoder.state_dict()
    return {name: tensor.clone() for name, tensor in state.items() if name != "lm_head.weight"}


def published(decoder_config, **changes) -> dict[str, object]:
    """A config.json as the original files have it, keys that change nothing included."""
    config = {
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 151643,
        "hidden_act": "silu",
        "max_window_layers": 28,
        "model_type": "qwen3",
        "rope_scaling": None,
        "sliding_window": None,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "use_sliding_window": False,
        **asdict(decoder_config),
        **changes,
    }
    return {key: value for key, value in config.items() if value is not ...}


def write(directory: Path, config: dict, tensors: dict[str, torch.Tensor], **options) -> Path:
    store.save_tensors(tensors, directory, **options)
    (directory / "config.json").write_text(json.dumps(config))
    return directory


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("max_shard_size", ["1GB", "10KB"])
@torch.no_grad()
def test_folder_that_transformers_saved_gives_its_logits(
    tmp_path, decoder_config, tied, max_shard_size
):
    transformers = pytest.importorskip("transformers", reason="the reference is not installed")
    values = asdict(decoder_config) | {"tie_word_embeddings": tied}
    theta = values.pop("rope_theta")
    config = transformers.Qwen3Config(
        **values, rope_parameters={"rope_type": "default", "rope_theta": theta}
    )
    reference = transformers.Qwen3ForCausalLM(config).eval()
    redraw(reference)
    reference.save_pretrained(tmp_path, max_shard_size=max_shard_size)
    decoder = load_qwen3(tmp_path)
    assert decoder.config.rope_theta == theta
    assert (decoder.lm_head.weight is decoder.model.embed_tokens.weight) == tied
    ids = torch.arange(13)[None] * 7
    torch.testing.assert_close(decoder(ids), reference(ids).logits, **EXACT)


@pytest.mark.parametrize(
    ("tied", "stored", "shared"),
    [
        (True, None, True),
        (True, "equal", True),
        (True, "different", False),
        (False, "equal", False),
        (False, "different", False),
        (False, None, None),
    ],
)
def test_head_that_is_stored_wins_else_it_is_tied_else_missing(
    tmp_path, decoder_config, tensors, tied, stored, shared
):
    embedding = tensors["model.embed_tokens.weight"]
    if stored:
        tensors["lm_head.weight"] = embedding.clone() if stored == "equal" else embedding + 1
    folder = write(tmp_path, published(decoder_config, tie_word_embeddings=tied), tensors)
    if shared is None:
        with pytest.raises(CheckpointError, match="has no lm_head.weight, and its config does not"):
            load_qwen3(folder)
        return
    decoder = load_qwen3(folder)
    assert (decoder.lm_head.weight is decoder.model.embed_tokens.weight) == shared
    assert decoder.config.tie_word_embeddings == shared
    assert torch.equal(decoder.lm_head.weight, tensors.get("lm_head.weight", embedding))


def test_computed_frequencies_in_old_files_are_left_out(tmp_path, decoder_config, tensors):
    tensors["model.rotary_emb.inv_freq"] = torch.ones(8)
    decoder = load_qwen3(write(tmp_path, published(decoder_config), tensors))
    assert decoder.model.rotary_emb.inv_freq[1] != 1


def test_dtype_is_the_stored_one_unless_asked(tmp_path, decoder_config, tensors):
    half = {name: tensor.to(torch.bfloat16) for name, tensor in tensors.items()}
    folder = write(tmp_path, published(decoder_config), half)
    assert load_qwen3(folder).lm_head.weight.dtype == torch.bfloat16
    assert load_qwen3(folder, dtype=torch.float32).lm_head.weight.dtype == torch.float32


def test_config_defaults_are_those_of_the_published_class(tmp_path, decoder_config, tensors):
    config = published(decoder_config, tie_word_embeddings=..., rms_norm_eps=...)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    decoder = load_qwen3(write(tmp_path, config, tensors))
    assert decoder.config.rms_norm_eps == 1e-6 and not decoder.config.tie_word_embeddings


@pytest.mark.parametrize(
    ("changes", "theta"),
    [
        ({}, 1e4),
        ({"rope_theta": 5000000}, 5e6),
        ({"rope_theta": ..., "rope_parameters": {"rope_type": "default", "rope_theta": 3e5}}, 3e5),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}, 1e4),
    ],
)
def test_both_spellings_of_rope_theta_are_read(tmp_path, decoder_config, tensors, changes, theta):
    folder = write(tmp_path, published(decoder_config, **changes), tensors)
    assert load_qwen3(folder).config.rope_theta == theta


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "qwen2"}, "has model_type 'qwen2'; this reads 'qwen3'"),
        ({"model_type": ...}, "has model_type None"),
        ({"rope_theta": ...}, r"must give one rope_theta; it gives \[\]"),
        ({"rope_parameters": {"rope_theta": 2e4}}, r"it gives \[10000.0, 20000.0\]"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "RoPE of type 'yarn'"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "sets rope_scaling to"),
        ({"quantization_config": {"quant_method": "fp8"}}, "sets quantization_config to"),
        ({"use_sliding_window": True}, "sets use_sliding_window to True"),
        ({"attention_bias": True}, "sets attention_bias to True"),
        ({"hidden_act": "gelu"}, "sets hidden_act to gelu"),
        ({"hidden_size": ...}, "needs a value for hidden_size"),
        ({"hidden_size": "32"}, "hidden_size of Qwen3's config is '32'"),
        ({"head_dim": ...}, r"18 of another shape: .*q_proj.weight"),
    ],
)
def test_config_of_another_kind_is_one_clear_line(
    tmp_path, decoder_config, tensors, changes, message
):
    folder = write(tmp_path, published(decoder_config, **changes), tensors)
    with pytest.raises(CheckpointError, match=message) as error:
        load_qwen3(folder)
    assert "\n" not in str(error.value)


def test_tensors_that_are_missing_or_too_many_are_listed(tmp_path, decoder_config, tensors):
    del tensors["model.norm.weight"], tensors["model.embed_tokens.weight"]
    tensors["model.layers.0.self_attn.q_proj.bias"] = torch.zeros(64)
    folder = write(tmp_path, published(decoder_config), tensors)
    with pytest.raises(
        CheckpointError,
        match="2 missing: model.embed_tokens.*, model.norm.weight; 1 unexpected: .*q_proj.bias",
    ):
        load_qwen3(folder)


def test_names_read_both_ways(tiny_decoder):
    for name in tiny_decoder.state_dict():
        assert NAMES.ours(NAMES.published(name)) == name and not NAMES.is_ignored(name)
