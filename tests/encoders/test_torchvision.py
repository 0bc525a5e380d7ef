"""Backbones of torchvision: features and pixels of the same picture files, nodes, names."""

import copy
import sys

import pytest
import torch
from torchvision import models

from mm import encoders
from mm.errors import UsageError
from mm.privacy.door import open_image
from tests.encoders.parity import EXACT, picture_files

NAMES = {
    "resnet18": (512, 7, "layer4"),
    "convnext_tiny": (768, 7, "features"),
    "vit_b_32": (768, 7, "encoder"),
    "swin_t": (768, 7, "permute"),
}


def drawn(name: str, **config):
    encoder = encoders.build("torchvision", {"model": name, **config}).eval()
    encoder.init_weights(torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.ndim < 2:
                noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
                parameter.add_(0.2 * noise)
    return encoder


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_same_files_give_the_features_of_torchvision(tmp_path, name):
    width, side, module = NAMES[name]
    encoder = drawn(name)
    model = models.get_model(name, weights=None).eval()
    tensors = {key.removeprefix("backbone."): t for key, t in encoder.state_dict().items()}
    left_out = model.load_state_dict(tensors, strict=False)
    assert left_out.unexpected_keys == []
    assert all(key.split(".")[0] in ("fc", "classifier", "head", "heads") for key in left_out[0])
    transform = models.get_model_weights(name).DEFAULT.transforms()
    pictures = [open_image(path) for path in picture_files(tmp_path)]
    expected = torch.stack([transform(picture) for picture in pictures])
    assert torch.equal(encoder.preprocess(pictures).pixel_values, expected)
    seen = []
    model.get_submodule(module).register_forward_hook(lambda *call: seen.append(call[2]))
    model(expected[:2])
    for index, (tokens, (grid,)) in enumerate(encoder.encode(pictures[:2])):
        assert grid == (side, side) and tokens.shape == (side * side, width)
        found = seen[0][index]
        torch.testing.assert_close(
            tokens, found[1:] if found.ndim == 2 else found.flatten(1).T, **EXACT
        )


@torch.no_grad()
def test_any_node_and_the_class_token_are_given_as_configured():
    encoder = drawn("vit_b_32", node="encoder.layers.encoder_layer_2", keep_prefix=True)
    assert encoder.num_prefix_tokens == 1 and encoder.views(3, 4) == ((7, 7),)
    batch = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(2))
    assert encoder(batch).shape == (1, 50, 768)
    middle = drawn("resnet18", node="layer3")
    assert middle.hidden_size == 256 and middle(batch).shape == (1, 14 * 14, 256)


def test_config_says_what_torchvision_says_and_makes_the_same_again():
    config = encoders.build("torchvision", {"model": "resnet18"}).config
    assert (config.image_size, config.shortest_edge, config.resample) == (224, 256, "bilinear")
    assert encoders.build("torchvision", dict(vars(config))).config == config


@torch.no_grad()
def test_neighbours_do_not_change_a_picture_in_training():
    encoder = drawn("resnet18").train()
    batch = torch.randn(3, 3, 224, 224, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(encoder(batch)[:1], encoder(batch[:1]), **EXACT)


@torch.no_grad()
def test_copy_has_the_mode_of_its_original():
    encoder = drawn("resnet18", image_size=64, shortest_edge=64)
    batch = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    copied = copy.deepcopy(encoder)
    assert torch.equal(copied(batch), encoder(batch))
    assert not any(module.training for module in copied.modules())
    assert copy.deepcopy(encoder.train()).backbone.training
    mine = {id(tensor) for tensor in encoder.state_dict(keep_vars=True).values()}
    assert mine.isdisjoint(id(tensor) for tensor in copied.state_dict(keep_vars=True).values())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model": "resnet19"}, "unknown torchvision model 'resnet19'.*did you mean"),
        ({"model": "resnet18", "node": "layer9"}, "resnet18 has no node 'layer9'"),
        ({"model": "resnet18", "node": "flatten"}, "neither a map nor tokens"),
    ],
)
def test_what_there_is_not_is_one_line(config, message):
    with pytest.raises(UsageError, match=message) as error:
        encoders.build("torchvision", config)
    assert "\n" not in str(error.value)


def test_missing_library_names_the_command(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match="`pip install torchvision`"):
        encoders.build("torchvision", {"model": "resnet18"})


def test_width_that_the_backbone_has_not_is_refused():
    with pytest.raises(UsageError, match="hidden_size is 5; .* has 512"):
        encoders.build("torchvision", {"model": "resnet18", "hidden_size": 5})


def test_pictures_in_one_tensor_become_the_same_at_once() -> None:
    encoder = encoders.build("torchvision", {"model": "resnet18", "shortest_edge": 224})
    pixels = torch.randint(256, (2, 3, 224, 224), dtype=torch.uint8)
    at_once = encoder.preprocess(pixels).pixel_values
    assert torch.equal(at_once, encoder.preprocess(list(pixels)).pixel_values)


@pytest.mark.gpu
@pytest.mark.parametrize("side", [224, 200])  # the encoder's own, and another
def test_pictures_in_one_tensor_stay_on_their_device(side: int) -> None:
    encoder = encoders.build("torchvision", {"model": "resnet18", "shortest_edge": 224})
    pixels = torch.zeros(2, 3, side, side, dtype=torch.uint8, device="cuda")
    assert encoder.preprocess(pixels).pixel_values.is_cuda
