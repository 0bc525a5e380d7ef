"""The patch merger against LightOnOCR's projector in transformers."""

import pytest
import torch

from mm import projectors
from tests.conftest import redraw


@torch.no_grad()
def test_it_is_lighton_ocrs_projector_in_transformers():
    transformers = pytest.importorskip("transformers", reason="the reference is not installed")
    modeling = pytest.importorskip("transformers.models.lighton_ocr.modeling_lighton_ocr")
    config = transformers.LightOnOcrConfig(
        vision_config={"model_type": "pixtral", "hidden_size": 12, "patch_size": 7},
        text_config={"model_type": "qwen3", "hidden_size": 20, "rms_norm_eps": 1e-6},
    )
    theirs = modeling.LightOnOcrMultiModalProjector(config).eval()
    ours = projectors.build("patch_merger", {"input_size": 12, "output_size": 20})
    redraw(ours)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    grids = ((4, 6), (2, 2), (5, 3), (4, 6))
    count = sum(h * w for h, w in grids)
    tokens = 0.03 * torch.randn(count, 12, generator=torch.Generator().manual_seed(1))
    sizes = torch.tensor([(7 * h, 7 * w) for h, w in grids])
    expected = theirs(tokens, sizes)
    torch.testing.assert_close(ours(tokens, grids), expected, atol=2e-5, rtol=1e-4)
    assert len(expected) == sum(ours.num_tokens(grid) for grid in grids) == 6 + 1 + 2 + 6


def test_grid_without_a_square_is_refused():
    projector = projectors.build("patch_merger", {"input_size": 12, "output_size": 20})
    with pytest.raises(ValueError, match="patch grid 1x9 has no square of 2x2 patches"):
        projector.num_tokens((1, 9))
    with pytest.raises(ValueError, match="spatial_merge_size is 0; it must be at least 1"):
        projectors.build(
            "patch_merger", {"input_size": 12, "output_size": 20, "spatial_merge_size": 0}
        )
