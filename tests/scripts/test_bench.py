"""scripts/bench.py: a table and a JSON file, and one clear line for what is wrong."""

import json
from pathlib import Path

import pytest

from scripts import bench


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["bench.py", *arguments])
    return bench.main()


def test_decode_prints_a_table_and_writes_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    short = ["--engines", "eager", "--prompt-tokens", "4", "--new-tokens", "3", "--repeats", "2"]
    target = tmp_path / "bench.json"
    assert (
        run(
            monkeypatch,
            "decode",
            *short,
            "--device",
            "cpu",
            "decoder=qwen3_tiny",
            "--json",
            str(target),
        )
        == 0
    )
    captured = capsys.readouterr()
    assert "tok/s" in captured.out and "eager" in captured.out
    assert "read bandwidth" in captured.err
    (row,) = json.loads(target.read_text("utf-8"))["rows"]
    assert len(row["rest_s"]) == 2


def test_encoder_prints_a_table_and_writes_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    target = tmp_path / "bench.json"
    words = ["siglip_tiny", "num_hidden_layers=1", "--engines", "eager", "--batch-sizes", "2"]
    options = ["--repeats", "2", "--device", "cpu", "--json", str(target)]
    assert run(monkeypatch, "encoder", *words, *options) == 0
    captured = capsys.readouterr()
    assert "pictures/s" in captured.out and "siglip_tiny  eager" in captured.out
    assert "matrix products" in captured.err
    (row,) = json.loads(target.read_text("utf-8"))["rows"]
    assert len(row["batch_s"]) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["encoder", "siglop"], "unknown encoder 'siglop'"),
        (["encoder", "siglip_tiny", "--repeats", "0"], "must be at least 1"),
        (["decode", "decoder=qwen3_tinny"], "did you mean 'qwen3_tiny'?"),
        (["decode", "--engines", "eeger"], "unknown engine 'eeger'"),
        (["decode", "decoder=qwen3_tiny", "--repeats", "-1"], "repeats is -1"),
    ],
)
def test_wrong_usage_gets_one_line(
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(monkeypatch, *arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.count("\n") == 1
