"""Answers that are shown while training."""

import json
from pathlib import Path

import pytest

from mm.evaluate.held_out import _measures
from mm.evaluate.questions import Answered, Question
from mm.train.run import RunFolder
from mm.train.samples import SAMPLES, keep_samples


def test_samples_are_shown_and_kept_by_step_and_hold_no_personal_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = RunFolder(tmp_path)
    learned = {"question": "Who?", "said": "write to jane.roe@example.com", "wanted": "a cup"}
    keep_samples([learned], 5, folder)
    keep_samples([{**learned, "said": ""}], 10, folder)
    keep_samples([{**learned, "said": "컵"}], 10, folder)  # after a resume
    lines = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert [(line["step"], line["said"]) for line in lines] == [
        (5, "write to [EMAIL]"),
        (10, "컵"),
    ]
    shown = capsys.readouterr().err
    assert "Who?  ->  write to [EMAIL]   [a cup]" in shown and "(nothing)" in shown
    assert "jane" not in shown + (tmp_path / "samples.jsonl").read_text()


def test_a_measure_brings_answers_of_several_kinds(tmp_path: Path) -> None:
    def asked(label: str) -> Answered:
        return Answered(Question(f"{label}?", "yes", (label,)), "no")

    rows = [[asked("caption"), asked("count")] for _ in range(9)]
    measured = _measures(rows, tmp_path)
    assert measured["held_out/count"] == 0.0
    assert [s["question"] for s in measured[SAMPLES]] == [
        "caption?", "count?", "caption?", "caption?",
    ]  # fmt: skip
