"""Published SigLIP folders: whole models and towers, both prefixes, their preprocessing."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from mm import encoders
from mm.checkpoints import store
from mm.checkpoints.vision import load_vision, names_of, read_config
from mm.encoders.siglip import Config, Encoder
from mm.errors import CheckpointError
from tests.conftest import redraw

EXACT = {"atol": 2e-5, "rtol": 1e-4}
PUBLISHED = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "image_size",
    "patch_size",
    "layer_norm_eps",
    "hidden_act",
)
PICTURES = {
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
    "resample": 2,
    "rescale_factor": 0.00392156862745098,
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.5, 0.6, 0.7],
    "size": {"height": 32, "width": 32},
    "image_processor_type": "SiglipImageProcessor",
}


def tower(config: Config, **changes) -> dict[str, object]:
    fields = {name: asdict(config)[name] for name in PUBLISHED}
    return {"model_type": "siglip_vision_model", **fields, **changes}


def write(directory: Path, config: dict, tensors: dict, pictures: dict | None = None) -> Path:
    store.save_tensors(tensors, directory)
    (directory / "config.json").write_text(json.dumps(config))
    text = json.dumps({**PICTURES, **(pictures or {})})
    (directory / "preprocessor_config.json").write_text(text)
    return directory


@pytest.fixture
def tensors(tiny_encoder) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in tiny_encoder.state_dict().items()}


@pytest.mark.parametrize("whole", [True, False], ids=["whole model", "tower"])
@torch.no_grad()
def test_folder_that_transformers_saved_gives_its_features(tmp_path, encoder_config, whole):
    transformers = pytest.importorskip("transformers", reason="the reference is not installed")
    fields = {name: asdict(encoder_config)[name] for name in PUBLISHED}
    vision = transformers.SiglipVisionConfig(**fields)
    if whole:
        words = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 1}
        words |= {"num_attention_heads": 2, "vocab_size": 50, "projection_size": 24}
        config = transformers.SiglipConfig(vision_config=vision.to_dict(), text_config=words)
        saved = transformers.SiglipModel(config).eval()
        reference = saved.vision_model
    else:
        saved = reference = transformers.SiglipVisionModel(vision).eval()
    redraw(saved)
    saved.save_pretrained(tmp_path)
    processor = transformers.SiglipImageProcessor(size={"height": 32, "width": 32}, resample=2)
    processor.save_pretrained(tmp_path)
    encoder = encoders.load(tmp_path)
    image = Image.linear_gradient("L").convert("RGB").resize((70, 45))
    pixels = processor(image, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(encoder.preprocess([image]).pixel_values, pixels, atol=1e-5, rtol=0)
    expected = reference(pixel_values=pixels).last_hidden_state
    torch.testing.assert_close(encoder(pixels), expected, **EXACT)
    assert encoder.encode([image])[0][1] == ((4, 4),)


@pytest.mark.parametrize("prefix", ["", "vision_model."])
def test_both_prefixes_are_read_and_the_rest_of_the_model_left_out(
    tmp_path, encoder_config, tensors, prefix
):
    stored = {prefix + name: tensor for name, tensor in tensors.items()}
    stored[prefix + "head.probe"] = torch.zeros(1, 1, 24)
    stored[prefix + "embeddings.position_ids"] = torch.arange(16)[None]
    stored |= {"text_model.final_layer_norm.bias": torch.zeros(3), "logit_scale": torch.ones(1)}
    encoder = load_vision(write(tmp_path, tower(encoder_config), stored), Encoder)
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, tensors[name])
    assert encoder.config.resample == "bilinear" and encoder.config.image_std == (0.5, 0.6, 0.7)


def test_nested_config_is_filled_with_the_class_defaults(tmp_path):
    # As the published base model at 224 px: vision_config lists its model_type only.
    config = {"model_type": "siglip", "vision_config": {"model_type": "siglip_vision_model"}}
    size = {"size": {"height": 224, "width": 224}, "resample": 3}
    half = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    folder = write(tmp_path, config, {"x": torch.zeros(1)}, {**size, **half})
    assert read_config(folder, Encoder) == Config()


def test_an_unknown_tensor_is_never_left_out_silently(tmp_path, encoder_config, tensors):
    tensors["head2.weight"] = torch.zeros(1)
    with pytest.raises(CheckpointError, match="1 unexpected: head2.weight"):
        load_vision(write(tmp_path, tower(encoder_config), tensors), Encoder)


@pytest.mark.parametrize(
    ("config", "pictures", "message"),
    [
        ({"model_type": "siglip3"}, {}, "unknown vision model_type 'siglip3'.*'siglip2?'"),
        ({"hidden_act": "relu"}, {}, "hidden_act of the config is 'relu'"),
        ({"hidden_size": 25}, {}, "hidden_size 25 is no multiple"),
        ({"image_size": 64}, {}, "config.json has image_size 64: they must agree"),
        ({}, {"resample": 1}, "resample 1; known: 2 and 3"),
        ({}, {"do_rescale": False}, "switches off do_rescale"),
        ({}, {"rescale_factor": 1.0}, "rescale_factor other than 1/255"),
        ({}, {"size": {"shortest_edge": 32}}, "resizes to {'shortest_edge': 32}"),
        ({}, {"image_mean": [0.5]}, "image_mean has 1 and image_std 3 values"),
    ],
)
def test_config_that_siglip_does_not_do_is_one_clear_line(
    tmp_path, encoder_config, tensors, config, pictures, message
):
    folder = write(tmp_path, tower(encoder_config, **config), tensors, pictures)
    with pytest.raises(CheckpointError, match=message) as error:
        encoders.load(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_missing_file_is_named(tmp_path, encoder_config, tensors, name):
    folder = write(tmp_path, tower(encoder_config), tensors)
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        encoders.load(folder)


def test_names_read_both_ways(tiny_encoder):
    names = names_of(Encoder.published)
    for name in tiny_encoder.state_dict():
        assert names.published(name) == "vision_model." + name
        assert names.ours(names.published(name)) == name == names.ours(name)
        assert not names.is_ignored(name)


def test_loaded_encoder_keeps_its_dtype_or_takes_another(tmp_path, encoder_config, tensors):
    half = {name: tensor.to(torch.bfloat16) for name, tensor in tensors.items()}
    folder = write(tmp_path, tower(replace(encoder_config)), half)
    assert load_vision(folder, Encoder).post_layernorm.weight.dtype == torch.bfloat16
    assert (
        load_vision(folder, Encoder, dtype=torch.float32).post_layernorm.weight.dtype
        == torch.float32
    )
