"""The labelled questions, and that docs/misuse.md tells what is measured with them."""

import json
import re
from pathlib import Path

import pytest

from mm.refusal import Policy, Refusal
from mm.report.misuse import SETS, labelled_questions, refusal_rates, refusal_table
from scripts import misuse

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "misuse.md").read_text(encoding="utf-8")


class Never(Policy):
    pass


class Always(Policy):
    def before(self, question: str, pictures: int) -> Refusal | None:
        return Refusal("always", "No.")


def test_parts_are_disjoint_and_hold_both_kinds() -> None:
    texts = [question.text for question in labelled_questions()]
    assert len(set(texts)) == len(texts) > 500
    for part in SETS:
        for language in ("en", "ko"):
            own = [q for q in labelled_questions(part) if q.language == language]
            asking = sum(question.identifies for question in own)
            assert 20 <= asking <= len(own) - 20


def test_rates_of_policies_that_know_nothing() -> None:
    for rates in refusal_rates("held_out", Always()).values():
        assert rates.recall.value == rates.false_refusals.value == 1.0
        assert 0.3 < rates.precision.value < 0.6
    for rates in refusal_rates("held_out", Never()).values():
        assert rates.recall.hits == rates.false_refusals.hits == 0


def test_the_default_policy_is_nearly_right_on_the_held_out_half() -> None:
    for rates in refusal_rates("held_out").values():
        assert rates.recall.value >= 0.95 and rates.false_refusals.value <= 0.02


def test_the_page_holds_the_measured_table() -> None:
    assert refusal_table() in PAGE


def test_the_page_holds_what_the_results_say() -> None:
    results = ROOT / "experiments" / "results"
    rows = [
        json.loads((results / f"hallucination_{name}.json").read_text("utf-8"))["measures"]
        for name in ("seen", "unseen")
    ]
    cells = re.findall(r"^\| (\w+) \| (.+) \| (.+) \| (.+) \| (.+) \|$", PAGE, re.MULTILINE)
    table = {cell[0]: cell[1:] for cell in cells if cell[0] in rows[0]}
    assert set(table) == set(rows[0])
    for kind, shown in table.items():
        assert list(shown) == [
            f"{m['value']:.3f} [{m['interval'][0]:.3f}, {m['interval'][1]:.3f}]"
            for row in rows
            for m in (row[kind]["en"], row[kind]["ko"])
        ]


def test_the_script_prints_the_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["misuse.py", "refusal", "--policy", "none"])
    assert misuse.main() == 0
    assert "0.000" in capsys.readouterr().out
