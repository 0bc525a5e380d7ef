import numpy as np
import pytest

from mm.errors import UsageError
from mm.evaluate.intervals import Proportion
from mm.evaluate.records import Record
from mm.evaluate.statistics import (
    benjamini_hochberg,
    flipped_p,
    holm,
    interval,
    paired,
    power_of,
    score,
)


def run(scores: dict[str, list[float]], said: str = "x") -> list[Record]:
    return [
        Record(item, f"{item}/{number}", said=said, score=value)
        for item, values in scores.items()
        for number, value in enumerate(values)
    ]


def differences(rng: np.random.Generator, effect: float) -> list[np.ndarray]:
    """Of 50 pictures: what two models get right, the first `effect` more often than the second."""
    found = []
    for _ in range(50):
        hard, asked = 0.1 + 0.6 * rng.random(), int(rng.integers(1, 7))
        one = rng.random(asked) < hard + effect
        two = rng.random(asked) < hard
        found.append(one.astype(float) - two)
    return found


def seen(found: list[np.ndarray], flips: int) -> tuple[bool, bool]:
    """Whether the p-value, and whether the interval, says that there is a difference."""
    values = np.concatenate(found)
    clusters = [n for n, row in enumerate(found) for _ in row]
    p = flipped_p(np.array([row.sum() for row in found]), flips)
    return p <= 0.05, interval(values, clusters).is_off_zero


def test_score_weighs_questions_and_counts_pictures() -> None:
    found = score(run({"a": [1, 1, 1], "b": [0]}))
    assert (found.value, found.n, found.items, found.seeds) == (0.75, 4, 2, 1)
    assert 0 <= found.low < 0.75 < found.high <= 1


def test_seeds_that_differ_widen_the_interval() -> None:
    one, two = run({str(i): [1.0] for i in range(30)}), run({str(i): [0.0] for i in range(30)})
    mixed = run({str(i): [float(i % 2)] for i in range(30)})
    both, same = score(one, two, mixed), score(mixed, mixed, mixed)
    assert both.value == same.value == 0.5
    assert both.high - both.low > same.high - same.low


def test_scores_above_one_are_no_shares() -> None:
    assert score(run({"a": [3.0], "b": [0.1], "c": [2.0]})).high > 1


@pytest.mark.parametrize("runs", [[[]], [run({"a": [1]}), run({"b": [1]})]])
def test_what_has_no_mean_is_said(runs: list[list[Record]]) -> None:
    with pytest.raises(UsageError, match="no records|not asked the same"):
        score(*runs)


def test_a_pair_is_compared_on_what_both_were_asked() -> None:
    ours = run({"a": [1, 1], "b": [1], "c": [0]}, "yes")
    theirs = run({"a": [0, 1], "b": [0]}, "no")
    found = paired(ours, theirs)
    assert found.difference.value == pytest.approx(2 / 3)
    assert (found.left_out, found.changed) == (1, Proportion(3, 3))
    with pytest.raises(UsageError, match="no question in common"):
        paired(ours, run({"z": [1]}))


def test_the_same_run_twice_is_no_difference() -> None:
    once = run({str(i): [float(i % 3 == 0)] for i in range(40)})
    found = paired(once, once)
    assert (found.difference.low, found.difference.high, found.p) == (0, 0, 1)
    assert not found.difference.is_off_zero


def test_p_of_few_pictures_is_that_of_all_flips() -> None:
    sums = np.array([1.0, 2.0, 3.0, 1.0, 0.0])  # only all plus or all minus is as far: 2 of 16
    assert flipped_p(sums) == pytest.approx(2 / 16, abs=0.01)
    assert flipped_p(np.zeros(7)) == 1.0


def test_false_positives_of_the_paired_test_are_rare() -> None:
    rng = np.random.default_rng(3)
    found = np.array([seen(differences(rng, 0.0), 199) for _ in range(300)])
    assert (found.mean(0) <= 0.08).all() and found.any()


@pytest.mark.slow
def test_false_positives_of_the_paired_test_are_at_most_5_5_percent() -> None:
    rng = np.random.default_rng(3)
    found = np.array([seen(differences(rng, 0.0), 999) for _ in range(10_000)])
    print(f"false positives: by p {found[:, 0].mean():.4f}, by interval {found[:, 1].mean():.4f}")
    assert (found.mean(0) <= 0.055).all() and (found.mean(0) >= 0.03).all()


def test_the_smallest_difference_is_seen_four_times_in_five() -> None:
    rng = np.random.default_rng(4)
    powers = []
    for trial in (differences(rng, 0.0) for _ in range(20)):
        clusters = [n for n, row in enumerate(trial) for _ in row]
        powers.append(power_of(interval(np.concatenate(trial), clusters)))
    smallest = float(np.mean([power.smallest for power in powers]))
    share = np.mean([seen(differences(rng, smallest), 1)[1] for _ in range(300)])
    assert 0.74 <= share <= 0.86
    assert powers[0].items_for(powers[0].smallest / 2) == 4 * 50


def test_one_run_alone_asks_for_more() -> None:
    estimate = interval([0.0, 1.0] * 20, range(40))
    one = power_of(estimate, is_paired=False)
    assert one.smallest == pytest.approx(power_of(estimate).smallest * 2**0.5)


def test_corrections_of_known_cases() -> None:
    # Worked out by hand from the papers' steps.
    p = {"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}
    assert holm(p) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert benjamini_hochberg(p) == pytest.approx({"a": 0.02, "b": 0.04, "c": 0.04, "d": 0.02})
    assert list(holm(p)) == list(p) and holm({}) == {}
