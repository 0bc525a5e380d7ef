"""scripts/count_lines.py: both tables, and an unknown start."""

import pytest

from scripts import count_lines


def test_tables_hold_this_repository(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["count_lines.py", "--start", "scripts.count_lines"])
    assert count_lines.main() == 0
    folders, files = capsys.readouterr().out.split("Files behind")
    assert "mm/report/" in folders and "together" in folders
    assert "mm/report/source.py" in files and "mm/decoder" not in files


def test_unknown_start_gets_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["count_lines.py", "--start", "scripts.captoin"])
    assert count_lines.main() == 2
    assert capsys.readouterr().err == "error: no module 'scripts.captoin' under mm/ or scripts/\n"
