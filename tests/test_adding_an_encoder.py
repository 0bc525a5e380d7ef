"""The encoder of docs/adding-an-encoder.md, added as the page says: one file and one YAML."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from mm import encoders
from mm.report.describe import describe

PAGE = Path(__file__).resolve().parents[1] / "docs/adding-an-encoder.md"


def block(language: str) -> str:
    (text,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text("utf-8"), re.M | re.S)
    return str(text)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, object]]:
    (tmp_path / "foo.py").write_text(block("python"), encoding="utf-8")
    encoders.__path__.append(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mm.encoders.foo", raising=False)
    yield OmegaConf.to_container(OmegaConf.create(block("yaml")))
    encoders.__path__.remove(str(tmp_path))


def test_page_adds_an_encoder(config: dict[str, object]) -> None:
    assert "foo" in encoders.names()
    encoder = encoders.build(**config)
    encoder.init_weights(torch.Generator().manual_seed(0))
    pictures = [Image.new("RGB", (30, 20), "red"), Image.new("RGB", (200, 300), "blue")]
    for tokens, grid in encoder.encode(pictures):
        assert grid == (4, 4)
        assert tokens.shape == (16, encoder.hidden_size) == (16, 32)
    assert encoders.name_of(type(encoder)) == "foo"


def test_added_encoder_fits_a_model(config: dict[str, object]) -> None:
    decoder = {
        "vocab_size": 10,
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 4,
    }
    parts = {
        "encoder": config,
        "projector": {"name": "linear", "config": {"input_size": 32, "output_size": 8}},
        "decoder": {"name": "qwen3", "config": decoder},
    }
    assert describe(parts).num_image_tokens == 16


def test_added_encoder_checks_its_config(config: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="image_size 65 is no multiple of patch_size 16"):
        encoders.build("foo", {"image_size": 65})
