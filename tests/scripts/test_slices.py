"""scripts/slices.py on records of two runs."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from mm.evaluate.records import Record, write_records
from mm.report.card.run_facts import read_result

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "slices.py"


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    spec = importlib.util.spec_from_file_location("slices_script", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, "argv", ["slices.py", *map(str, arguments)])
    code = module.main()
    assert isinstance(code, int)
    return code


def test_slices_and_paired_differences_are_printed_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, step in (("a", 2), ("b", 3), ("c", 2)):
        records = [
            Record(str(i), "q", {"language": "en" if i % 4 else "ko"}, score=float(i % step == 0))
            for i in range(120)
        ]
        write_records(records, tmp_path / f"{name}.jsonl")
    a, b, c = (tmp_path / f"{name}.jsonl" for name in "abc")
    assert call(monkeypatch, a, "--against", b, c, "--output", tmp_path / "out.json") == 0
    out = capsys.readouterr().out
    assert "| language=ko | 1.000 |" in out and "overall 0.500" in out
    facts = json.loads((tmp_path / "out.json").read_text())
    assert facts["kind"] == "slices" and facts["command"].startswith("python scripts/slices.py")
    assert facts["worst"] == "language=en"
    assert facts["against"][str(b)]["value"] == pytest.approx(-1 / 6)
    assert facts["against"][str(c)]["p_holm"] == 1.0 and "| 0.000 | 1.0000 |" not in out


def test_what_is_no_file_of_records_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.jsonl").write_text("{}\n")
    assert call(monkeypatch, tmp_path / "bad.jsonl") == 2
    assert "bad.jsonl:1" in capsys.readouterr().err


def test_the_gap_to_what_was_trained_on_is_shown_and_joins_the_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, step in (("trained", 5), ("held_out", 2)):
        tags = ({"kind": "count"}, {"kind": "where"})
        write_records(
            [
                Record(f"{name}{n}", "q", tags[n // 60], score=float(n % step > 0))
                for n in range(120)
            ],
            tmp_path / f"{name}.jsonl",
        )
    trained, held_out = tmp_path / "trained.jsonl", tmp_path / "held_out.jsonl"
    output = tmp_path / "gap.json"
    assert call(monkeypatch, held_out, "--trained", trained, "--output", output) == 0
    assert "by more than chance: overall, kind=count, kind=where." in capsys.readouterr().out
    found = read_result(output)
    assert found.kind == "gap" and f"--trained {trained}" in found.command
    values = {measure.name: measure.value for measure in found.measures}
    assert values["gap/kind=where/gap"] == pytest.approx(0.3)
    assert call(monkeypatch, held_out, "--trained", held_out) == 2
    assert "everything that was held out" in capsys.readouterr().err
