"""Deletion and insertion tell a correct map from a wrong one."""

import random

import pytest
import torch
from torch import Tensor

from mm.explain.faithfulness import curves, judge, moved
from mm.explain.places import R
from mm.explain.reading import Reading


class Watcher(Reading):
    """A reading of a model that is as sure as a square of the picture is bright."""

    def __init__(self, top: int, left: int) -> None:
        self.image = torch.randint(0, 60, (3, 64, 64), generator=torch.Generator().manual_seed(0))
        self.image = self.image.to(torch.uint8)
        self.square = (slice(None), slice(None), slice(top, top + 16), slice(left, left + 16))
        self.image[None][self.square] = 255
        self.batch_size = 32

    def probs(self, images: Tensor) -> Tensor:
        return images[self.square].float().mean((1, 2, 3)) / 255

    def truth(self) -> Tensor:
        heat = torch.zeros(1, 1, R, R)
        heat[self.square] = 1
        return heat[0, 0]


@pytest.mark.parametrize(("top", "left"), [(8, 40), (40, 4), (24, 24)])
def test_a_correct_map_is_told_from_a_random_and_from_an_inverted_one(top: int, left: int) -> None:
    reading = Watcher(top, left)
    truth = reading.truth()
    noise = torch.rand(R, R, generator=torch.Generator().manual_seed(1))
    right, by_chance, wrong = curves(reading, torch.stack([truth, noise, -truth])).areas.tolist()
    assert right > 0.3
    assert abs(by_chance) < 0.25
    assert wrong < -0.3


def test_a_verdict_names_maps_that_are_no_better_than_chance() -> None:
    reading = Watcher(8, 40)
    right = judge(reading, reading.truth())
    assert right.is_faithful
    assert str(right).endswith(": faithful")
    for heat in (-reading.truth(), torch.ones(R, R)):
        wrong = judge(reading, heat)
        assert not wrong.is_faithful
        assert "NOT FAITHFUL" in str(wrong)


def test_curves_go_from_the_picture_to_its_blurred_form_and_back() -> None:
    reading = Watcher(8, 40)
    found = curves(reading, reading.truth()[None], levels=5)
    assert found.deletion.shape == found.insertion.shape == (1, 5)
    assert found.deletion[0, 0] == found.insertion[0, -1] == 1
    assert found.deletion[0, -1] == found.insertion[0, 0] < 0.7


def test_maps_move_far_and_keep_their_values() -> None:
    heat = torch.zeros(R, R)
    heat[3, 5] = 1
    for other in moved(heat, 30, random.Random(0)):
        row, column = divmod(int(other.argmax()), R)
        assert other.sum() == 1
        assert max(min((row - 3) % R, (3 - row) % R), min((column - 5) % R, (5 - column) % R)) >= 16
