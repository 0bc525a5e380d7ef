"""Where views lie, found by asking the encoder; and values laid on the picture."""

from typing import Any

import pytest
import torch

from mm import encoders
from mm.encoders.conformance.base import tiny_values
from mm.explain.places import R, cell_sums, paint, view_boxes


def tiny(name: str, **changes: Any) -> encoders.VisionEncoder:
    values = tiny_values(encoders.config_type(encoders.get(name)))
    encoder = encoders.build(name, {**values, **changes})
    encoder.init_weights(torch.Generator().manual_seed(0))
    return encoder


def close(boxes: list[Any], wanted: list[Any]) -> None:
    torch.testing.assert_close(torch.tensor(boxes), torch.tensor(wanted), atol=0.02, rtol=0)


def test_a_squashed_picture_is_seen_whole() -> None:
    close(view_boxes(tiny("siglip"), 50, 90), [(0.0, 0.0, 1.0, 1.0)])


def test_a_crop_is_the_middle() -> None:
    encoder = tiny("clip", shortest_edge=32)
    close(view_boxes(encoder, 40, 80), [(0.25, 0.0, 0.75, 1.0)])
    close(view_boxes(encoder, 80, 40), [(0.0, 0.25, 1.0, 0.75)])


def test_tiles_lie_side_by_side_under_a_thumbnail() -> None:
    boxes = view_boxes(tiny("internvit", max_tiles=4, shortest_edge=None), 40, 80)
    close(boxes, [(0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0), (0.0, 0.0, 1.0, 1.0)])


@pytest.mark.parametrize("name", ["siglip2_naflex", "qwen3_vl", "pixtral"])
def test_pictures_of_native_resolution_are_seen_whole(name: str) -> None:
    encoder = tiny(name)
    for size in ((40, 64), (64, 40)):
        close(view_boxes(encoder, *size), [(0.0, 0.0, 1.0, 1.0)])


def test_values_are_painted_where_their_view_lies() -> None:
    left, whole = torch.tensor([[1.0], [3.0]]), torch.tensor([[6.0]])
    painted = paint([left, whole], [(0.0, 0.0, 0.5, 1.0), (0.0, 0.0, 1.0, 1.0)])
    assert painted.shape == (R, R)
    quarters = cell_sums(painted, 2)
    torch.testing.assert_close(quarters, torch.tensor([[2.5, 1.5], [4.5, 1.5]]))


def test_what_lies_on_padding_is_lost() -> None:
    painted = paint([torch.ones(1, 4)], [(-0.5, 0.0, 1.5, 1.0)])
    torch.testing.assert_close(painted.sum(), torch.tensor(2.0))
