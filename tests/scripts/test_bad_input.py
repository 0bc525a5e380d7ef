"""Bad input: one clear line each, the right exit status, no traceback, the others still done."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from scripts import ask, caption
from tests import tiny_model
from tests.scripts.pictures import SECRET, encoded, make_bad_inputs

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_model.save(tmp_path_factory.mktemp("models") / "tiny", tiny_model.model(1)))


def check_lines(stderr: str, reasons: dict[str, str], prog: str) -> None:
    """One line for each bad input, in order, with its name and the reason."""
    lines = stderr.split("\n")
    assert lines.pop() == ""
    assert len(lines) == len(reasons)
    for line, (path, reason) in zip(lines, reasons.items(), strict=True):
        assert line.startswith(f"{prog}: ") and reason in line
        shown = line[len(prog) + 2 :].split(": ")[0]
        name = os.path.basename(path)
        assert len(line) < 400
        assert line.isprintable()
        assert name in shown or not name.isprintable() or len(name) > 200
    assert SECRET not in stderr and "Traceback" not in stderr


def test_bad_pictures_get_a_line_each_and_the_good_ones_a_caption(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reasons = make_bad_inputs(tmp_path)
    assert len(reasons) >= 20
    good = tmp_path / "a picture whatever its name.txt"
    good.write_bytes(encoded("WEBP"))
    paths = list(reasons)
    status = caption.main(["--model", model, *paths[:11], str(good), *paths[11:]])
    out, err = capsys.readouterr()
    assert status == 1
    check_lines(err, reasons, "caption.py")
    assert out.startswith(f"{good}: ") and out.count("\n") == 1
    assert caption.main(["--model", model, str(good)]) == 0
    assert out == f"{good}: {capsys.readouterr().out}"


def test_the_same_as_a_program(model: str, tmp_path: Path) -> None:
    reasons = make_bad_inputs(tmp_path)
    good = tmp_path / "good.png"
    good.write_bytes(encoded())
    done = subprocess.run(
        [sys.executable, "scripts/caption.py", "--model", model, "--json", *reasons, str(good)],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 1
    check_lines(done.stderr, reasons, "caption.py")
    assert json.loads(done.stdout)["path"] == str(good)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser can read every file")
def test_a_file_without_permission_is_told(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "locked.png"
    path.write_bytes(encoded())
    path.chmod(0)
    assert caption.main(["--model", model, str(path)]) == 1
    check_lines(capsys.readouterr().err, {str(path): "check its permissions"}, "caption.py")


def test_only_bad_pictures_still_end_with_status_1(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for extra in ([], ["--json"], ["--stream"]):
        assert caption.main(["--model", model, str(tmp_path / "none.png"), *extra]) == 1
        out, err = capsys.readouterr()
        assert out == ""
        check_lines(err, {str(tmp_path / "none.png"): "missing"}, "caption.py")


def wrong_usage(capsys: pytest.CaptureFixture[str], *argv: str, script: Any = caption) -> str:
    """Run with wrong usage; return the one line."""
    try:
        status = script.main(list(argv))
    except SystemExit as exit_:
        status = exit_.code
    out, err = capsys.readouterr()
    assert status == 2
    assert out == "" and "Traceback" not in err
    line = err.splitlines()[-1]
    assert line.startswith(script.PROG + ": ")
    assert err.startswith("usage: ") or err.count("\n") == 1
    return str(line)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "IMAGE"),
        (["--json", "--stream", "x.png"], "not allowed with"),
        (["--batch-size", "0", "x.png"], "not a whole number above 0"),
        (["--batch-size", "two", "x.png"], "not a whole number above 0"),
        (["--max-new-tokens", "many", "x.png"], "invalid int value"),
        (["--colour", "x.png"], "unrecognized arguments: --colour"),
    ],
)
def test_wrong_options_are_told_before_the_model_is_loaded(
    arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reason in wrong_usage(capsys, *arguments)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--lang", "fr"], "language 'fr'; this model knows: en, ko"),
        (["--prompt", " "], "the question is empty"),
        (["--prompt", "word " * 400], "shorten the text"),
        (["--temperature", "-1"], "temperature is -1.0; it must be 0 or more"),
        (["--max-new-tokens", "0"], "max_new_tokens is 0; it must be at least 1"),
        (["--seed", "-5"], "seed is -5"),
        (["--device", "gpu"], "unknown device 'gpu'; known: auto, cpu, cuda"),
    ],
)
def test_values_that_make_no_sense_are_told(
    model: str,
    tmp_path: Path,
    arguments: list[str],
    reason: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "good.png"
    path.write_bytes(encoded())
    assert reason in wrong_usage(capsys, "--model", model, *arguments, str(path))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_told(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = wrong_usage(capsys, "--model", model, "--device", "cuda", "x.png")
    assert "PyTorch sees no GPU" in line


def test_an_empty_question_is_told(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "good.png"
    path.write_bytes(encoded())
    for question in ("", "   "):
        line = wrong_usage(capsys, "--model", model, str(path), question, script=ask)
        assert "the question is empty" in line


def test_a_question_that_is_a_file_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path in paths:
        path.write_bytes(encoded())
    assert "must be the question" in wrong_usage(capsys, *map(str, paths), script=ask)
    assert "at least one picture" in wrong_usage(capsys, str(paths[0]), script=ask)
    assert "go together" in wrong_usage(capsys, "--batch", "in.jsonl", script=ask)
    line = wrong_usage(capsys, "--batch", "i", "--output", "o", "x.png", "what?", script=ask)
    assert "not both" in line


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **changes}), "utf-8")


def with_encoder(name: str, **values: Any) -> dict[str, Any]:
    encoder = tiny_model.config()["encoder"]
    return {"encoder": {"name": name, "config": {**encoder["config"], **values}}}


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / "config.json").unlink(), "config.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), "safetensors"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json"),
        (lambda folder: (folder / "config.json").write_text("[1]"), "config.json"),
        (lambda folder: edit_config(folder, version=99), "version"),
        (lambda folder: edit_config(folder, format="other"), "format"),
        (lambda folder: edit_config(folder, **with_encoder("siglp")), "did you mean 'siglip'"),
        (lambda folder: edit_config(folder, **with_encoder("siglip", patchsize=8)), "patch_size"),
        (lambda folder: edit_config(folder, **with_encoder("siglip", patch_size=4)), "4"),
        (lambda folder: truncate(folder / "model.safetensors"), "model.safetensors"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "tokenizer.json"),
        (lambda folder: shutil.rmtree(folder), "tiny"),
    ],
)
def test_a_damaged_model_folder_is_told(
    model: str,
    tmp_path: Path,
    damage: Any,
    reason: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "tiny"
    shutil.copytree(model, folder)
    damage(folder)
    line = wrong_usage(capsys, "--model", str(folder), "x.png")
    assert reason in line
    assert str(folder) in line
