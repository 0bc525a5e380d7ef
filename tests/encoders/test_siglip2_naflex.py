"""SigLIP 2 NaFlex against transformers: every layer, and the same picture files through both."""

import json
from dataclasses import replace

import pytest
import torch

from mm import encoders, projectors
from mm.encoders import Pictures, siglip2_naflex
from mm.encoders.siglip2_naflex import largest_grid
from mm.errors import CheckpointError
from mm.privacy.door import open_image
from tests.encoders.parity import EXACT, picture_files, ready, reference_library

SMALL = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3}
SMALL |= {"num_attention_heads": 2, "num_patches": 25, "patch_size": 7}
WORDS = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 1, "vocab_size": 50}
WORDS |= {"num_attention_heads": 2, "bos_token_id": 1, "eos_token_id": 2}


def tower(**changes):
    transformers = reference_library()
    config = transformers.Siglip2VisionConfig(**{**SMALL, "vision_use_head": False, **changes})
    return ready(transformers.Siglip2VisionModel(config))


def processor(**changes):
    values = {"patch_size": 7, "max_num_patches": 40, **changes}
    return reference_library().Siglip2ImageProcessor(**values)


def tiny(**changes):
    encoder = siglip2_naflex.Encoder(
        siglip2_naflex.Config(**{**SMALL, "max_num_patches": 40, **changes})
    )
    return encoder.eval()


def padded(pictures: Pictures, length: int) -> dict[str, torch.Tensor]:
    """Lay packed patches out as the reference takes them."""
    each = pictures.pixel_values.split([h * w for h, w in pictures.grids])
    pixels = torch.zeros(len(each), length, each[0].shape[1])
    mask = torch.zeros(len(each), length, dtype=torch.int32)
    for row, one in enumerate(each):
        pixels[row, : len(one)] = one
        mask[row, : len(one)] = 1
    shapes = torch.tensor(pictures.grids)
    return {"pixel_values": pixels, "pixel_attention_mask": mask, "spatial_shapes": shapes}


@torch.no_grad()
def test_every_layer_matches_transformers_on_a_batch_of_different_grids():
    model = tower()
    encoder = tiny()
    encoder.load_state_dict(model.state_dict())
    grids = [(5, 5), (3, 9), (8, 5), (1, 1), (40, 1)]
    patches = torch.randn(sum(h * w for h, w in grids), 147, generator=torch.manual_seed(0))
    pictures = Pictures(patches, tuple((grid,) for grid in grids))
    theirs = model(**padded(pictures, 40), output_hidden_states=True)
    wanted = [(n, False, h) for n, h in enumerate(theirs.hidden_states)]
    wanted += [(-1, True, theirs.last_hidden_state)]
    assert len(wanted) == SMALL["num_hidden_layers"] + 2
    for layer, use_final_norm, hidden in wanted:
        config = replace(encoder.config, feature_layer=layer, use_final_norm=use_final_norm)
        one = siglip2_naflex.Encoder(config)
        one.load_state_dict(model.state_dict())
        real = torch.cat([row[: h * w] for row, (h, w) in zip(hidden, grids, strict=True)])
        torch.testing.assert_close(one.tokens(pictures), real, **EXACT)


@torch.no_grad()
@pytest.mark.parametrize("whole", [False, True])
def test_folder_gives_pixels_and_features_of_the_same_files(tmp_path, whole):
    transformers = reference_library()
    model = tower()
    if whole:
        words = {"vision_config": {**SMALL, "vision_use_head": True}, "text_config": WORDS}
        both = transformers.Siglip2Model(transformers.Siglip2Config(**words)).eval()
        both.vision_model.load_state_dict(model.state_dict(), strict=False)
        both.save_pretrained(tmp_path)
    else:
        model.save_pretrained(tmp_path)
    processor().save_pretrained(tmp_path)
    encoder = encoders.load(tmp_path)
    assert encoder.config == siglip2_naflex.Config(**SMALL, max_num_patches=40)

    files = picture_files(tmp_path / "pictures")
    images = [open_image(path) for path in files]
    theirs = processor()(images, return_tensors="pt")
    ours = encoder.preprocess(images)
    expected = encoder.from_processor(**theirs)
    assert ours.views == expected.views
    assert ours.views == tuple(encoder.views(image.height, image.width) for image in images)
    assert len(set(ours.grids)) > 4
    torch.testing.assert_close(ours.pixel_values, expected.pixel_values, atol=1e-5, rtol=0)

    features = model(**theirs).last_hidden_state
    for (tokens, ((h, w),)), one in zip(encoder.encode(images), features, strict=True):
        torch.testing.assert_close(tokens, one[: h * w], **EXACT)


# The published processor's, for 256 patches of 16: height, width; resized height, width.
RESIZED = {
    (480, 640): (224, 288),
    (1080, 1920): (192, 336),
    (224, 224): (256, 256),
    (100, 1000): (80, 800),
}


@pytest.mark.parametrize("size", RESIZED)
def test_published_sizes_become_published_grids(size):
    with torch.device("meta"):
        encoder = siglip2_naflex.Encoder(siglip2_naflex.Config(num_hidden_layers=1))
    height, width = RESIZED[size]
    assert encoder.resized(*size) == (height, width)
    assert encoder.views(*size) == ((height // 16, width // 16),)


@pytest.mark.parametrize("most", [1, 40, 256, 1024])
def test_grid_is_the_references_for_any_size(most):
    reference_library()
    from transformers.models.siglip2 import image_processing_siglip2 as theirs

    generator = torch.Generator().manual_seed(most)
    for shift in torch.randint(0, 12, (200, 2), generator=generator).tolist():
        low = torch.randint(1, 3000, (2,), generator=generator).tolist()
        height, width = (max(1, side >> by) for side, by in zip(low, shift, strict=True))
        rows, columns = largest_grid(height, width, 14, most)
        expected = theirs.get_image_size_for_max_num_patches(height, width, 14, most)
        assert (14 * rows, 14 * columns) == expected, (height, width)
        assert rows * columns <= most


@pytest.mark.parametrize("multiple", [2, 3])
def test_grids_of_a_multiple_can_be_folded(multiple):
    encoder = tiny(grid_multiple=multiple)
    assert tiny(grid_multiple=1).views(90, 200) == tiny().views(90, 200) == ((4, 9),)
    generator = torch.Generator().manual_seed(0)
    folding = projectors.build("mlp", {"input_size": 24, "output_size": 8, "shuffle": multiple})
    for height, width in torch.randint(1, 900, (50, 2), generator=generator).tolist():
        ((rows, columns),) = encoder.views(height, width)
        assert rows % multiple == columns % multiple == 0 and 0 < rows * columns <= 40
        assert folding.num_tokens((rows, columns)) == rows * columns // multiple**2
    pixels = encoder.preprocess([torch.zeros(3, 50, 90, dtype=torch.uint8)])
    assert pixels.views == (encoder.views(50, 90),)


@torch.no_grad()
def test_a_picture_alone_and_among_others_is_the_same():
    encoder = tiny()
    encoder.init_weights(torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    images = [
        torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8)
        for size in [(30, 80), (64, 64), (90, 20), (30, 80)]
    ]
    together = encoder.encode(images)
    assert len({views for _, views in together}) == 3
    for image, (tokens, views) in zip(images, together, strict=True):
        alone, its_views = encoder.encode([image])[0]
        assert its_views == views
        torch.testing.assert_close(alone, tokens, atol=1e-6, rtol=1e-5)


def test_patches_that_do_not_fill_the_grids_are_refused():
    with pytest.raises(ValueError, match=r"\(7, 147\); 2 views of 8 patches need \[8, 147\]"):
        tiny()(torch.zeros(7, 147), [(2, 2), (1, 4)])


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "nothing given beside pixel_values; this encoder takes spatial_shapes"),
        ({"spatial_shapes": torch.tensor([[3, 3]]), "image_grid_thw": torch.ones(1, 3)}, "^image_"),
        ({"spatial_shapes": torch.tensor([[3, 3]])}, "a picture of 9 patches; pixel_values has 8"),
    ],
)
def test_another_processors_tensors_are_refused(inputs, message):
    with pytest.raises(ValueError, match=message):
        tiny().from_processor(torch.zeros(1, 8, 147), **inputs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_patches": 24}, "num_patches is 24; the table of positions is a square"),
        ({"max_num_patches": 0}, "max_num_patches is 0 and grid_multiple 1; they must be at least"),
        ({"grid_multiple": 0}, "max_num_patches is 256 and grid_multiple 0; they must be at least"),
        ({"max_num_patches": 8, "grid_multiple": 3}, "the first at least the square of the second"),
        ({"patch_size": 0}, "patch_size is 0"),
        ({"num_attention_heads": 5}, "hidden_size 24 is no multiple of num_attention_heads 5"),
        ({"image_std": (0.5,)}, "image_mean has 3 and image_std 1 values"),
        ({"feature_layer": 4}, "feature_layer is 4; with 3 layers it must be between -4 and 3"),
    ],
)
def test_config_that_makes_no_encoder_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        siglip2_naflex.Config(**{**SMALL, **changes})


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        ({"size": {"height": 224, "width": 224}}, "keeps a picture's proportions"),
        ({"patch_size": 16}, "has patch_size 16, but config.json has 7: they must agree"),
        ({"do_normalize": False}, "switches off do_normalize"),
        ({"resample": 1}, "resample 1; known: 2 and 3"),
    ],
)
def test_preprocessing_that_naflex_does_not_do_is_one_clear_line(tmp_path, pictures, message):
    tower().save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(pictures))
    with pytest.raises(CheckpointError, match=message) as error:
        encoders.load(tmp_path)
    assert "\n" not in str(error.value)
