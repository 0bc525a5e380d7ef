import json

import numpy as np
import pytest

from mm.errors import UsageError
from mm.evaluate.gap import OVERALL, training_gap
from mm.evaluate.records import Record
from mm.evaluate.statistics import score
from mm.report.slice_tables import gap_table


def records(
    rng: np.random.Generator, name: str, pictures: int = 200, **more: float
) -> list[Record]:
    """Three kinds of question per picture, which hang together; `more` is added to a kind."""
    found = []
    for item in range(pictures):
        ease = rng.uniform(0.3, 0.8)
        for kind in ("count", "name", "where"):
            right = float(rng.random() < ease + more.get(kind, 0))
            found.append(Record(f"{name}{item}", kind, {"kind": kind, "set": name}, score=right))
    return found


def test_a_planted_gap_is_flagged_where_it_is() -> None:
    rng = np.random.default_rng(0)
    trained, held_out = records(rng, "a", 1200, count=0.25), records(rng, "b", 900)
    found = training_gap(trained, held_out)
    assert found.flagged == (OVERALL, "kind=count")
    row = next(row for row in found.rows if row.name == "kind=count")
    assert 0 < row.gap.low < 0.25 < row.gap.high < 0.5
    whole = found.rows[0]
    assert whole.trained.value == pytest.approx(score(trained).value)
    assert whole.held_out.value == pytest.approx(score(held_out).value)
    assert (whole.trained.items, whole.held_out.n) == (1200, 2700)
    assert found.one_sided == ("set=a", "set=b")
    table = gap_table(found)
    assert "by more than chance: overall, kind=count." in table and "only: set=a, set=b." in table
    facts = json.loads(json.dumps(found.facts(), allow_nan=False))
    assert facts["gap"]["kind=count"]["gap"]["value"] == pytest.approx(row.gap.value)
    turned = training_gap(held_out, trained)
    assert not turned.flagged and turned.rows[0].verdict == "better held out"


def test_no_gap_is_seldom_flagged() -> None:
    rng = np.random.default_rng(1)
    found = [training_gap(records(rng, "a", 60), records(rng, "b", 90)) for _ in range(150)]
    off = [any(row.verdict != "≈" for row in gap.rows) for gap in found]
    assert np.mean(off) <= 0.09  # 5 % wanted, of which 150 tries give up to 8.6 %


def test_answers_of_one_picture_are_no_cases_of_their_own() -> None:
    """The same scores said ten times over are no surer."""
    rng = np.random.default_rng(2)
    sets = [
        [Record(f"{name}{n}", "q", score=float(rng.random() < 0.5)) for n in range(80)]
        for name in "ab"
    ]
    often = [
        [Record(r.item, f"{k}", score=r.score) for r in one for k in range(10)] for one in sets
    ]
    once, again = training_gap(*sets).rows[0].gap, training_gap(*often).rows[0].gap
    assert (again.low, again.high) == pytest.approx((once.low, once.high))


def test_a_full_score_is_not_taken_as_certain() -> None:
    trained = [Record(f"a{n}", "q", score=1.0) for n in range(30)]
    held_out = [Record(f"b{n}", "q", score=float(n > 0)) for n in range(30)]
    row = training_gap(trained, held_out).rows[0]
    assert row.verdict == "≈" and row.gap.low < -0.05 and row.gap.high > 0.1


def test_few_pictures_of_either_set_are_not_read() -> None:
    rng = np.random.default_rng(3)
    found = training_gap(records(rng, "a", 200, count=0.3), records(rng, "b", 20), ["kind"])
    assert {row.verdict for row in found.rows} == {"too few"} and not found.flagged
    assert "gap" not in found.facts()["gap"][OVERALL] and "[" not in gap_table(found)


def test_what_cannot_be_compared_is_said() -> None:
    rng = np.random.default_rng(4)
    rows = records(rng, "a", 40)
    with pytest.raises(UsageError, match="everything that was held out"):
        training_gap(rows, rows[:60])
    found = training_gap(rows, rows[:60] + records(rng, "b", 20))
    assert found.shared == 20 and "20 held-out pictures are named as trained" in gap_table(found)
    assert "named as" not in gap_table(training_gap(rows, records(rng, "b", 20)))
    with pytest.raises(UsageError, match="no records"):
        training_gap(rows, [])
    with pytest.raises(UsageError, match="kin.*kind"):
        training_gap(rows, records(rng, "b", 20), ["kin"])
