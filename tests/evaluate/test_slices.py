import json

import numpy as np
import pytest

from mm.errors import UsageError
from mm.evaluate.records import Record
from mm.evaluate.slices import slices
from mm.evaluate.statistics import score
from mm.report.slice_tables import slice_tables


def records(rng: np.random.Generator, pictures: int, **lower: float) -> list[Record]:
    """Two kinds of question in two languages per picture; `lower` takes from a kind or language."""
    found = []
    for item in range(pictures):
        ease = rng.uniform(0.6, 1.0)
        for kind in ("count", "where"):
            for language in ("en", "ko"):
                chance = ease - lower.get(kind, 0) - lower.get(language, 0)
                tags = {"kind": kind, "language": language, "set": "one"}
                right = float(rng.random() < chance)
                found.append(Record(f"{item}", f"{kind}.{language}", tags, score=right))
    return found


def test_the_worst_slice_is_found_and_told_from_chance() -> None:
    found = slices(records(np.random.default_rng(0), 300, where=0.25))
    assert found.worst is not None and (found.worst.tag, found.worst.value) == ("kind", "where")
    by_name = {(row.tag, row.value): row for row in found.rows}
    assert by_name["kind", "where"].verdict == "lower"
    assert by_name["kind", "count"].verdict == "higher"
    assert by_name["language", "ko"].verdict == "≈"
    gap = next(gap for gap in found.gaps if gap.tag == "kind")
    assert (gap.best, gap.worst) == ("count", "where")
    assert gap.difference.low < 0.25 < gap.difference.high and gap.difference.low > 0.1
    assert ("set", "one") not in by_name  # a tag of one value is no slice unless asked for


def test_scores_are_those_of_the_records() -> None:
    rows = records(np.random.default_rng(1), 50)
    found = slices(rows)
    for row in found.rows:
        alone = score([r for r in rows if r.tags[row.tag] == row.value])
        assert (row.score.value, row.score.n) == (pytest.approx(alone.value), alone.n)
        assert row.score.low <= alone.low and row.score.high >= alone.high  # of several at once
    assert found.overall.value == pytest.approx(score(rows).value)


def test_small_slices_are_counted_but_not_read() -> None:
    rows = records(np.random.default_rng(2), 60)
    rare = [Record(f"r{i}", "q", {"kind": "rare", "language": "en"}) for i in range(5)]
    found = slices(rows + rare)
    assert found.worst is not None and found.worst.value != "rare"
    assert all("rare" not in (gap.best, gap.worst) for gap in found.gaps)
    shown = next(
        line for line in slice_tables(found).splitlines() if line.startswith("| kind=rare")
    )
    assert "too few" in shown and "[" not in shown
    assert found.facts()["slices"]["kind"]["rare"]["verdict"] == "too few"


def test_languages_stand_side_by_side() -> None:
    found = slices(records(np.random.default_rng(3), 300, ko=0.2))
    whole = found.languages[0]
    assert (whole.name, whole.languages) == ("all", ("en", "ko"))
    assert whole.difference.high < 0 and whole.difference.low < -0.2 < whole.difference.high
    assert [row.name for row in found.languages] == ["all", "kind=count", "kind=where"]
    assert "| ko less en |" in slice_tables(found)
    json.dumps(found.facts(), allow_nan=False)


def test_one_language_has_nothing_beside_it() -> None:
    rows = [r for r in records(np.random.default_rng(4), 40) if r.tags["language"] == "ko"]
    assert slices(rows).languages == ()


def test_intervals_of_all_slices_hold_together() -> None:
    rng = np.random.default_rng(5)
    false = 0
    for _ in range(120):
        rows = [
            Record(f"{i}", "q", {"a": str(i % 7), "b": str(i % 5)}, score=float(rng.random() < 0.7))
            for i in range(280)
        ]
        false += any(row.verdict != "≈" for row in slices(rows).rows)
    assert false / 120 <= 0.1  # twelve slices looked at one by one: near 0.4


def test_a_tag_that_is_not_there_is_named() -> None:
    with pytest.raises(UsageError, match="kin.*kind"):
        slices(records(np.random.default_rng(6), 5), ["kin"])
    with pytest.raises(UsageError, match="no records"):
        slices([])


def test_records_without_tags_have_a_score_and_no_slices() -> None:
    found = slices([Record(str(i), "q", score=i % 2) for i in range(10)])
    assert found.rows == () and found.worst is None and found.overall.value == 0.5
