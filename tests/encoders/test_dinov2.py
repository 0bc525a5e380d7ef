"""DINOv2 against transformers: every layer, any grid, and the folders that it saves."""

from dataclasses import replace

import pytest
import torch

from mm import encoders
from mm.encoders import dinov2
from mm.errors import CheckpointError
from tests.encoders.parity import EXACT, check_folder, check_layers, ready, reference_library

SMALL = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
SMALL |= {"image_size": 45, "patch_size": 7}  # positions of 6 x 6 patches; the last pixels unseen
STATISTICS = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
CUT = {"size": {"shortest_edge": 40}, "crop_size": {"height": 30, "width": 30}}


def tower(registers: bool, **changes):
    transformers = reference_library()
    if registers:
        config = transformers.Dinov2WithRegistersConfig(**SMALL, **changes)
        return ready(transformers.Dinov2WithRegistersModel(config))
    return ready(transformers.Dinov2Model(transformers.Dinov2Config(**SMALL, **changes)))


def processor():
    return reference_library().BitImageProcessor(**CUT, **STATISTICS)


@pytest.mark.parametrize("gated", [False, True], ids=["plain", "gated"])
@pytest.mark.parametrize("registers", [False, True], ids=["without", "registers"])
def test_folder_and_every_layer_match_transformers(tmp_path, registers, gated):
    model = tower(registers, use_swiglu_ffn=gated)
    encoder = check_folder(tmp_path, model, processor())
    num_registers = 4 if registers else 0
    assert encoder.config == dinov2.Config(
        **SMALL,
        use_swiglu_ffn=gated,
        num_register_tokens=num_registers,
        picture_size=30,
        shortest_edge=40,
    )
    check_layers(encoder, model)  # 4 x 4 patches, so that positions are resized


@pytest.mark.parametrize("size", [(45, 45), (45, 21), (70, 90)], ids=str)
@pytest.mark.parametrize("registers", [False, True], ids=["without", "registers"])
def test_any_grid_matches_transformers(tmp_path, registers, size):
    model = tower(registers)
    model.save_pretrained(tmp_path)
    processor().save_pretrained(tmp_path)
    check_layers(encoders.load(tmp_path), model, size)


@torch.no_grad()
def test_antialiased_positions_are_not_plain_ones():
    config = dinov2.Config(**SMALL, num_register_tokens=4, picture_size=30, shortest_edge=30)
    with_registers = ready(dinov2.Encoder(config))
    without = ready(dinov2.Encoder(replace(config, num_register_tokens=0)))
    tensors = with_registers.state_dict()
    del tensors["embeddings.register_tokens"]
    without.load_state_dict(tensors)
    pixels = torch.randn(1, 3, 30, 30, generator=torch.Generator().manual_seed(0))
    patches = with_registers.embeddings(pixels)[:, 5:], without.embeddings(pixels)[:, 1:]
    assert not torch.allclose(*patches, **EXACT)


def test_network_of_another_kind_is_one_clear_line(tmp_path):
    tower(registers=False, qkv_bias=False).save_pretrained(tmp_path)
    processor().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="qkv_bias is False; this encoder does True only"):
        encoders.load(tmp_path)


def test_less_than_a_patch_is_refused():
    encoder = dinov2.Encoder(dinov2.Config(**SMALL, picture_size=30, shortest_edge=30))
    with pytest.raises(ValueError, match=r"\(1, 3, 6, 30\); this encoder needs \[B, 3, 30, 30\]"):
        encoder(torch.zeros(1, 3, 6, 30))
