"""Maps: what each method promises of its own."""

import pytest
import torch
from torch import Tensor

from mm.errors import UsageError
from mm.explain.methods import METHODS, Settings, explain
from mm.explain.places import R, cell_sums
from mm.explain.reading import Reading, blurred, shown
from mm.vlm import VisionLanguageModel
from tests import tiny_model

ANSWER = [41, 52, 43]
FEW = Settings(steps=4, cells=4, samples=2)


def reading_of(vlm: VisionLanguageModel, size: tuple[int, int] = (40, 48)) -> Reading:
    noise = torch.Generator().manual_seed(3)
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=noise)
    image[:, :20, :20] = 250
    prompt = [5, *[vlm.image_token_id or 0] * vlm.num_image_tokens(*size), 6, 8]
    return Reading(vlm, image, prompt, ANSWER)


@pytest.fixture(scope="module")
def reading() -> Reading:
    return reading_of(tiny_model.model(1))


def log_odds(reading: Reading, image: Tensor) -> Tensor:
    return reading.log_odds(image[None])[0]


@pytest.mark.parametrize("method", [name for name in METHODS if name != "shapley"])
def test_every_method_gives_a_map_a_token(reading: Reading, method: str) -> None:
    maps = explain(reading, method, FEW)
    assert maps.shape == (len(ANSWER), R, R)
    assert maps.isfinite().all()
    assert (maps.flatten(1).std(1) > 0).all()  # no map is flat
    torch.testing.assert_close(explain(reading, method, FEW), maps)


def test_log_odds_are_those_of_the_probabilities(reading: Reading) -> None:
    pictures = reading.preprocess(reading.image[None])
    logits = reading.vlm(reading.input_ids, pictures)[0]
    rows = logits[reading.rows].double().softmax(-1)
    probs = rows.gather(-1, reading.answer[:, None])[:, 0]
    found = log_odds(reading, reading.image)
    torch.testing.assert_close(found, torch.logit(probs).float(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        reading.probs(reading.image[None])[0], probs.log().mean().exp().float()
    )


def test_integrated_gradients_sum_to_what_is_gained(reading: Reading) -> None:
    maps = explain(reading, "integrated_gradients", Settings(steps=256))
    gained = log_odds(reading, reading.image) - log_odds(reading, blurred(reading.image))
    torch.testing.assert_close(maps.sum((1, 2)), gained, atol=0.02, rtol=0.02)


def test_occlusion_of_one_cell_is_what_is_lost_by_blurring_it_all(reading: Reading) -> None:
    maps = explain(reading, "occlusion", Settings(cells=1))
    gained = log_odds(reading, reading.image) - log_odds(reading, blurred(reading.image))
    torch.testing.assert_close(maps.sum((1, 2)), gained, atol=1e-4, rtol=1e-4)


def test_shapley_values_are_shares_of_what_is_gained(reading: Reading) -> None:
    pytest.importorskip("captum", reason="the extra is not installed")
    maps = explain(reading, "shapley", FEW)
    gained = log_odds(reading, reading.image) - log_odds(reading, blurred(reading.image))
    torch.testing.assert_close(maps.sum((1, 2)), gained, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(explain(reading, "shapley", FEW), maps)


def test_integrated_gradients_are_those_of_captum(reading: Reading) -> None:
    attr = pytest.importorskip("captum.attr", reason="the extra is not installed")
    both = reading.preprocess(torch.stack([reading.image, blurred(reading.image)]))
    values, start = both.pixel_values.chunk(2)

    def told(pixel_values: Tensor) -> Tensor:
        pictures = type(both)(pixel_values, both.views[:1] * len(pixel_values))
        return reading.of_tokens(reading.vlm.encoder.tokens(pictures), pictures)[:, 1]

    method = attr.IntegratedGradients(told)
    pixels = method.attribute(values, start, n_steps=64, method="riemann_middle")[0]
    wanted = torch.nn.functional.avg_pool2d(pixels.sum(0)[None], 8)[0] * 64  # patches of 8 x 8
    found = explain(reading, "integrated_gradients", Settings(steps=64))[1]
    torch.testing.assert_close(cell_sums(found, 4), wanted.detach().float(), atol=2e-3, rtol=0.05)


def test_a_filling_shows_where_a_mask_is_0() -> None:
    image = torch.full((3, 4, 6), 200, dtype=torch.uint8)
    masks = torch.tensor([[[1.0, 0.0, 0.5]]])
    (found,) = shown(image, masks, torch.zeros_like(image))
    assert found[0, 0].tolist() == [200, 200, 0, 0, 100, 100]


def test_a_blurred_picture_keeps_the_colours_of_large_areas() -> None:
    image = torch.zeros(3, 60, 60, dtype=torch.uint8)
    image[0, :, :30] = 255
    image[1, 28:32, 28:32] = 255  # a small thing
    soft = blurred(image).float()
    assert soft[0, :, :10].mean() > 200
    assert soft[0, :, 50:].mean() < 55
    assert soft[1].max() < 40


def test_methods_that_are_unknown_are_refused(reading: Reading) -> None:
    with pytest.raises(UsageError, match="occlusion"):
        explain(reading, "occlusions")


def test_a_reading_wants_an_answer_and_its_own_picture(reading: Reading) -> None:
    with pytest.raises(ValueError, match="empty"):
        Reading(reading.vlm, reading.image, [5, 6], [])
    with pytest.raises(ValueError, match="0 image placeholders"):
        Reading(reading.vlm, reading.image, [5, 6], ANSWER)
