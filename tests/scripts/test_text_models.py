"""ask.py and chat.py with a text model: sampling, thinking, stop strings, bad input."""

import io
import json
import sys
from pathlib import Path

import pytest
import torch

import mm
from scripts import ask, caption, chat
from tests import tiny_model
from tests.scripts.pictures import encoded


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    sampling = {"do_sample": True, "temperature": 0.9, "top_k": 30, "max_new_tokens": 16}
    folder = tmp_path_factory.mktemp("models") / "text"
    return str(tiny_model.save_text(folder, tiny_model.model(1), **sampling))


def asked(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert ask.main(list(argv)) == 0
    out, err = capsys.readouterr()
    assert err == "" and out.endswith("\n")
    return out.removesuffix("\n")


def test_a_question_alone_is_answered(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = asked(capsys, "--model", model, "how many cups?")
    assert said == mm.load(model, "cpu").ask(question="how many cups?")
    assert asked(capsys, "how many cups?", "--model", model, "--stream").strip() == said
    row = json.loads(asked(capsys, "--model", model, "--json", "how many cups?"))
    assert row["question"] == "how many cups?" and row["answer"] == said
    assert {"confidence", "tokens", "complete"} < set(row)


def test_options_change_the_answer(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*options: str) -> str:
        return asked(capsys, "--model", model, "how many cups?", *options)

    greedy = said("--temperature", "0")
    assert greedy == said("--top-k", "1") == said("--temperature", "0.01", "--seed", "5")
    assert greedy == said("--top-p", "1e-6") == said("--min-p", "1")
    others = [
        said("--seed", "1"),
        said("--thinking", "off", "--temperature", "0"),
        said("--temperature", "0", "--repetition-penalty", "3"),
        said("--max-new-tokens", "3", "--temperature", "0"),
    ]
    assert greedy not in others and len(set(others)) == 4
    assert greedy == said("--temperature", "0", "--decode", "eager", "--dtype", "float32")
    raw = mm.load(model, "cpu").ask(question="how many cups?", temperature=0.0)
    stop = next(letter for letter in raw[1:] if letter.isalnum())
    assert said("--temperature", "0", "--stop", "zzz", "--stop", stop) == raw[: raw.index(stop)]


def test_text_keeps_its_lines(
    model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mm.text.tokenizer.Tokenizer.token_bytes", lambda *_: b"a\n\tb\x1b[0m")
    said = asked(capsys, "--model", model, "--stream", "--max-new-tokens", "1", "why?")
    assert said == "a\n\tb\\x1b[0m"


def test_a_file_of_questions_without_pictures(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    questions, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    rows = [{"question": f"what is {i}?"} for i in range(3)]
    rows += [{"image": "a.png", "question": "what?"}, {"question": " "}]
    questions.write_text("\n".join(map(json.dumps, rows)) + "\n{}\n")
    files = ["--batch", str(questions), "--output", str(output), "--batch-size", "2"]
    assert ask.main([*files, "--model", model]) == 1
    err = capsys.readouterr().err.splitlines()
    assert err[0] == f'ask.py: {questions}:6: needs {{"question": TEXT}}'
    assert "a.png: this model reads text only" in err[1]
    assert f"{questions}:5: the question is empty" in err[2] and len(err) == 3
    answers = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["question"] for row in answers] == ["what is 0?", "what is 1?", "what is 2?"]
    loaded = mm.load(model, "cpu")
    assert [row["answer"] for row in answers] == [
        loaded.ask(question=row["question"]) for row in answers
    ]
    before = output.read_bytes()
    assert ask.main([*files, "--model", model]) == 1  # what is answered stays
    assert output.read_bytes() == before


def test_a_conversation_without_pictures(
    model: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(encoded())
    said = f"how many cups?\nhow many cups?\n/new\nhow many cups?\n/image {picture}\nwhat?\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO(said))
    one_line = ["--stop", "\n", "--temperature", "0", "--thinking", "off"]
    assert chat.main(["--model", model, *one_line]) == 1
    out, err = capsys.readouterr()
    first, second, again = out.splitlines()
    assert first == again and first != second
    assert err == "chat.py: not answered: this model reads text only: ask it without a picture\n"


def wrong(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Run with wrong usage; return the one line that says what is wrong."""
    script = caption if argv[0] == "caption" else ask
    try:
        status = script.main([argument for argument in argv if argument != "caption"])
    except SystemExit as exit_:
        status = int(exit_.code or 0)
    out, err = capsys.readouterr()
    assert status == 2 and out == "" and "Traceback" not in err
    assert err.startswith("usage: ") or err.count("\n") == 1
    return err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((" ",), "the question is empty"),
        (("word " * 400,), "shorten the text"),
        (("why?", "--temperature", "-1"), "temperature is -1.0; it must be 0 or more"),
        (("why?", "--top-p", "0"), "top_p is 0.0; it must be above 0 and at most 1"),
        (("why?", "--top-k", "-3"), "top_k is -3; it must be 0 (all) or more"),
        (("why?", "--min-p", "7"), "min_p is 7.0; it must be between 0 and 1"),
        (("why?", "--repetition-penalty", "0"), "repetition_penalty is 0.0; it must be above 0"),
        (("why?", "--stop", ""), "stop_strings is ('',); it must be texts that are not empty"),
        (("why?", "--decode", "quick"), "decode is quick; it must be one of auto, eager, compiled"),
        (("why?", "--decode", "fused"), "decode is 'fused', but it needs a CUDA device"),
        (("why?", "--dtype", "int8"), "unknown dtype 'int8'; known: float32"),
        (("why?", "--thinking", "maybe"), "invalid choice: 'maybe'"),
        (("caption", "x.png"), "reads text only, and captions no pictures"),
        (("caption", "x.png", "--prompt", "what?"), "reads text only"),
        (("x.png", "what?"), "reads text only: ask it without a picture"),
    ],
)
def test_what_makes_no_sense_is_one_line(
    model: str, arguments: tuple[str, ...], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reason in wrong(capsys, *arguments, "--model", model)


def test_a_question_alone_needs_a_model_that_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert "at least one picture and a question" in wrong(capsys, "why?")


def test_a_model_that_cannot_turn_thinking_on_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_model.save_text(tmp_path / "m", revision="instruct-2507", max_new_tokens=2)
    assert "can't think" in wrong(capsys, "why?", "--model", str(folder), "--thinking", "on")
    assert asked(capsys, "why?", "--model", str(folder))


@pytest.mark.filterwarnings("default")
def test_a_template_that_is_not_known_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_model.save_text(tmp_path / "m", max_new_tokens=2)
    (folder / "tokenizer_config.json").write_text('{"chat_template": "[INST] {{ messages }}"}')
    assert ask.main(["why?", "--model", str(folder)]) == 0
    out, err = capsys.readouterr()
    assert out and err.startswith("ask.py: warning: the model's folder has no chat template")
    assert err.count("\n") == 1


def test_numbers_that_are_not_finite_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tiny_model.model()
    with torch.no_grad():
        broken.decoder.model.norm.weight[0] = torch.nan
    folder = tiny_model.save_text(tmp_path / "broken", broken)
    for extra in ((), ("--stream",)):
        line = wrong(capsys, "why?", "--model", str(folder), *extra)
        assert line.startswith("ask.py: the model's logits hold NaN or infinity: use dtype")
