"""Tiles: the recorded grids, and every pixel as the published processor cuts them."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mm.encoders import conformance, image_size, internvit, tiles
from mm.encoders.pixels import normalize, to_uint8
from mm.privacy.door import open_image
from mm.report import check_encoder
from tests.encoders.parity import EXACT, picture_files, ready, reference_library, their_pixels

STATISTICS = {"image_mean": (0.485, 0.456, 0.406), "image_std": (0.229, 0.224, 0.225)}

# (height, width) -> (columns, rows), of 448 px tiles, 1 to 12 of them: as transformers 5.23 gives.
RECORDED = {
    (448, 448): (1, 1),
    (480, 640): (4, 3),
    (1080, 1920): (4, 2),
    (3000, 1000): (2, 6),
    (200, 200): (1, 1),
    (900, 900): (2, 2),
    (1000, 1001): (3, 3),
    (100, 4000): (12, 1),
}


@pytest.mark.parametrize("size", RECORDED)
def test_recorded_grids(size):
    columns, rows = RECORDED[size]
    assert tiles.tile_grid(*size, side=448, min_tiles=1, max_tiles=12) == (rows, columns)


@pytest.mark.parametrize(("least", "most"), [(1, 12), (1, 1), (2, 6), (4, 4), (1, 7)])
def test_grids_are_the_published_processors_for_all_proportions(least, most):
    reference_library()
    from transformers.models.got_ocr2.image_processing_got_ocr2 import get_optimal_tiled_canvas

    for height in range(1, 1400, 97):
        for width in (*range(1, 1400, 103), height, 2 * height, 5 * height // 4):
            columns, rows = get_optimal_tiled_canvas((height, width), (40, 40), least, most)
            assert tiles.tile_grid(height, width, 40, least, most) == (rows, columns)


@pytest.mark.parametrize("most", [1, 6])
def test_pixels_are_the_published_processors(tmp_path, most):
    processor = reference_library().GotOcr2ImageProcessor(
        size={"height": 28, "width": 28}, crop_to_patches=True, max_patches=most, **STATISTICS
    )
    counts = []
    for path in picture_files(tmp_path / "pictures"):
        picture = open_image(path)
        (views,) = tiles.cut_each([picture], 28, 1, most, "bicubic", use_thumbnail=True)
        expected = their_pixels(processor, path)
        found = normalize(views, STATISTICS["image_mean"], STATISTICS["image_std"])
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
        grid = tiles.tile_grid(picture.height, picture.width, 28, 1, most)
        assert len(views) == tiles.num_views(grid, use_thumbnail=True)
        counts.append(len(views))
    assert set(counts) == ({1} if most == 1 else {1, 7}), counts


def test_a_batch_of_one_size_is_cut_as_its_pictures_one_by_one(tmp_path):
    generator = torch.Generator().manual_seed(0)
    batch = torch.randint(0, 256, (3, 3, 40, 90), generator=generator, dtype=torch.uint8)
    settings = (14, 2, 5, "bilinear", False)
    together = tiles.cut_each(batch, *settings)
    apart = tiles.cut_each([to_uint8(one) for one in batch], *settings)
    assert [len(views) for views in together] == [2, 2, 2]
    for a, b in zip(together, apart, strict=True):
        assert torch.equal(a, b)


def test_tiles_are_in_reading_order_and_the_whole_comes_last():
    picture = torch.arange(6, dtype=torch.uint8).view(1, 1, 2, 3).expand(1, 3, 2, 3) * 40
    blocks = picture.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)
    (views,) = tiles.cut_each(blocks, 8, 1, 6, "bicubic", use_thumbnail=True)
    assert len(views) == 7
    assert [int(view.unique().item()) for view in views[:6]] == [0, 40, 80, 120, 160, 200]
    assert len(views[6].unique()) > 6


CONFIG = internvit.Config(
    hidden_size=24,
    intermediate_size=40,
    num_hidden_layers=2,
    num_attention_heads=2,
    image_size=28,
    patch_size=7,
    max_tiles=5,
)


def test_an_encoder_sees_tiles_as_promised_and_as_pictures_of_their_own(tmp_path):
    encoder = ready(internvit.Encoder(CONFIG))
    opened = [open_image(path) for path in picture_files(tmp_path / "pictures")]
    pictures = encoder.preprocess(opened)
    assert pictures.views == tuple(encoder.views(*image_size(one)) for one in opened)
    assert set(pictures.grids) == {(4, 4)} and len(pictures.grids) > len(opened)
    assert pictures.pixel_values.shape == (len(pictures.grids), 3, 28, 28)
    single = internvit.Encoder(replace(CONFIG, max_tiles=1)).eval()
    single.load_state_dict(encoder.state_dict())
    views = pictures.pixel_values.split([len(views) for views in pictures.views])
    for (tokens, grids), pixels, one in zip(encoder.encode(opened), views, opened, strict=True):
        assert len(tokens) == 16 * len(grids)
        torch.testing.assert_close(tokens, single(pixels).flatten(0, 1), **EXACT)
        if len(pixels) > 1:  # the last view is the picture as it is seen without tiles
            assert torch.equal(pixels[-1:], single.preprocess([one]).pixel_values)


@torch.no_grad()
def test_many_views_are_run_in_parts_with_the_same_tokens(monkeypatch):
    encoder = ready(internvit.Encoder(CONFIG))
    pixels = torch.randn(5, 3, 28, 28, generator=torch.Generator().manual_seed(1))
    pictures = encoder.from_processor(pixels)
    ran = []
    encoder.register_forward_pre_hook(lambda _, inputs: ran.append(len(inputs[0])))
    monkeypatch.setattr(tiles, "_VIEWS_AT_ONCE", 2)
    tokens = encoder.tokens(pictures)
    assert ran == [2, 2, 1]
    with torch.enable_grad():
        torch.testing.assert_close(tokens, encoder.tokens(pictures), **EXACT)
    assert ran == [2, 2, 1, 5]


def test_tensors_of_a_published_processor_are_taken_tile_by_tile():
    encoder = internvit.Encoder(replace(CONFIG, min_tiles=2))
    pixels = torch.zeros(6, 3, 28, 28)
    taken = encoder.from_processor(pixels, num_patches=torch.tensor([3, 3]))
    assert taken.pixel_values is pixels and taken.grids == ((4, 4),) * 6
    with pytest.raises(ValueError, match="image_grid_thw is nothing that this encoder takes"):
        encoder.from_processor(pixels, image_grid_thw=torch.zeros(1, 3))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"min_tiles": 0}, "min_tiles is 0 and max_tiles 5; they must be at least 1"),
        ({"min_tiles": 6}, "min_tiles is 6 and max_tiles 5; .* the first no more than the second"),
        ({"shortest_edge": 28}, "shortest_edge is 28, but tiles are cut of squashed pictures"),
    ],
)
def test_tiles_that_cannot_be_are_one_clear_line(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **changes)


def test_the_file_of_tiles_conforms():
    conf = Path(__file__).resolve().parents[2] / "conf"
    encoder = check_encoder.make_encoder("internvit_300m_tiles", (), conf, tiny=True)
    assert encoder.config.max_tiles == 12 and len(encoder.views(60, 40)) == 7
    around = conformance.Surroundings(
        save_and_load=check_encoder.save_and_load,
        projectors=check_encoder.small_projectors(encoder.hidden_size),
        compile_backend=None,
        batch_size=2,
    )
    results = list(conformance.run(encoder, around))
    assert [one.check for one in results if one.status == "fail"] == []
    assert sum(one.status == "pass" for one in results) >= 14
