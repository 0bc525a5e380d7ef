"""Talk, about pictures or without, several turns: `python scripts/chat.py [IMAGE...]`."""

import argparse
import sys
from collections.abc import Sequence

from mm.cli.console import Console, read_line, readable, run
from mm.cli.options import add_model_options, generation_options, load_model, make_parser
from mm.errors import MMError
from mm.privacy import PrivacyError

PROG = "chat.py"
EXAMPLES = """\
  python scripts/chat.py photo.jpg
  python scripts/chat.py --model DIR --thinking off
  printf 'What is this?\\nWhat colour is it?\\n' | python scripts/chat.py photo.jpg"""
HELP = "/image PATH adds a picture, /new starts again without pictures, /quit ends"


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser(PROG, f"Talk, about pictures or without. In the chat: {HELP}.", EXAMPLES)
    parser.add_argument("images", metavar="IMAGE", nargs="*", help="pictures to talk about")
    add_model_options(parser)
    args = parser.parse_intermixed_args(argv)
    return run(PROG, lambda: chat(args))


def chat(args: argparse.Namespace) -> int:
    from mm.text.chat import IMAGE_MARKER

    model = load_model(args, PROG)
    console = Console(PROG, 0)
    images, turns = list(args.images), list[tuple[str, str]]()
    num_told = 0  # pictures that an earlier turn has shown
    while (line := read_line("> ", HELP)) is not None and line != "/quit":
        if line == "/new":
            images, turns, num_told = [], [], 0
        elif line.startswith("/image "):
            images.append(line.removeprefix("/image ").strip())
        elif line.strip():
            asked = ("user", IMAGE_MARKER * (len(images) - num_told) + line)
            try:
                request = model.prepare_turns([*turns, asked], images, thinking=args.thinking)
            except (MMError, PrivacyError, ValueError) as error:
                console.problem("not answered", str(error))
                images = images[:num_told]
                continue
            parts = []
            for part in model.stream(request, **generation_options(args)):
                parts.append(part)
                print(readable(part), end="", flush=True)
            print(flush=True)
            turns += [asked, ("assistant", "".join(parts))]
            num_told = len(images)
    return console.close()


if __name__ == "__main__":
    sys.exit(main())
