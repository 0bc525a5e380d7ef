"""Intervals cover: on simulated data with a known truth, as often as they say."""

import math

import numpy as np
import pytest

from mm.evaluate.intervals import (
    Array,
    Estimate,
    Proportion,
    drawn_shares,
    of_items,
    of_seeds,
    of_statistic,
    t_quantile,
)

TRUTH = 0.8


def coverage(trials: int, items: int, per_item: int, rho: float, truth: float = TRUTH) -> float:
    """Share of trials whose interval holds the truth.

    Args:
        items: pictures, with 1 to `per_item` questions each.
        rho: how far the answers to one picture's questions hang together, 0..1.
    """
    rng = np.random.default_rng(5)
    held = 0
    for _ in range(trials):
        asked = rng.integers(1, per_item + 1, (1, items)).astype(float)
        found = of_items(answers(rng, asked, rho, truth), asked, bounded=True)
        held += found.low <= truth <= found.high
    return held / trials


def answers(rng: np.random.Generator, asked: Array, rho: float, truth: float) -> Array:
    """Right answers to every picture's questions: beta-binomial with the correlation `rho`."""
    if not rho:
        return rng.binomial(asked.astype(int), truth).astype(float)
    size = (1 - rho) / rho
    ease = rng.beta(truth * size, (1 - truth) * size, asked.shape)
    return rng.binomial(asked.astype(int), ease).astype(float)


CASES = [(100, 1, 0.0), (60, 8, 0.3), (200, 10, 0.6)]


@pytest.mark.parametrize(("items", "per_item", "rho"), CASES)
def test_interval_holds_the_truth(items: int, per_item: int, rho: float) -> None:
    assert 0.92 <= coverage(250, items, per_item, rho) <= 0.98


@pytest.mark.slow
@pytest.mark.parametrize(("items", "per_item", "rho"), [*CASES, (30, 8, 0.3), (1000, 12, 0.3)])
@pytest.mark.parametrize("truth", [0.5, 0.8, 0.9])
def test_interval_holds_the_truth_in_1000_trials(
    items: int, per_item: int, rho: float, truth: float
) -> None:
    share = coverage(1000, items, per_item, rho, truth)
    print(f"{items} pictures, up to {per_item} questions, {rho=}, {truth=}: {share:.3f}")
    assert 0.93 <= share <= 0.97


def test_questions_taken_as_independent_would_not_cover() -> None:
    rng = np.random.default_rng(5)
    held = 0
    for _ in range(200):
        asked = np.full((1, 60), 10.0)
        right = answers(rng, asked, 0.6, TRUTH)
        low, high = Proportion(int(right.sum()), 600).interval
        held += low <= TRUTH <= high
    assert held / 200 < 0.75  # so that the tests above can fail


def test_all_right_is_as_sure_as_its_pictures_are_many() -> None:
    found = of_items(np.full((1, 40), 10.0), np.full((1, 40), 10.0), bounded=True)
    assert found.high == 1.0
    assert 0.88 < found.low < Proportion(40, 40).interval[0]
    assert (found.n, found.items) == (400, 40)


def test_draws_are_the_same_in_any_company_and_in_any_portions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(1)
    right, asked = rng.random((30, 2)), np.ones((30, 2))
    alone = drawn_shares(right[:, :1], asked[:, :1])
    assert drawn_shares(right, asked)[:, :1] == pytest.approx(alone, abs=1e-12)
    monkeypatch.setattr("mm.evaluate.intervals._AT_ONCE", 70)
    assert drawn_shares(right[:, :1], asked[:, :1]) == pytest.approx(alone, abs=1e-12)


def test_a_statistic_of_sums_is_that_of_the_share_it_computes() -> None:
    rng = np.random.default_rng(2)
    asked = rng.integers(1, 5, (1, 50)).astype(float)
    right = answers(rng, asked, 0.3, TRUTH)
    found = of_statistic(np.concatenate([right, asked]).T, lambda sums: sums[..., 0] / sums[..., 1])
    wanted = of_items(right, asked)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=1e-12)


def test_an_estimate_says_how_many_answers_and_pictures() -> None:
    assert str(Estimate(0.5, 0.25, 0.75, 1, 10, 40)) == "0.500 [0.250, 0.750] n=40 items=10"


def test_wilson_interval_of_known_cases() -> None:
    # Values of Wilson's formula worked out by hand for z = 1.959964.
    low, high = Proportion(8, 10).interval
    assert (low, high) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))
    assert Proportion(0, 10).interval[0] == 0.0
    assert Proportion(10, 10).interval[1] == 1.0
    assert Proportion(10, 10).interval[0] == pytest.approx(0.7225, abs=1e-4)


def test_no_cases_say_nothing() -> None:
    nothing = Proportion(0, 0)
    assert math.isnan(nothing.value) and nothing.interval == (0.0, 1.0)
    assert "n=0" in str(nothing)


@pytest.mark.parametrize(
    ("level", "freedom", "wanted"),  # printed tables of Student's t
    [(0.95, 1, 12.706), (0.95, 2, 4.303), (0.95, 10, 2.228), (0.99, 2, 9.925), (0.95, 1e9, 1.960)],
)
def test_student_t_is_that_of_the_tables(level: float, freedom: float, wanted: float) -> None:
    assert t_quantile(level, freedom) == pytest.approx(wanted, rel=1e-3)


def test_interval_of_three_seeds_holds_the_truth_95_times_in_100() -> None:
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(400):
        found = of_seeds(rng.normal(1.0, 0.3, 3))
        held += found.low <= 1.0 <= found.high
    assert 0.92 <= held / 400 <= 0.98  # a percentile interval holds it 3 times in 4


def test_interval_over_seeds_and_items_holds_the_truth() -> None:
    rng = np.random.default_rng(2)
    held, trials = 0, 300
    for _ in range(trials):
        seeds, items = rng.normal(0.0, 0.05, (4, 1)), rng.normal(0.0, 0.2, (1, 40))
        right = (rng.random((4, 40)) < np.clip(0.6 + seeds + items, 0, 1)).astype(float)
        found = of_items(right, np.ones((1, 40)))
        held += found.low <= 0.6 <= found.high
    assert 0.92 <= held / trials <= 0.99


def test_items_that_vary_widen_the_interval_and_pairing_narrows_it() -> None:
    rng = np.random.default_rng(3)
    easy = rng.random(60) < 0.5
    one = np.stack([easy, easy, easy]).astype(float)
    two = one.copy()
    two[:, :20] = 1.0  # the other variant has the first twenty right besides
    asked = np.ones((1, 60))
    assert of_items(one, asked).high - of_items(one, asked).low > 0.2
    difference = of_items(two - one, asked)
    assert difference.low > 0 and difference.excludes_zero
    assert difference.high - difference.low < of_items(one, asked).high - of_items(one, asked).low


def test_one_seed_says_nothing_of_other_seeds() -> None:
    alone = of_seeds(np.array([0.5]))
    assert alone.low == -math.inf and not alone.excludes_zero
    items = of_items(np.ones((1, 8)), np.ones((1, 8)))
    assert items.value == 1.0 and not items.excludes_zero


def test_items_with_more_questions_weigh_more() -> None:
    assert of_items(np.array([[3.0, 0.0]] * 2), np.array([[3.0, 1.0]])).value == 0.75
