"""The measuring of the text rules: labels that are true, scores that count, aims that hold."""

import random
from pathlib import Path

import pytest

from mm.privacy.text import KINDS, Finding
from mm.report import bench_text
from mm.report.labelled import Line
from mm.report.labelled.values import MAKERS

EXACT = ("email", "ip_address", "phone", "resident_number", "foreigner_number", "card")


@pytest.fixture(scope="module")
def made() -> list[Line]:
    return list(bench_text.lines_of("development", 12, seed=1))


def test_lines_are_the_same_for_one_seed_and_hold_their_labels(made: list[Line]) -> None:
    assert made == list(bench_text.lines_of("development", 12, seed=1))
    assert made != list(bench_text.lines_of("development", 12, seed=2))
    assert {kind for line in made for _, _, kind in line.labels} == set(KINDS)
    assert {line.language for line in made} == {"en", "ko"}
    for line in made:
        for start, end, _ in line.labels:
            assert line.text[start:end].strip() == line.text[start:end] != ""


@pytest.mark.parametrize("which", ["development", "held_out"])
def test_rules_reach_their_aims(which: str) -> None:
    lines = list(bench_text.lines_of(which, 25, seed=3))
    scores, clean, _ = bench_text.score(lines)
    for kind in EXACT:
        both = [one for (_, found), one in scores.items() if found == kind]
        assert sum(one.found for one in both) >= 0.97 * sum(one.values for one in both), kind
    every = [one for one in scores.values() if one.values]
    assert sum(one.found for one in every) >= 0.95 * sum(one.values for one in every)
    assert sum(one.right for one in every) >= 0.9 * sum(one.findings for one in every)
    for touched, count in clean.values():
        assert touched <= 0.05 * count


def test_a_value_of_which_a_letter_is_left_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line("call 555-0142 now", "en", ((5, 13, "phone"),))
    for end, found in ((13, 1), (12, 0)):
        monkeypatch.setattr(
            bench_text, "find_all", lambda *args, end=end, **kw: [Finding(5, end, "phone")]
        )
        scores, _, failures = bench_text.score([line])
        assert scores["en", "phone"].found == found
        assert len(failures) == 1 - found


def test_a_touched_clean_line_is_counted_and_is_no_precision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bench_text, "find_all", lambda *args, **kw: [Finding(0, 1, "card")])
    scores, clean, _ = bench_text.score([Line("nothing", "en")])
    assert clean == {"en": (1, 1)}
    assert scores["en", "card"].precision == 0


def test_the_bench_writes_a_table_and_counts_a_clean_file(tmp_path: Path) -> None:
    (tmp_path / "clean.txt").write_text("A dog runs.\n\nCall 010-1234-5678\n", encoding="utf-8")
    result = bench_text.bench_text(["development"], 2, clean_file=tmp_path / "clean.txt")
    text = bench_text.table(result)
    assert "ko resident_number" in text and "en clean lines touched: " in text
    assert result["clean_file"] == {"touched": 1, "lines": 2, "kinds": {"phone": 1}}
    assert "010-1234-5678" not in text
    with pytest.raises(ValueError, match="unknown set 'x'; known: development, held_out, faker"):
        bench_text.bench_text(["x"])


def test_every_maker_makes_what_it_says() -> None:
    rng = random.Random(0)
    for kind, make in MAKERS.items():
        for language in ("en", "ko"):
            assert make(rng, language), kind
