"""Backbones of timm: features and pixels of the same picture files, buffers, names."""

import json
import sys

import pytest
import torch

from mm import encoders
from mm.encoders import pixels
from mm.errors import CheckpointError, UsageError
from mm.privacy.door import open_image
from tests.encoders.parity import EXACT, picture_files

NAMES = {
    "vit_tiny_patch16_224": (192, 14, 1),
    "resnet10t": (512, 6, 0),
    "convnext_atto": (320, 7, 0),
    "eva02_tiny_patch14_224": (192, 16, 1),  # rotary positions, which no checkpoint stores
    "swin_tiny_patch4_window7_224": (768, 7, 0),
}


@pytest.fixture
def timm():
    return pytest.importorskip("timm", reason="timm, an extra, is not installed")


def drawn(name: str, **config):
    encoder = encoders.build("timm", {"model": name, **config}).eval()
    encoder.init_weights(torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.ndim < 2:
                noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
                parameter.add_(0.2 * noise)
    return encoder


def reference(timm, encoder, name: str):
    model = timm.create_model(name, num_classes=0).eval()
    tensors = encoder.state_dict()
    model.load_state_dict({key.removeprefix("backbone."): t for key, t in tensors.items()})
    return model


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_same_files_give_the_features_of_timm(timm, tmp_path, name):
    width, side, num_prefix = NAMES[name]
    encoder = drawn(name)
    model = reference(timm, encoder, name)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    pictures = [open_image(path) for path in picture_files(tmp_path)]
    expected = torch.stack([transform(picture) for picture in pictures])
    assert torch.equal(encoder.preprocess(pictures).pixel_values, expected)
    features = model.forward_features(expected[:3])
    if features.ndim == 4:  # a map, with the channels last in Swin
        features = features if features.shape[-1] == width else features.permute(0, 2, 3, 1)
        features = features.flatten(1, 2)
    for (tokens, (grid,)), one in zip(encoder.encode(pictures[:3]), features, strict=True):
        assert grid == (side, side) and tokens.shape == (side * side, width)
        torch.testing.assert_close(tokens, one[num_prefix:], **EXACT)


@torch.no_grad()
def test_any_block_and_the_prefix_are_given_as_configured(timm):
    name = "vit_tiny_patch16_224"
    encoder = drawn(name)
    model = reference(timm, encoder, name)
    batch = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(2))
    for layer, use_final_norm in ((1, False), (-2, False), (-1, True), (3, True)):
        fields = {"feature_layer": layer, "use_final_norm": use_final_norm, "keep_prefix": True}
        one = encoders.build("timm", {"model": name, **fields}).eval()
        one.load_state_dict(encoder.state_dict())
        x = model.norm_pre(model._pos_embed(model.patch_embed(batch)))
        for block in model.blocks[: layer if layer > 0 else layer + 13]:
            x = block(x)
        expected = model.norm(x) if use_final_norm else x
        assert one.num_prefix_tokens == 1
        torch.testing.assert_close(one(batch), expected, **EXACT)


@torch.no_grad()
def test_made_without_memory_it_has_what_no_checkpoint_stores(timm):
    name = "eva02_tiny_patch14_224"
    encoder = drawn(name)
    with torch.device("meta"):
        empty = encoders.build("timm", {"model": name}).eval()
    empty.load_state_dict(encoder.state_dict(), assign=True)
    batch = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(empty(batch), encoder(batch), **EXACT)


@torch.no_grad()
def test_neighbours_do_not_change_a_picture_in_training(timm):
    encoder = drawn("resnet10t").train()
    batch = torch.randn(3, 3, 176, 176, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(encoder(batch)[:1], encoder(batch[:1]), **EXACT)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "convnext_atto"])
@torch.no_grad()
def test_folder_that_timm_saved_is_read(timm, tmp_path, name):
    model = timm.create_model(name, num_classes=10).eval()
    timm.models.save_for_hf(model, tmp_path, safe_serialization=True)
    encoder = encoders.load(tmp_path)
    tensors = model.state_dict()
    for key, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, tensors[key.removeprefix("backbone.")])
    batch = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(2))
    features = model.forward_features(batch)
    expected = features[:, 1:] if features.ndim == 3 else features.flatten(2).mT
    torch.testing.assert_close(encoder(batch), expected, **EXACT)


def test_folder_of_a_changed_model_is_refused(tmp_path):
    config = {"architecture": "resnet10t", "pretrained_cfg": {}, "model_args": {"depth": 3}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="model_args"):
        encoders.load(tmp_path)


def test_config_says_what_timm_says_and_makes_the_same_again(timm):
    config = encoders.build("timm", {"model": "convnext_atto"}).config
    assert (config.image_size, config.resample, config.crop_pct) == (224, "bicubic", 0.875)
    again = encoders.build("timm", {k: v for k, v in vars(config).items()})
    assert again.config == config
    larger = encoders.build("timm", {"model": "vit_tiny_patch16_224", "image_size": 256})
    assert larger.views(5, 5) == ((16, 16),)


def test_what_features_do_not_come_from_is_not_trained(timm):
    encoder = encoders.build("timm", {"model": "convnext_atto"})
    left = {name for name, p in encoder.named_parameters() if not p.requires_grad}
    assert left == {"backbone.head.norm.weight", "backbone.head.norm.bias"}
    with torch.device("meta"):
        early = encoders.build("timm", {"model": "vit_tiny_patch16_224", "feature_layer": 11})
    left = {name for name, p in early.named_parameters() if not p.requires_grad}
    assert left and all(name.startswith("backbone.blocks.11.") for name in left)


def test_feature_that_the_backbone_does_not_give_is_refused(timm):
    with torch.device("meta"):
        with pytest.raises(UsageError, match="hiera_tiny_224 cannot .*change use_final_norm"):
            encoders.build("timm", {"model": "hiera_tiny_224"})
        without = encoders.build("timm", {"model": "hiera_tiny_224", "use_final_norm": False})
    assert without.views(5, 5) == ((7, 7),)


def test_unknown_model_is_one_line(timm):
    with pytest.raises(UsageError, match="timm has no model 'resnet10x'; did you mean resnet10t"):
        encoders.build("timm", {"model": "resnet10x"})


def test_missing_library_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UsageError, match="needs the library timm: `pip install timm`") as error:
        encoders.build("timm", {"model": "resnet10t"})
    assert "\n" not in str(error.value)


def test_layer_zero_is_refused():
    with pytest.raises(ValueError, match="feature_layer is 0"):
        encoders.build("timm", {"model": "resnet10t", "feature_layer": 0})


def test_tensors_become_pictures():
    values = torch.arange(24, dtype=torch.uint8).view(3, 2, 4)
    assert torch.equal(pixels.to_uint8(pixels.to_picture(values)), values)


def test_width_that_the_backbone_has_not_is_refused(timm):
    with pytest.raises(UsageError, match="hidden_size is 5; .* has 512"):
        encoders.build("timm", {"model": "resnet10t", "hidden_size": 5})
