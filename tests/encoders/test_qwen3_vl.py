"""The Qwen3-VL tower against transformers: features with DeepStack, pixels, sizes, bad input."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from mm import projectors, vlm
from mm.encoders import qwen3_vl
from mm.privacy.door import open_image
from tests.conftest import redraw
from tests.encoders.parity import EXACT, picture_files, reference_library

SMALL = {"hidden_size": 24, "intermediate_size": 40, "patch_size": 4, "num_position_embeddings": 36}
SMALL |= {"deepstack_visual_indexes": (0, 2)}
OURS = {**SMALL, "num_hidden_layers": 4, "num_attention_heads": 2}
PICTURES = {"min_pixels": 256, "max_pixels": 2000}
CONF = Path(__file__).resolve().parents[2] / "conf"
LARGER = ("8b", "32b", "30b_a3b", "235b_a22b")
# Parameters of transformers' tower with its mergers, and of the whole model, on the meta device.
PUBLISHED = {
    "2b": (406_957_056, 2_127_532_032),
    "4b": (415_347_712, 4_437_815_808),
    "8b": (576_388_336, 8_767_123_696),
    "32b": (595_266_800, 33_357_390_064),
    "30b_a3b": (538_631_408, 31_070_754_032),
    "235b_a22b": (576_388_336, 235_670_022_896),
}
GRIDS = ((4, 6), (2, 8), (4, 6), (6, 6))


@pytest.fixture
def encoder() -> qwen3_vl.Encoder:
    return qwen3_vl.Encoder(qwen3_vl.Config(**OURS, **PICTURES)).eval()


@pytest.fixture
def projector(encoder: qwen3_vl.Encoder) -> projectors.Projector:
    config = {"input_size": encoder.hidden_size, "output_size": 32, "num_residuals": 2}
    return projectors.build("deepstack", config).eval()


@pytest.fixture
def model(encoder, projector):
    """Return transformers' tower, every parameter drawn anew, whose weights ours get."""
    transformers = reference_library()
    config = transformers.models.qwen3_vl.configuration_qwen3_vl.Qwen3VLVisionConfig(
        **SMALL, depth=4, num_heads=2, out_hidden_size=32
    )
    model = transformers.Qwen3VLVisionModel(config).eval()
    redraw(model, seed=5)
    state = model.state_dict()
    merging = {name for name in state if "merger" in name}
    projector.load_state_dict({name: state.pop(name) for name in merging})
    encoder.load_state_dict(state)
    return model


def processor():
    transformers = reference_library()
    return transformers.Qwen2VLImageProcessor(
        size={"shortest_edge": PICTURES["min_pixels"], "longest_edge": PICTURES["max_pixels"]},
        patch_size=4,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )


def levels_of(theirs) -> torch.Tensor:
    return torch.cat([theirs.pooler_output, *theirs.deepstack_features], dim=-1)


def some_patches(encoder, grids=GRIDS) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    count = sum(rows * columns for rows, columns in grids)
    return {
        "pixel_values": torch.randn(count, 96, generator=generator),
        "image_grid_thw": torch.tensor([(1, *grid) for grid in grids]),
    }


@torch.no_grad()
def test_tokens_and_levels_of_several_sizes_match_transformers(encoder, projector, model):
    inputs = some_patches(encoder)
    pictures = encoder.from_processor(**inputs)
    assert pictures.views == tuple((grid,) for grid in GRIDS)
    tokens = encoder.tokens(pictures)
    assert tokens.shape == (100, encoder.hidden_size) == (100, 72)
    theirs = model(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"])
    found = projector(tokens, pictures.grids)
    torch.testing.assert_close(found, levels_of(theirs), **EXACT)
    assert found.std() > 0.1
    # The last level of one view, before merging: ours row by row, theirs block by block.
    ours = tokens[:24, :24].view(2, 2, 3, 2, -1).transpose(1, 2).flatten(0, 3)
    torch.testing.assert_close(ours, theirs.last_hidden_state[:24], **EXACT)


@torch.no_grad()
def test_files_through_each_sides_own_preprocessing_match(tmp_path, encoder, projector, model):
    paths = picture_files(tmp_path)
    pictures = encoder.preprocess([open_image(path) for path in paths])
    theirs = processor()([Image.open(path) for path in paths], return_tensors="pt")
    same = encoder.from_processor(**theirs)
    assert same.views == pictures.views
    torch.testing.assert_close(pictures.pixel_values, same.pixel_values, atol=1e-6, rtol=0)
    expected = levels_of(model(theirs["pixel_values"], grid_thw=theirs["image_grid_thw"]))
    found = projector(encoder.tokens(pictures), pictures.grids)
    torch.testing.assert_close(found, expected, **EXACT)


@torch.no_grad()
def test_published_widths_and_preprocessing_match_on_files(tmp_path):
    # All as published but for the number of layers: heads of 72, the table of 48 x 48, bounds.
    transformers = reference_library()
    kind = transformers.models.qwen3_vl.configuration_qwen3_vl.Qwen3VLVisionConfig
    model = transformers.Qwen3VLVisionModel(kind(depth=2, deepstack_visual_indexes=(0,))).eval()
    redraw(model, seed=6)
    encoder = qwen3_vl.Encoder(
        qwen3_vl.Config(num_hidden_layers=2, deepstack_visual_indexes=(0,))
    ).eval()
    projector = projectors.build(
        "deepstack", {"input_size": 2304, "output_size": 3584, "num_residuals": 1}
    )
    state = model.state_dict()
    merging = {name for name in state if "merger" in name}
    projector.load_state_dict({name: state.pop(name) for name in merging})
    encoder.load_state_dict(state)
    kept = ("1_to_20", "20_to_1", "alpha")
    paths = [path for path in picture_files(tmp_path) if path.stem in kept]
    half = [0.5] * 3
    theirs = transformers.Qwen2VLImageProcessor(
        size={"shortest_edge": 65536, "longest_edge": 16777216},
        patch_size=16,
        image_mean=half,
        image_std=half,
    )([Image.open(path) for path in paths], return_tensors="pt")
    pictures = encoder.preprocess([open_image(path) for path in paths])
    expected = levels_of(model(theirs["pixel_values"], grid_thw=theirs["image_grid_thw"]))
    found = projector(encoder.tokens(pictures), pictures.grids)
    torch.testing.assert_close(found, expected, **EXACT)


@torch.no_grad()
def test_any_layer_may_be_the_first_level(encoder, model):
    inputs = some_patches(encoder, GRIDS[:1])
    theirs = model(
        inputs["pixel_values"], grid_thw=inputs["image_grid_thw"], output_hidden_states=True
    )
    pictures = encoder.from_processor(**inputs)
    for layer, expected in enumerate(theirs.hidden_states):
        counted = layer if layer % 2 else layer - 5
        one = qwen3_vl.Encoder(replace(encoder.config, feature_layer=counted)).eval()
        one.load_state_dict(encoder.state_dict())
        tokens = one.tokens(pictures)[:, :24]
        ours = tokens.view(2, 2, 3, 2, -1).transpose(1, 2).flatten(0, 3)
        torch.testing.assert_close(ours, expected, **EXACT)


@pytest.mark.parametrize("size", PUBLISHED)
def test_published_sizes_have_exactly_the_published_parameters(size):
    hydra, omegaconf = pytest.importorskip("hydra"), pytest.importorskip("omegaconf")
    tower, projector = ("so400m", "deepstack") if size in LARGER else ("large", "deepstack_large")
    parts = (f"encoder=qwen3_vl_{tower}", f"projector={projector}", f"decoder=qwen3_vl_{size}")
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        config = hydra.compose(overrides=[f"+{part}" for part in parts])
    with torch.device("meta"):
        plain = omegaconf.OmegaConf.to_container(config, resolve=True)
        model = vlm.build({**plain, "image_token_id": 151655})
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in parts_of(model)}
    assert (count["encoder"] + count["projector"], sum(count.values())) == PUBLISHED[size]


def parts_of(model):
    return ((name, getattr(model, name)) for name in ("encoder", "projector", "decoder"))


@pytest.mark.parametrize(
    ("size", "resized"),
    [
        ((480, 640), (480, 640)),
        ((1080, 1920), (1088, 1920)),
        ((240, 336), (256, 320)),
        ((16, 400), (64, 1280)),
        ((100, 100), (256, 256)),
        ((5000, 5000), (4096, 4096)),
    ],
    ids=str,
)
def test_size_is_the_published_one(size, resized):
    with torch.device("meta"):
        encoder = qwen3_vl.Encoder(
            qwen3_vl.Config(num_hidden_layers=1, deepstack_visual_indexes=())
        )
    assert encoder.resized(*size) == resized
    assert encoder.views(*size) == ((resized[0] // 16, resized[1] // 16),)


def test_too_narrow_a_picture_is_refused(encoder):
    with pytest.raises(ValueError, match="3000 x 10 is more than 200 times as long .*: crop it"):
        encoder.views(10, 3000)
    with pytest.raises(ValueError, match="1 x 201 is more than 200 times"):
        encoder.preprocess([torch.zeros(3, 201, 1, dtype=torch.uint8)])


def test_every_size_is_that_of_transformers(encoder):
    generator = torch.Generator().manual_seed(1)
    theirs = processor()
    for height, width in torch.randint(1, 120, (300, 2), generator=generator).tolist():
        ((rows, columns),) = encoder.views(height, width)
        assert rows * columns == theirs.get_number_of_image_patches(height, width)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_attention_heads": 5}, "hidden_size 24 is no multiple of num_attention_heads 5"),
        ({"num_attention_heads": 4}, "hidden_size is 24; it must be a multiple of 4 times"),
        ({"num_position_embeddings": 35}, "num_position_embeddings is 35; it must be a square"),
        ({"deepstack_visual_indexes": (2, 0)}, r"deepstack_visual_indexes is \(2, 0\)"),
        ({"deepstack_visual_indexes": (4,)}, "it must be numbers of blocks below 4, in order"),
        ({"feature_layer": 5}, "feature_layer is 5"),
        ({"num_channels": 1}, "both need num_channels = 1"),
        ({"min_pixels": 3000}, "min_pixels is 3000; it must be positive, at most max_pixels"),
    ],
)
def test_bad_config_is_one_clear_line(changes, message):
    with pytest.raises(ValueError, match=message):
        qwen3_vl.Config(**(OURS | PICTURES | changes))


def test_tensors_of_another_processor_are_refused(encoder):
    inputs = some_patches(encoder)
    with pytest.raises(ValueError, match=r"pixel_values and image_grid_thw, not \[\]"):
        encoder.from_processor(inputs["pixel_values"])
    with pytest.raises(ValueError, match="pictures have 1 and multiples of 2"):
        encoder.from_processor(inputs["pixel_values"], image_grid_thw=torch.tensor([[2, 4, 6]]))
    with pytest.raises(ValueError, match="pictures have 1 and multiples of 2"):
        encoder.from_processor(inputs["pixel_values"], image_grid_thw=torch.tensor([[1, 3, 6]]))
    with pytest.raises(ValueError, match=r"pixel values are \(100, 96\); 1 views of 24 patches"):
        encoder.from_processor(inputs["pixel_values"], image_grid_thw=torch.tensor([[1, 4, 6]]))
