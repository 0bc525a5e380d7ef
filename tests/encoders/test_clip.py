"""CLIP against transformers: every layer, and the folders that it saves with hard pictures."""

import json

import pytest
import torch

from mm import encoders
from mm.encoders import clip
from mm.errors import CheckpointError
from tests.encoders.parity import check_folder, check_layers, ready, reference_library

SMALL = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2}
SMALL |= {"num_attention_heads": 2, "image_size": 38, "patch_size": 7}  # the last pixels are unseen
WORDS = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 1, "vocab_size": 50}
WORDS |= {"num_attention_heads": 2, "bos_token_id": 1, "eos_token_id": 2}
CUT = {"size": {"shortest_edge": 40}, "crop_size": {"height": 38, "width": 38}}


def tower(**changes):
    transformers = reference_library()
    return ready(transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**SMALL, **changes)))


@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
def test_every_layer_matches_transformers(act):
    model = tower(hidden_act=act)
    encoder = clip.Encoder(clip.Config(**SMALL, hidden_act=act, shortest_edge=38)).eval()
    encoder.load_state_dict(model.state_dict())
    check_layers(encoder, model)


def test_folder_of_a_tower_gives_its_pixels_and_features(tmp_path):
    encoder = check_folder(tmp_path, tower(), reference_library().CLIPImageProcessor(**CUT))
    assert encoder.config == clip.Config(**SMALL, shortest_edge=40)


def test_folder_of_a_whole_model_gives_its_tower(tmp_path):
    transformers = reference_library()
    config = transformers.CLIPConfig(vision_config=SMALL, text_config=WORDS)
    model = transformers.CLIPModel(config).eval()
    ready(model.vision_model)
    check_folder(tmp_path, model, transformers.CLIPImageProcessor(**CUT), model.vision_model)


def test_older_files_say_sizes_as_numbers(tmp_path):
    tower().save_pretrained(tmp_path)
    old = {"feature_extractor_type": "CLIPFeatureExtractor", "size": 38, "crop_size": 38}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**old, "do_center_crop": True}))
    assert encoders.load(tmp_path).config == clip.Config(**SMALL, shortest_edge=38)


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        ({**CUT, "crop_size": {"height": 38, "width": 36}}, "which makes no square"),
        ({"size": {"shortest_edge": 38}}, "which is no square"),
        ({**CUT, "size": {"shortest_edge": 30}}, "shortest_edge is 30; the square of 38"),
        ({"size": 40, "crop_size": 40}, "config.json has image_size 38: they must agree"),
        ({**CUT, "do_pad": True}, "switches on do_pad"),
        ({**CUT, "image_processor_type": "DINOv3ViTImageProcessor"}, "resizes otherwise"),
    ],
)
def test_preprocessing_that_clip_does_not_do_is_one_clear_line(tmp_path, pictures, message):
    tower().save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(pictures))
    with pytest.raises(CheckpointError, match=message) as error:
        encoders.load(tmp_path)
    assert "\n" not in str(error.value)


def test_picture_too_narrow_to_be_cut_is_refused():
    encoder = clip.Encoder(clip.Config(**SMALL, shortest_edge=38))
    with pytest.raises(ValueError, match="1 x 60000 would be enlarged to 38 x 2280000"):
        encoder.preprocess([torch.zeros(3, 60_000, 1, dtype=torch.uint8)])


def test_every_parameter_is_drawn_by_the_generator_alone():
    encoder = clip.Encoder(clip.Config(**SMALL, shortest_edge=38))
    states = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        with torch.no_grad():
            for parameter in encoder.parameters():
                parameter.normal_()
        encoder.init_weights(torch.Generator().manual_seed(3))
        states.append({name: tensor.clone() for name, tensor in encoder.state_dict().items()})
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
