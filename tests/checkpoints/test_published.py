"""Which model a folder holds; what is none is one clear line."""

import json

import pytest

from mm.checkpoints.published import format_of, load_encoder
from mm.errors import CheckpointError
from tests import tiny_model


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({"format": "mm", "version": 1}, "mm"),
        ({"model_type": "qwen3", "hidden_size": 32}, "text"),
        ({"model_type": "qwen3_moe"}, "text"),
        ({"model_type": "internvl"}, "vlm"),
        ({"model_type": "internvl_chat"}, "vlm"),
    ],
)
def test_format_is_told_by_the_config(tmp_path, config, found):
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert format_of(tmp_path) == found


def test_own_checkpoint_is_told(tmp_path):
    assert format_of(tiny_model.save(tmp_path / "model")) == "mm"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "llama"}, "unknown model_type 'llama'; known: internvl.*qwen3"),
        ({"model_type": "siglip"}, "is a vision encoder's .siglip., which says no words"),
        ({"model_type": ["qwen3"]}, "unknown model_type"),
        ({"peft_type": "LORA"}, "has neither a format nor a model_type: it is no model's"),
        ([], "is not a JSON object"),
    ],
)
def test_another_model_is_one_clear_line(tmp_path, config, message):
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=message) as error:
        format_of(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("read", [format_of, load_encoder])
def test_no_model_at_all_is_one_clear_line(tmp_path, read):
    with pytest.raises(CheckpointError, match="nowhere does not exist: check the path"):
        read(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="has no config.json"):
        read(tmp_path)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(CheckpointError, match="model.safetensors is not a folder"):
        read(tmp_path / "model.safetensors")
