"""DINOv3 against transformers: every layer, any grid, and the folders that it saves."""

import pytest
import torch

from mm import encoders
from mm.encoders import dinov3
from mm.errors import CheckpointError
from tests.encoders.parity import check_folder, check_layers, ready, reference_library

SMALL = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2}
SMALL |= {"num_attention_heads": 2, "image_size": 38, "patch_size": 7}
KINDS = {
    "plain": {"num_register_tokens": 4},
    "gated": {"num_register_tokens": 4, "use_gated_mlp": True, "hidden_act": "silu"},
    "key bias, no registers": {"key_bias": True, "value_bias": False},
}


def tower(**changes):
    transformers = reference_library()
    return ready(transformers.DINOv3ViTModel(transformers.DINOv3ViTConfig(**SMALL, **changes)))


@pytest.mark.parametrize("kind", KINDS)
def test_folder_and_every_layer_match_transformers(tmp_path, kind):
    model = tower(**KINDS[kind])
    # Left to itself, it does not take pictures with alpha or a palette.
    processor = reference_library().DINOv3ViTImageProcessor(
        size={"height": 30, "width": 30}, do_convert_rgb=True
    )
    encoder = check_folder(tmp_path, model, processor)
    assert encoder.config == dinov3.Config(**SMALL, **KINDS[kind], picture_size=30)
    check_layers(encoder, model)
    check_layers(encoder, model, (52, 21))


def test_processor_that_resizes_eight_bits_is_refused(tmp_path):
    tower().save_pretrained(tmp_path)
    size = {"height": 38, "width": 38}
    reference_library().SiglipImageProcessor(size=size).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="SiglipImageProcessor, which resizes otherwise"):
        encoders.load(tmp_path)


def test_heads_that_cannot_turn_are_refused():
    with pytest.raises(ValueError, match="gives heads of 6; rotary positions"):
        dinov3.Config(hidden_size=24, num_attention_heads=4)


def test_rotations_do_not_depend_on_the_grid_but_on_the_place():
    cos, _ = dinov3.rotations((3, 5), 8, 100.0, torch.device("cpu"))
    small, _ = dinov3.rotations((1, 1), 8, 100.0, torch.device("cpu"))
    torch.testing.assert_close(cos[7], small[0])  # the middle of either
