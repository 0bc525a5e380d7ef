"""Qwen3-VL's mergers against transformers, level by level."""

import pytest
import torch

from mm import projectors
from tests.conftest import redraw

GRID = (4, 6)
LEVELS = {"input_size": 3 * 8, "output_size": 12, "num_residuals": 2}


@torch.no_grad()
def test_each_level_is_merged_as_transformers_does():
    pytest.importorskip("transformers", reason="the reference is not installed")
    from transformers.models.qwen3_vl import configuration_qwen3_vl, modeling_qwen3_vl

    projector = projectors.build("deepstack", LEVELS).eval()
    redraw(projector)
    config = configuration_qwen3_vl.Qwen3VLVisionConfig(hidden_size=8, out_hidden_size=12)
    tokens = 0.03 * torch.randn(2, 24, 24, generator=torch.Generator().manual_seed(1))
    found = projector.project(tokens, GRID).chunk(3, dim=-1)
    mergers = (projector.merger, *projector.deepstack_merger_list)
    for number, (merger, ours) in enumerate(zip(mergers, found, strict=True)):
        theirs = modeling_qwen3_vl.Qwen3VLVisionPatchMerger(config, number > 0).eval()
        theirs.load_state_dict(merger.state_dict(), strict=True)
        level = tokens[..., 8 * number : 8 * number + 8]
        blocks = level.view(2, 2, 2, 3, 2, 8).transpose(2, 3).flatten(1, 4)  # their order
        expected = theirs(blocks.flatten(0, 1)).view(2, 6, 12)
        torch.testing.assert_close(ours, expected, atol=2e-5, rtol=1e-4)


def test_levels_beside_the_tokens_are_counted():
    projector = projectors.build("deepstack", LEVELS)
    assert projector.num_residuals == 2 and projector.token_grid(GRID) == (2, 3)
    assert projector(torch.zeros(24 + 4, 24), (GRID, (2, 2))).shape == (6 + 1, 36)
    assert projectors.build("deepstack", {**LEVELS, "num_residuals": 0}).num_residuals == 0


@pytest.mark.parametrize("count", [-1, 4])
def test_levels_that_the_width_does_not_hold_are_refused(count):
    with pytest.raises(ValueError, match=f"num_residuals is {count}; it must be how many levels"):
        projectors.build("deepstack", {**LEVELS, "num_residuals": count})
