import math

import numpy as np
import pytest

from mm.report.compare.intervals import of_items, of_seeds, t_quantile


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
