import pytest

from mm.errors import UsageError
from mm.evaluate.fairness import changed_answers, group_differences
from mm.evaluate.records import Record


def record(item: int, said: str, wanted: str = "yes", group: str = "a") -> Record:
    return Record(str(item), "q", {"tone": group}, said, (wanted,))


def test_share_of_changed_answers() -> None:
    one = [record(n, "a dog") for n in range(40)]
    two = [record(n, "a cat" if n < 10 else "a dog") for n in range(50)]
    found = changed_answers(one, two)
    assert (found.value, found.n, found.items) == (0.25, 40, 40)
    assert 0.1 < found.low < 0.25 < found.high < 0.45
    assert changed_answers(one, one).value == 0
    with pytest.raises(UsageError, match="no question in common"):
        changed_answers(one, [record(99, "a dog")])


def test_differences_between_groups_are_fairlearns() -> None:
    pytest.importorskip("fairlearn")
    rows = [record(n, "yes", "yes", "a") for n in range(4)]
    rows += [record(n, "yes" if n < 2 else "no", "yes", "b") for n in range(4)]
    rows += [record(n, "no", "no", group) for group in "ab" for n in range(4)]
    assert group_differences(rows, "tone") == pytest.approx(
        {
            "demographic_parity_difference": 0.25,
            "equalized_odds_difference": 0.5,
            "equal_opportunity_difference": 0.5,
        }
    )


def test_one_group_has_no_difference() -> None:
    pytest.importorskip("fairlearn")
    with pytest.raises(UsageError, match="fewer than two values"):
        group_differences([record(0, "yes")], "tone")
