"""Questions whose answer has a place: the place is where the thing is drawn."""

import torch

from mm.data.scenes.concepts import COLOURS
from mm.explain.scenes import SIZE, cases


def test_questions_of_plain_shapes_have_the_place_of_their_shape() -> None:
    found = list(cases(12, seed=3))
    assert {case.kind for case in found} == {"where", "colour"}
    assert {case.language for case in found} == {"en", "ko"}
    for case in found:
        assert case.image.shape == (3, SIZE, SIZE)
        assert 0 < case.target.float().mean() < 0.6
        if case.kind == "colour" and case.language == "en":
            wide = case.target.repeat_interleave(16, 0).repeat_interleave(16, 1)
            wanted = torch.tensor(COLOURS[case.answer][1])[:, None]
            inside = (case.image[:, wide].float() - wanted).abs().sum(0)
            # Cells at the edge of a shape show the ground as well.
            assert (inside < 60).float().mean() > 0.4


def test_both_languages_ask_about_the_same_place() -> None:
    found = list(cases(6, seed=3))
    for english, korean in zip(found[::2], found[1::2], strict=True):
        assert (english.language, korean.language) == ("en", "ko")
        assert english.kind == korean.kind
        assert torch.equal(english.target, korean.target)


def test_the_same_seed_draws_the_same_scenes() -> None:
    first, again, other = (next(iter(cases(1, seed=seed))) for seed in (3, 3, 4))
    assert torch.equal(first.image, again.image)
    assert not torch.equal(first.image, other.image)
