"""Show where the model looked: `python scripts/explain.py IMAGE "QUESTION" --output FILE.png`."""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from math import inf
from pathlib import Path

from mm.cli.console import FAILED, Console, printable, run
from mm.cli.explaining import PROG, parse_explain
from mm.cli.options import generation_options, load_model
from mm.errors import PictureError
from mm.privacy import DoorError


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_explain(argv)
    args.command = f"python scripts/{PROG} {shlex.join(argv or sys.argv[1:])}"
    return run(PROG, lambda: explain(args) if args.measure is None else measure(args))


def explain(args: argparse.Namespace) -> int:
    from mm.explain.methods import DEFAULT_METHOD, Settings
    from mm.explain.overlay import load_font
    from mm.explain.picture import explain_picture

    font, settings = load_font(args.font), Settings(args.steps, args.cells)
    model, console = load_model(args, PROG), Console(PROG, 1)
    question = args.question or model.caption_prompt(args.lang)
    own = {"answer": args.answer, "thinking": args.thinking, "settings": settings}
    try:
        found = explain_picture(
            model,
            args.image,
            question,
            args.method or [DEFAULT_METHOD],
            **own,
            **generation_options(args),
        )
    except (DoorError, PictureError) as error:
        console.problem(args.image, str(error))
        return FAILED
    lines = [json.dumps(found.facts(), ensure_ascii=False)] if args.json else found.lines()
    lines += [] if args.lens is None else found.lens.table(args.lens).splitlines()
    for line in lines:
        console.result(printable(line))
    if args.output:
        found.draw(font).save(args.output, "PNG")
    return console.close()


def measure(args: argparse.Namespace) -> int:
    from mm.explain.measure import measure
    from mm.explain.methods import Settings
    from mm.explain.scenes import cases

    def step(done: int, of: int) -> None:
        print(f"\r{PROG}: {done}/{of}", end="" if done < of else "\n", file=sys.stderr, flush=True)

    model, settings = load_model(args, PROG), Settings(args.steps, args.cells)
    seed = args.seed or 0
    asked = cases(args.measure, args.artwork, seed)
    found = measure(model, asked, args.method or (), settings, seed, args.budget or inf, step)
    print(found.table())
    if args.output:
        text = json.dumps({**found.facts(), "command": args.command}, indent=1)
        Path(args.output).write_text(text + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
