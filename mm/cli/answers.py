"""Answer a prompt about many pictures and print: what `caption.py` and `ask.py` have in common."""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mm.cli.console import Console, printable, readable
from mm.cli.inputs import Source, find_pictures
from mm.cli.options import generation_options
from mm.errors import PictureError, UsageError
from mm.privacy import DoorError

if TYPE_CHECKING:
    from mm.model import Answer, Model

Record = dict[str, Any]  # what `--json` prints


def answer_all(
    model: "Model",
    items: Sequence[tuple[Source, str]],
    console: Console,
    args: argparse.Namespace,
    *,
    one_prompt: bool = True,
) -> Iterator[list[tuple[int, "Answer"]]]:
    """Answer a prompt about each picture, in batches; report those that fail and go on.

    Args:
        items: pictures and prompts.
        args: parsed model and output options.
        one_prompt: all prompts are one and the same, so that a bad one stops the work instead of
            failing every picture.

    Yields:
        For each batch, the index of each item that worked and its answer.
    """
    size = args.batch_size or model.batch_size
    for start in range(0, len(items), size):
        requests = {}
        batch = items[start : start + size]
        for index, (source, prompt) in enumerate(batch, start):
            try:
                if source.problem is None:
                    image = source.path if source.is_picture else None
                    requests[index] = model.prepare(image, prompt, args.thinking)
                else:
                    console.problem(source.path, source.problem)
            except (DoorError, PictureError) as error:
                console.problem(source.path, str(error))
            except UsageError as error:
                if one_prompt:
                    raise
                console.problem(source.path, str(error))
        answers = model.run(list(requests.values()), **generation_options(args))
        yield list(zip(requests, answers, strict=True))
        console.step(len(batch))


def answer_facts(answer: "Answer", provenance: Record) -> Record:
    """What `--json` says about every answer, besides its text.

    Args:
        provenance: the marks of `provenance_of`; a refusal, which no model wrote, has none.
    """
    facts: Record = {
        "confidence": round(answer.confidence, 4),
        "declined": answer.declined,
        "tokens": answer.tokens,
        "complete": answer.complete,
    }
    if answer.refused:
        return {**facts, "refused": answer.refused}
    if answer.reasoning:
        facts["reasoning"] = answer.reasoning
    return {**facts, "provenance": provenance}


def provenance_of(model: "Model") -> Record:
    """The marks of everything that a model says, see `mm.provenance`."""
    from mm.provenance import marks

    return {} if model.folder is None else marks(model.folder)


def answer_question(model: "Model", question: str, args: argparse.Namespace, prog: str) -> int:
    """Answer a question without a picture, and print; returns the exit status."""
    console = Console(prog, 1)
    request = model.prepare(None, question, args.thinking)
    if args.stream:
        for part in model.stream(request, **generation_options(args)):
            print(readable(part), end="", flush=True)
        print(flush=True)
        return console.close()
    (answer,) = model.run([request], **generation_options(args))
    if args.json:
        facts = answer_facts(answer, provenance_of(model))
        row = {"question": question, "answer": answer.text, **facts}
        console.result(json.dumps(row, ensure_ascii=False))
    else:
        console.result(readable(answer.text))
    return console.close()


def answer_pictures(
    model: "Model",
    prompt: str,
    args: argparse.Namespace,
    prog: str,
    record: Callable[[str, str], Record],
) -> int:
    """Answer one prompt about the pictures of `args.images`, and print.

    Args:
        prompt: what to ask about each.
        args: parsed options; `images` are the arguments that lead to pictures.
        prog: the script's name.
        record: makes the JSON object of a path and an answer's text.

    Returns:
        The exit status.
    """
    sources = find_pictures(args.images)
    console = Console(prog, len(sources))
    # One file that was named needs no name in front of its answer.
    is_alone = [source.path for source in sources] == args.images
    is_alone = is_alone and len(sources) == 1
    names = ["" if is_alone else printable(source.path) + ": " for source in sources]
    items = [(source, prompt) for source in sources]
    if args.stream:
        for index, item in enumerate(items):
            _stream_one(model, item, names[index], console, args)
        return console.close()
    marks = provenance_of(model) if args.json else {}
    for batch in answer_all(model, items, console, args):
        for index, answer in batch:
            if args.json:
                row = record(sources[index].path, answer.text) | answer_facts(answer, marks)
                console.result(json.dumps(row, ensure_ascii=False))
            else:
                console.result(names[index] + printable(answer.text.replace("\n", " ")))
    return console.close()


def _stream_one(
    model: "Model", item: tuple[Source, str], name: str, console: Console, args: argparse.Namespace
) -> None:
    source, prompt = item
    if source.problem is not None:
        console.problem(source.path, source.problem)
        return
    try:
        request = model.prepare(source.path, prompt, args.thinking)
    except (DoorError, PictureError) as error:
        console.problem(source.path, str(error))
        return
    print(name, end="", flush=True)
    for part in model.stream(request, **generation_options(args)):
        print(printable(part.replace("\n", " ")), end="", flush=True)
    print(flush=True)
