"""InternViT against transformers: every layer, any grid, and both published layouts."""

import json

import pytest
import torch

from mm import encoders
from mm.checkpoints import store
from mm.encoders import internvit
from mm.errors import CheckpointError
from tests.encoders.parity import check_folder, check_layers, ready, reference_library

SMALL = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2}
SMALL |= {"num_attention_heads": 2, "image_size": 38, "patch_size": 7}
KINDS = {
    "300m": {"attention_bias": True},
    "6b": {"use_qk_norm": True, "norm_type": "rms_norm", "layer_norm_eps": 1e-5},
}
STATISTICS = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
CUT = {"feature_extractor_type": "CLIPFeatureExtractor", "do_center_crop": True, "size": 38}
CUT |= {"crop_size": 38, "resample": 3, **STATISTICS}


def tower(**changes):
    transformers = reference_library()
    return ready(
        transformers.InternVLVisionModel(transformers.InternVLVisionConfig(**SMALL, **changes))
    )


@pytest.mark.parametrize("kind", KINDS)
def test_folder_and_every_layer_match_transformers(tmp_path, kind):
    model = tower(**KINDS[kind])
    processor = reference_library().GotOcr2ImageProcessor(
        size={"height": 38, "width": 38}, **STATISTICS
    )
    encoder = check_folder(tmp_path, model, processor)
    assert encoder.config == internvit.Config(**SMALL, **KINDS[kind], picture_size=38)
    check_layers(encoder, model)
    check_layers(encoder, model, (35, 52))


def test_layout_of_the_original_towers_is_read_and_cuts_its_pictures(tmp_path):
    encoder = ready(internvit.Encoder(internvit.Config(**SMALL, attention_bias=True)))
    store.save_tensors(encoder.state_dict(), tmp_path)
    config = {"model_type": "intern_vit_6b", "qkv_bias": True, "qk_normalization": False, **SMALL}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(CUT))
    loaded = encoders.load(tmp_path)
    assert all(torch.equal(t, encoder.state_dict()[n]) for n, t in loaded.state_dict().items())
    assert loaded.config.shortest_edge == 38 and loaded.config.attention_bias
    assert loaded.views(100, 2000) == ((5, 5),)


def test_names_of_transformers_are_all_its_tensors():
    for changes in KINDS.values():
        encoder = internvit.Encoder(internvit.Config(**SMALL, **changes))
        theirs = [n for name in encoder.state_dict() for n in internvit.transformers_names(name)]
        assert sorted(theirs) == sorted(tower(**changes).state_dict())


def test_tensors_that_fit_neither_layout_are_listed(tmp_path):
    model = tower(attention_bias=True)
    model.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(CUT))
    tensors = dict(store.load_tensors(tmp_path))
    del tensors["encoder.layer.1.attention.k_proj.bias"]
    store.save_tensors({**tensors, "layernorm.bias": torch.zeros(24)}, tmp_path)
    with pytest.raises(
        CheckpointError, match=r"1 missing: encoder.layer.1.attention.k_proj.bias; 1 unexpected"
    ):
        encoders.load(tmp_path)


def test_final_norm_is_refused():
    with pytest.raises(ValueError, match="use_final_norm of encoder 'internvit' is True"):
        encoders.build("internvit", {"use_final_norm": True})
