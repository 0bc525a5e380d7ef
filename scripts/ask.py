"""Answer a question, about pictures or alone: `python scripts/ask.py [IMAGE...] "QUESTION"`."""

import argparse
import os
import sys
from collections.abc import Sequence

from mm.cli.answers import Record, answer_pictures, answer_question
from mm.cli.console import run
from mm.cli.options import (
    IMAGE_HELP,
    add_model_options,
    add_output_options,
    load_model,
    make_parser,
)
from mm.cli.questions import answer_file

PROG = "ask.py"
EXAMPLES = """\
  python scripts/ask.py photo.jpg "What is on the table?"
  python scripts/ask.py "Why is the sky blue?" --model DIR --stream
  python scripts/ask.py --batch questions.jsonl --output answers.jsonl"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser(PROG, "Answer a question about each picture, or alone.", EXAMPLES)
    parser.usage = f"{PROG} [options] [IMAGE...] QUESTION | --batch IN.jsonl --output OUT.jsonl"
    parser.add_argument("images", metavar="IMAGE", nargs="*", help=IMAGE_HELP)
    parser.add_argument("question", metavar="QUESTION", nargs="?", help="comes last, in quotes")
    parser.add_argument("--lang", help="as for caption.py, but the question itself decides")
    parser.add_argument(
        "--batch",
        metavar="IN.jsonl",
        help='lines of {"image": PATH, "question": TEXT}, the image only for models that see',
    )
    parser.add_argument("--output", metavar="OUT.jsonl", help="appended to; answered lines stay")
    add_output_options(parser)
    add_model_options(parser)
    args = parser.parse_intermixed_args(argv)
    if (args.batch is None) != (args.output is None):
        parser.error("--batch and --output go together")
    if args.batch is not None and args.images:
        parser.error("give pictures and a question, or --batch, not both")
    if args.batch is None:
        if len(args.images) < (2 if args.model is None else 1):
            parser.error('give at least one picture and a question: ask.py IMAGE... "QUESTION"')
        *args.images, args.question = args.images
        if os.path.exists(args.question):
            parser.error(f"the last argument must be the question; {args.question} is a file")
    return run(PROG, lambda: ask(args))


def ask(args: argparse.Namespace) -> int:
    model = load_model(args, PROG)
    if args.batch is not None:
        return answer_file(model, args.batch, args.output, args, PROG)
    if not args.images:
        return answer_question(model, args.question, args, PROG)

    def record(path: str, text: str) -> Record:
        return {"path": path, "question": args.question, "answer": text}

    return answer_pictures(model, args.question, args, PROG, record)


if __name__ == "__main__":
    sys.exit(main())
