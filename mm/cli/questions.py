"""Answer a file of questions, so that a run that was stopped goes on where it was."""

import argparse
import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mm.cli.answers import Record, answer_all, answer_facts, provenance_of
from mm.cli.console import Console
from mm.cli.inputs import Source
from mm.errors import UsageError

if TYPE_CHECKING:
    from mm.model import Model

TEXT_ONLY = "this model reads text only: leave the picture out"
LINE_START = b'{"line": '


def answer_file(
    model: "Model", questions: str, output: str, args: argparse.Namespace, prog: str
) -> int:
    """Answer the questions of a JSONL file, appending to another; answered lines are skipped.

    Each line of `questions` has `image`, a path from that file's folder on, and `question`, which
    is all that a text model is asked; each line of `output` repeats them with the number of the
    line, the answer and its facts. A batch is written at once, so that stopping at any moment loses
    at most one batch.

    Returns:
        The exit status.

    Raises:
        UsageError: a file that cannot be read or written, or an output of other questions.
    """
    try:
        with open(questions, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().split("\n")
        done = _answered_lines(output, lines)
        todo = [n for n, line in enumerate(lines, 1) if line.strip() and n not in done]
        console = Console(prog, len(todo))
        asked: list[tuple[int, Record]] = []
        for number in todo:
            row = _question(lines[number - 1])
            if row is None or (model.sees and "image" not in row):
                wanted = '{"image": PATH, "question": TEXT}' if model.sees else '{"question": TEXT}'
                console.problem(f"{questions}:{number}", f"needs {wanted}")
                console.step()
            else:
                asked.append((number, row))
        folder = os.path.dirname(questions)
        sources = [
            Source(os.path.join(folder, row["image"]), None if model.sees else TEXT_ONLY)
            if "image" in row
            else Source(f"{questions}:{number}", is_picture=False)
            for number, row in asked
        ]
        items = [(source, row["question"]) for source, (_, row) in zip(sources, asked, strict=True)]
        marks = provenance_of(model)
        with open(output, "ab", buffering=0) as sink:
            for batch in answer_all(model, items, console, args, one_prompt=False):
                rows = []
                for index, answer in batch:
                    number, row = asked[index]
                    facts = answer_facts(answer, marks)
                    said = {"line": number, **row, "answer": answer.text, **facts}
                    rows.append(json.dumps(said, ensure_ascii=True) + "\n")
                sink.write("".join(rows).encode())
                os.fsync(sink.fileno())
    except OSError as error:
        raise UsageError(f"{error.filename or output}: {error.strerror}") from None
    return console.close()


def _question(line: str) -> Record | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    if not isinstance(row, dict):
        return None
    found = {name: row[name] for name in ("image", "question") if name in row}
    is_good = "question" in found and all(isinstance(value, str) for value in found.values())
    return found if is_good else None


def _answered_lines(output: str, questions: Sequence[str]) -> set[int]:
    """Numbers of the lines that `output` has answers to. A line that was cut off is removed."""
    if not os.path.exists(output):
        return set()
    with open(output, "r+b") as file:
        data = file.read()
        *lines, rest = data.split(b"\n")
        done = {_answered_line(line, questions) for line in lines}
        is_ours = rest.startswith(LINE_START) or LINE_START.startswith(rest)
        if None in done or not is_ours:
            raise UsageError(f"{output} holds answers to other questions: give another --output")
        file.truncate(len(data) - len(rest))
    return {number for number in done if number is not None}


def _answered_line(line: bytes, questions: Sequence[str]) -> int | None:
    try:
        answer = json.loads(line)
        number = answer["line"]
        asked = _question(questions[number - 1])
    except (ValueError, KeyError, TypeError, IndexError):
        return None
    same = asked == {name: answer[name] for name in ("image", "question") if name in answer}
    return number if same and number > 0 else None
