"""AIMv2 against transformers: every layer, the native kind, and the folders that it saves."""

import pytest
import torch

from mm.encoders import aimv2
from tests.encoders.parity import check_folder, check_layers, ready, reference_library

SMALL = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2}
SMALL |= {"num_attention_heads": 2, "image_size": 38, "patch_size": 7}
WORDS = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 1, "vocab_size": 50}
WORDS |= {"num_attention_heads": 2, "eos_token_id": 2}
CUT = {"size": {"shortest_edge": 40}, "crop_size": {"height": 38, "width": 38}}
KINDS = {
    "learned": {},
    "native": {"is_native": True},
    "biases": {"qkv_bias": True, "mlp_bias": True},
}


@pytest.mark.parametrize("kind", KINDS)
def test_folder_and_every_layer_match_transformers(tmp_path, kind):
    transformers = reference_library()
    config = transformers.Aimv2VisionConfig(**SMALL, **KINDS[kind])
    model = ready(transformers.Aimv2VisionModel(config))
    encoder = check_folder(tmp_path, model, transformers.CLIPImageProcessor(**CUT))
    assert encoder.config == aimv2.Config(**SMALL, **KINDS[kind], shortest_edge=40)
    check_layers(encoder, model)
    if kind == "native":
        check_layers(encoder, model, (35, 52))


def test_folder_of_a_whole_model_gives_its_tower(tmp_path):
    transformers = reference_library()
    model = transformers.Aimv2Model(
        transformers.Aimv2Config(vision_config=SMALL, text_config=WORDS)
    ).eval()
    ready(model.vision_model)
    check_folder(tmp_path, model, transformers.CLIPImageProcessor(**CUT), model.vision_model)


def test_learned_positions_are_of_one_size():
    encoder = aimv2.Encoder(aimv2.Config(**SMALL, shortest_edge=38))
    with pytest.raises(ValueError, match=r"\(1, 3, 35, 52\); this encoder needs \[B, 3, 38, 38\]"):
        encoder(torch.zeros(1, 3, 35, 52))
