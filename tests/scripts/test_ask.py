"""ask.py and chat.py: questions about pictures, files of questions that resume, conversations."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from mm.model import Model
from scripts import ask, chat
from tests import tiny_model
from tests.scripts.pictures import encoded


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_model.save(tmp_path_factory.mktemp("models") / "tiny", tiny_model.model(1)))


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    paths = [tmp_path / f"{shade}.png" for shade in (20, 120, 220)]
    for path in paths:
        path.write_bytes(encoded(shade=int(path.stem)))
    return list(map(str, paths))


def test_a_question_is_answered_for_each_picture(
    model: str, pictures: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask.main([*pictures, "--model", model, "what is this?"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in lines] == pictures
    assert ask.main([pictures[0], "what is this?", "--model", model]) == 0
    assert f"{pictures[0]}: {capsys.readouterr().out}" == lines[0] + "\n"
    assert ask.main([pictures[0], "how many cups?", "--model", model]) == 0
    assert f"{pictures[0]}: {capsys.readouterr().out}" != lines[0] + "\n"


def test_json_repeats_the_question(
    model: str, pictures: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask.main(["--model", model, "--json", pictures[1], "컵이 있나요?"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["path"] == pictures[1] and row["question"] == "컵이 있나요?"
    assert set(row) - {"path", "question"} == {
        "answer",
        "confidence",
        "declined",
        "tokens",
        "complete",
        "provenance",
    }
    assert row["provenance"]["generated"] is True and row["provenance"]["model"] == "tiny"


def test_json_of_a_refusal_says_so_and_claims_no_model(
    model: str, pictures: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask.main(["--model", model, "--json", pictures[1], "Who is this man?"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["refused"] == "identify_person" and "provenance" not in row
    words = ["--model", model, "--json", "--policy", "none", pictures[1], "Who is this man?"]
    assert ask.main(words) == 0
    assert "refused" not in json.loads(capsys.readouterr().out)
    assert ask.main(["--model", model, "--policy", "nobody", pictures[1], "What?"]) == 2
    assert "people" in capsys.readouterr().err


@pytest.fixture
def questions(tmp_path: Path, pictures: list[str]) -> Path:
    """Seven questions; paths count from the file's own folder."""
    path = tmp_path / "in.jsonl"
    rows = [
        {"image": Path(pictures[i % 3]).name, "question": f"what is thing {i}?", "note": "extra"}
        for i in range(7)
    ]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return path


def batch(model: str, questions: Path, output: Path, *extra: str) -> int:
    files = ["--batch", str(questions), "--output", str(output), "--batch-size", "2"]
    return ask.main([*files, "--model", model, *extra])


def test_a_file_of_questions_is_answered_in_order(
    model: str, questions: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.jsonl"
    assert batch(model, questions, output) == 0
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["line"] for row in rows] == [1, 2, 3, 4, 5, 6, 7]
    assert [row["question"] for row in rows] == [f"what is thing {i}?" for i in range(7)]
    assert all("answer" in row and "confidence" in row for row in rows)


@pytest.mark.parametrize("cut", [0, 1, 150, -1, -30])
def test_a_stopped_file_goes_on_where_it_was(
    model: str, questions: Path, tmp_path: Path, cut: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, output = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    assert batch(model, questions, whole) == 0
    lines = whole.read_bytes().splitlines(keepends=True)
    # Stopped inside (or right after) the fourth line.
    kept = b"".join(lines[:3]) + (lines[3][:cut] if cut else b"")
    output.write_bytes(kept)
    asked = []
    run = Model.run

    def counted(self: Model, requests: Any, **options: Any) -> Any:
        asked.append(len(requests))
        return run(self, requests, **options)

    monkeypatch.setattr(Model, "run", counted)
    assert batch(model, questions, output) == 0
    assert sum(asked) == 4
    assert [json.loads(x)["answer"] for x in output.read_bytes().splitlines()] == [
        json.loads(x)["answer"] for x in lines
    ]
    assert batch(model, questions, output) == 0  # nothing is left to do
    assert sum(asked) == 4


def test_bad_lines_are_told_and_tried_again(
    model: str, questions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = [
        "not json",
        '{"image": "20.png"}',
        '{"image": 3, "question": "x"}',
        '{"image": "gone.png", "question": "x"}',
        '{"image": "20.png", "question": " "}',
        "",
        "[]",
    ]
    questions.write_text(questions.read_text() + "\n".join(bad) + "\n")
    output = tmp_path / "out.jsonl"
    assert batch(model, questions, output) == 1
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 6
    for number in (8, 9, 10, 14):
        assert any(line.startswith(f"ask.py: {questions}:{number}: needs") for line in err)
    assert any("gone.png: missing" in line for line in err)
    assert any("the question is empty" in line for line in err)
    assert len(output.read_text().splitlines()) == 7
    (tmp_path / "gone.png").write_bytes(encoded())
    assert batch(model, questions, output) == 1
    assert json.loads(output.read_text().splitlines()[-1])["line"] == 11


def test_an_output_of_other_questions_is_left_alone(
    model: str, questions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.jsonl"
    assert batch(model, questions, output) == 0
    before = output.read_bytes()
    questions.write_text(questions.read_text().replace("thing 5", "object 5"))
    assert batch(model, questions, output) == 2
    assert "answers to other questions" in capsys.readouterr().err
    assert output.read_bytes() == before
    output.write_text("something of the user's\n")
    assert batch(model, questions, output) == 2
    output.write_text("a letter without a last line break")
    assert batch(model, questions, output) == 2
    assert output.read_text() == "a letter without a last line break"


def test_files_that_cannot_be_used_are_told(
    model: str, questions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for missing in ((tmp_path / "none.jsonl", tmp_path / "o"), (questions, tmp_path / "no" / "o")):
        assert batch(model, *missing) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and "No such file or directory" in err


def talk(model: str, monkeypatch: pytest.MonkeyPatch, said: str, *images: str) -> int:
    monkeypatch.setattr(sys, "stdin", io.StringIO(said))
    return chat.main(["--model", model, *images])


def test_a_conversation_has_memory(
    model: str,
    pictures: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = "what is this?\n\nand now?\n/new\nand now?\n/quit\nnot read\n"
    assert talk(model, monkeypatch, said, pictures[0]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    first, second, fresh = out.splitlines()
    assert first and second != fresh  # the same words, with and without what went before


def test_pictures_join_a_conversation_and_bad_ones_do_not_end_it(
    model: str,
    pictures: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = f"hello\n/image gone.png\nwhat?\n/image {pictures[1]}\nwhat?\nwhat is <image>?\n"
    assert talk(model, monkeypatch, said) == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2
    assert [line.split(": ")[1] for line in err.splitlines()] == ["not answered"] * 2
    assert "missing" in err.splitlines()[0]
