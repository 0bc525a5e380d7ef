"""Pixtral's tower against transformers: every layer, and the same picture files through both."""

from dataclasses import replace

import pytest
import torch

from mm import encoders
from mm.encoders import Pictures, pixtral
from mm.privacy.door import open_image
from tests.encoders.parity import EXACT, picture_files, ready, reference_library

SMALL = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3}
SMALL |= {"num_attention_heads": 2, "patch_size": 7}
EDGE = 70


def tower(**changes):
    transformers = reference_library()
    config = transformers.PixtralVisionConfig(**{**SMALL, "hidden_act": "silu", **changes})
    return ready(transformers.PixtralVisionModel(config))


def processor(**changes):
    settings = {"size": {"longest_edge": EDGE}, "patch_size": {"height": 7, "width": 7}, **changes}
    return reference_library().PixtralImageProcessor(**settings)


def tiny(**changes):
    return pixtral.Encoder(pixtral.Config(**{**SMALL, "longest_edge": EDGE, **changes})).eval()


def inputs_of(sizes):
    """Noise of these sizes, padded to one, as the reference takes it."""
    tall, wide = (max(side) for side in zip(*sizes, strict=True))
    pixels = torch.randn(len(sizes), 3, tall, wide, generator=torch.Generator().manual_seed(0))
    return {"pixel_values": pixels, "image_sizes": torch.tensor(sizes)}


@pytest.mark.parametrize("act", ["silu", "gelu"])
@torch.no_grad()
def test_every_layer_matches_transformers_on_a_batch_of_different_grids(act):
    model = tower(hidden_act=act)
    encoder = tiny(hidden_act=act)
    encoder.load_state_dict(model.state_dict())
    inputs = inputs_of([(35, 35), (21, 63), (56, 14), (7, 7), (7, 70)])
    pictures = encoder.from_processor(**inputs)
    assert pictures.grids == ((5, 5), (3, 9), (8, 2), (1, 1), (1, 10))
    theirs = model(**inputs, output_hidden_states=True)
    hidden = [*theirs.hidden_states[:-1], theirs.last_hidden_state]
    assert len(hidden) == SMALL["num_hidden_layers"] + 1
    for layer, expected in enumerate(hidden):
        one = pixtral.Encoder(replace(encoder.config, feature_layer=layer))
        one.load_state_dict(model.state_dict())
        torch.testing.assert_close(one.tokens(pictures), expected[0], **EXACT)


@torch.no_grad()
def test_folder_gives_pixels_and_features_of_the_same_files(tmp_path):
    model = tower()
    model.save_pretrained(tmp_path)
    processor().save_pretrained(tmp_path)
    encoder = encoders.load(tmp_path)
    assert encoder.config == pixtral.Config(**SMALL, longest_edge=EDGE)
    images = [open_image(path) for path in picture_files(tmp_path / "pictures")]
    theirs = processor()(images, return_tensors="pt")
    ours, expected = encoder.preprocess(images), encoder.from_processor(**theirs)
    assert ours.views == expected.views and len(set(ours.grids)) > 4
    assert ours.views == tuple(encoder.views(image.height, image.width) for image in images)
    torch.testing.assert_close(ours.pixel_values, expected.pixel_values, atol=1e-5, rtol=0)
    features = model(**theirs).last_hidden_state[0]
    torch.testing.assert_close(encoder.tokens(ours), features, **EXACT)


@pytest.mark.parametrize("edge", [28, 1540])
def test_sizes_are_the_references(edge):
    reference_library()
    from transformers.models.pixtral import image_processing_pixtral as theirs

    encoder = tiny(longest_edge=edge)
    generator = torch.Generator().manual_seed(edge)
    refused = 0
    for height, width in torch.randint(1, 3000, (300, 2), generator=generator).tolist():
        height = max(1, height >> (width % 8))
        image = torch.empty(3, height, width, device="meta")
        expected = theirs.get_resize_output_image_size(image, edge, 7)
        if min(expected) == 0:  # there is nothing left of it
            refused += 1
            with pytest.raises(ValueError, match="would lose its shorter side"):
                encoder.resized(height, width)
        else:
            assert encoder.resized(height, width) == expected, (height, width)
    assert refused < 150


def test_another_processors_tensors_are_refused():
    with pytest.raises(ValueError, match=r"takes pixel_values and image_sizes, not \[\]"):
        tiny().from_processor(torch.zeros(1, 3, 7, 7))
    with pytest.raises(ValueError, match=r"\(1, 147\); 1 views of 2 patches need \[2, 147\]"):
        tiny().tokens(Pictures(torch.zeros(1, 147), (((1, 2),),)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 28}, "hidden_size is 28; it must be a multiple of 4 times"),
        ({"longest_edge": 6}, "longest_edge is 6; it must be at least patch_size 7"),
    ],
)
def test_config_that_makes_no_encoder_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny(**changes)
