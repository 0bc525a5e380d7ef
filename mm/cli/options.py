"""Options that the scripts share, and what they say to the model."""

import argparse
import sys
from typing import TYPE_CHECKING, Any

from mm.cli.console import printable

if TYPE_CHECKING:
    from mm.model import Model, Options

# Of `mm.model.Options`, those that can be given here.
OPTIONS = (
    "max_new_tokens",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "seed",
    "stop_strings",
    "decode",
)
TOLD_FROM = 10**9  # bytes of weights from which loading takes a while
IMAGE_HELP = "file, folder (its pictures, found by content), pattern, or - for paths on stdin"


def make_parser(prog: str, description: str, examples: str) -> argparse.ArgumentParser:
    """A parser whose help ends with examples."""
    return argparse.ArgumentParser(
        prog=prog,
        description=description,
        epilog=f"examples:\n{examples}\n\nexit status: 0, 1 if an input failed, 2 on wrong usage",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Options of every script that runs a model."""
    add = parser.add_argument_group("model").add_argument
    add("--model", metavar="DIR", help="a model's folder (default: the one in the package)")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    add("--dtype", help="float32, bfloat16 or float16 (default: bfloat16 on a GPU, else float32)")
    add("--decode", help="auto, eager, compiled or fused: how tokens are computed (default: auto)")
    group = parser.add_argument_group("answers", "By default as the model's folder says.")
    add = group.add_argument
    add("--max-new-tokens", type=int, metavar="N", help="longest answer, in tokens")
    add("--temperature", type=float, metavar="X", help="0 is the likeliest answer")
    add("--top-k", type=int, metavar="N", help="sample among the N likeliest tokens; 0 is all")
    add("--top-p", type=float, metavar="X", help="sample among tokens that together reach X")
    add("--min-p", type=float, metavar="X", help="leave out tokens below X times the likeliest")
    add("--repetition-penalty", type=float, metavar="X", help="above 1: repeat less")
    add("--seed", type=int, metavar="N", help="of sampling (default: 0)")
    add("--thinking", choices=("on", "off"), help="think before answering, or not")
    add(
        "--policy",
        default="people",
        metavar="NAME",
        help="what is not answered: people (default: who somebody in a picture is), names (answers"
        " with a person's name besides), none, or your own MODULE:CLASS (see docs/misuse.md)",
    )
    add("--stop", action="append", metavar="TEXT", help="end in front of TEXT; may be repeated")


def load_model(args: argparse.Namespace, prog: str) -> "Model":
    """Load the model that was asked for; say first what a large one takes of the memory."""
    from mm.model import Model, memory_needed
    from mm.refusal import make_policy

    policy = make_policy(args.policy)
    if args.model is not None:
        needs = memory_needed(args.model, args.device, args.dtype)
        if needs.fits and needs.weights >= TOLD_FROM:  # else loading says that it can't
            print(f"{prog}: {printable(args.model)}: {needs}", file=sys.stderr, flush=True)
    model = Model.load(args.model, args.device, args.dtype)
    model.policy = policy
    return model


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """Options of the scripts that answer for many pictures."""
    group = parser.add_argument_group("output")
    form = group.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object a line")
    form.add_argument(
        "--stream", action="store_true", help="print words as they come (without beams)"
    )
    group.add_argument(
        "--batch-size", type=positive, metavar="N", help="pictures at a time (default: 16 on a CPU)"
    )


def positive(text: str) -> int:
    """An argument that counts something."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def generation_options(args: argparse.Namespace) -> "Options":
    """The options that were given, for `mm.model.Model`."""
    named = {**vars(args), "stop_strings": args.stop}
    given: Any = {name: named[name] for name in OPTIONS if named[name] is not None}
    options: Options = given
    return options
