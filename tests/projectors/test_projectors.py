"""Projectors: pixel shuffle in InternVL's channel order, token counts, and both kinds."""

import pytest
import torch

from mm import projectors
from mm.projectors.shuffle import pixel_shuffle, shuffled_grid
from tests.conftest import redraw

KINDS = ["linear", "mlp", "deepstack"]


def test_shuffle_channels_run_over_row_offset_column_offset_width():
    # Each token says where it is: (row, column).
    grid = torch.stack(torch.meshgrid(torch.arange(4), torch.arange(6), indexing="ij"), dim=-1)
    shuffled = pixel_shuffle(grid.view(1, 24, 2), (4, 6), 2)
    assert shuffled.shape == (1, 6, 8)
    assert shuffled[0, 0].tolist() == [0, 0, 0, 1, 1, 0, 1, 1]
    assert shuffled[0, 1].tolist() == [0, 2, 0, 3, 1, 2, 1, 3]
    assert shuffled[0, 3].tolist() == [2, 0, 2, 1, 3, 0, 3, 1]


def test_shuffle_matches_internvl_in_transformers():
    modeling = pytest.importorskip("transformers.models.internvl.modeling_internvl")
    x = torch.randn(2, 6, 6, 5, generator=torch.Generator().manual_seed(0))
    # The reference takes [B, width, height, D] and turns it about; square grids agree.
    theirs = modeling.InternVLModel.pixel_shuffle(None, x, 0.5).reshape(2, 9, 20)
    assert torch.equal(pixel_shuffle(x.flatten(1, 2), (6, 6), 2), theirs)


@torch.no_grad()
def test_mlp_matches_internvl_projector_in_transformers():
    transformers = pytest.importorskip("transformers", reason="the reference is not installed")
    modeling = pytest.importorskip("transformers.models.internvl.modeling_internvl")
    config = transformers.InternVLConfig(
        vision_config=transformers.InternVLVisionConfig(hidden_size=12),
        text_config=transformers.Qwen2Config(hidden_size=20),
        downsample_ratio=0.5,
    )
    theirs = modeling.InternVLMultiModalProjector(config).eval()
    ours = projectors.build("mlp", {"input_size": 12, "output_size": 20, "shuffle": 2})
    redraw(ours)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    tokens = 0.03 * torch.randn(2, 16, 12, generator=torch.Generator().manual_seed(1))
    expected = theirs(pixel_shuffle(tokens, (4, 4), 2))
    torch.testing.assert_close(ours.project(tokens, (4, 4)), expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("grid", "shuffle"), [((4, 6), 1), ((4, 6), 2), ((8, 4), 4)])
def test_tokens_come_as_counted_before(kind, grid, shuffle):
    config = {"input_size": 10, "output_size": 14, "shuffle": shuffle}
    projector = projectors.build(kind, config)
    tokens = torch.randn(3, grid[0] * grid[1], 10)
    assert projector.project(tokens, grid).shape == (3, projector.num_tokens(grid), 14)
    assert projector.num_tokens(grid) == grid[0] * grid[1] // shuffle**2


@pytest.mark.parametrize("kind", KINDS)
def test_grid_that_cannot_be_shuffled_names_grid_and_factor(kind):
    projector = projectors.build(kind, {"input_size": 4, "output_size": 4, "shuffle": 2})
    for run in (projector.num_tokens, lambda grid: projector.project(torch.zeros(1, 729, 4), grid)):
        with pytest.raises(ValueError, match="patch grid 27x27 cannot be shuffled by 2: set"):
            run((27, 27))


def test_tokens_that_do_not_fill_the_grid_are_refused():
    with pytest.raises(ValueError, match="15 tokens do not fill a patch grid 4x4"):
        pixel_shuffle(torch.zeros(1, 15, 4), (4, 4), 2)
    assert shuffled_grid((4, 4), 1) == (4, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_init_weights_depend_on_the_generator_alone(kind):
    states = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        projector = projectors.build(kind, {"input_size": 8, "output_size": 12})
        projector.init_weights(torch.Generator().manual_seed(3))
        states.append(projector.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("kind", KINDS)
def test_shuffle_below_one_is_refused(kind):
    with pytest.raises(ValueError, match="shuffle is 0; it must be at least 1"):
        projectors.build(kind, {"input_size": 8, "output_size": 12, "shuffle": 0})


def test_projectors_are_built_by_name():
    assert {"linear", "mlp", "perceiver", "qformer", "c_abstractor"} <= set(projectors.names())
    assert projectors.name_of(projectors.get("mlp")) == "mlp"
    with pytest.raises(
        ValueError, match=r"unknown projector 'mpl'; known: .*linear, mlp.*; did you"
    ):
        projectors.get("mpl")


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_views_of_any_grids_come_packed_and_in_order(kind):
    projector = projectors.build(kind, {"input_size": 6, "output_size": 8, "shuffle": 2})
    redraw(projector)
    grids = [(2, 4), (4, 4), (2, 4), (4, 2)]
    views = [torch.randn(rows * columns, 6) for rows, columns in grids]
    packed = projector(torch.cat(views), grids)
    alone = [projector.project(v[None], g)[0] for v, g in zip(views, grids, strict=True)]
    torch.testing.assert_close(packed, torch.cat(alone))
    assert len(packed) == sum(map(projector.num_tokens, grids))
    same = projector(torch.cat([views[0], views[2]]), [(2, 4)] * 2)
    torch.testing.assert_close(same, torch.cat([alone[0], alone[2]]))


def test_packed_tokens_that_do_not_fill_the_grids_are_refused():
    projector = projectors.build("linear", {"input_size": 6, "output_size": 8})
    with pytest.raises(ValueError, match="26 tokens do not fill 2 patch grids of 24 places: leave"):
        projector(torch.zeros(26, 6), [(2, 4), (4, 4)])
