from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from mm.evaluate.counterfactual import TONES, swap_tones
from mm.evaluate.questions import Question
from tests.tiny_artwork import tiny_artwork


def test_answers_that_follow_the_tone_are_counted_and_others_are_not(tmp_path: Path) -> None:
    seen: list[Tensor] = []

    def by_light(
        pictures: Tensor, questions: Sequence[Sequence[Question]]
    ) -> list[list[str]]:  # looks at how light the picture is
        seen.append(pictures)
        return [
            [str(float(picture.float().mean().round(decimals=1))) for _ in row]
            for picture, row in zip(pictures, questions, strict=True)
        ]

    artwork = tiny_artwork(tmp_path / "artwork")
    found = swap_tones(artwork, by_light, scenes=6, batch_size=4)
    assert found.changed["tone 10"].value == 1.0 and found.changed["tone 10"].items == 6
    assert found.changed["language ko"].value > 0.8
    assert len(found.records) == len(TONES)
    # The ground is the same to the pixel, whatever the tone of the icons.
    first, last = seen[0], seen[9]
    same = (first == last).all(1)
    assert 0.2 < float(same.float().mean()) < 0.99

    def blind(pictures: Tensor, questions: Sequence[Sequence[Question]]) -> list[list[str]]:
        return [[question.text for question in row] for row in questions]

    nothing = swap_tones(artwork, blind, scenes=6)
    assert all(estimate.value == 0 for estimate in nothing.changed.values())
    assert not torch.equal(first, last)
    assert not any("colour" == r.tags["kind"] for r in nothing.records[0])
