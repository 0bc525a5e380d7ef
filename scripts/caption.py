"""Describe pictures: `python scripts/caption.py IMAGE...`."""

import argparse
import sys
from collections.abc import Sequence

from mm.cli.answers import Record, answer_pictures
from mm.cli.console import run
from mm.cli.options import (
    IMAGE_HELP,
    add_model_options,
    add_output_options,
    load_model,
    make_parser,
)

PROG = "caption.py"
EXAMPLES = """\
  python scripts/caption.py photo.jpg
  find album -name '*.png' | python scripts/caption.py --json --lang ko -"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser(PROG, "Describe pictures.", EXAMPLES)
    parser.add_argument("images", metavar="IMAGE", nargs="+", help=IMAGE_HELP)
    parser.add_argument("--lang", default="en", help="language, en or ko (default: en)")
    parser.add_argument("--prompt", metavar="TEXT", help="ask for something else than a caption")
    add_output_options(parser)
    add_model_options(parser)
    args = parser.parse_intermixed_args(argv)
    return run(PROG, lambda: caption(args))


def caption(args: argparse.Namespace) -> int:
    model = load_model(args, PROG)
    prompt = model.caption_prompt(args.lang) if args.prompt is None else args.prompt

    def record(path: str, text: str) -> Record:
        return {"path": path, "caption": text}

    return answer_pictures(model, prompt, args, PROG, record)


if __name__ == "__main__":
    sys.exit(main())
