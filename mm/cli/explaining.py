"""The command line of `explain.py`."""

import argparse
from collections.abc import Sequence

from mm.cli.options import add_model_options, make_parser, positive

PROG = "explain.py"
EXAMPLES = """\
  python scripts/explain.py photo.jpg "What is on the table?" --output looked.png
  python scripts/explain.py photo.jpg "Is there a cup?" --method all --answer yes --output a.png
  python scripts/explain.py --measure 50 --artwork data/artwork --output faithfulness.json"""
METHOD_HELP = (
    "rollout, gradient_attention, gradient_tokens, integrated_gradients, occlusion (default),"
    " shapley, or all; may be repeated"
)


def parse_explain(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the arguments."""
    parser = make_parser(PROG, "Show where the model looked for each part of an answer.", EXAMPLES)
    parser.usage = f"{PROG} [options] IMAGE QUESTION --output FILE.png | --measure SCENES"
    add = parser.add_argument
    add("image", metavar="IMAGE", nargs="?", help="a picture's file")
    add("question", metavar="QUESTION", nargs="?", help="in quotes; left out: a caption")
    add("--lang", default="en", help="language of the caption, en or ko (default: en)")
    add("--answer", metavar="TEXT", help="explain this answer rather than the model's own")
    add("--method", action="append", metavar="NAME", help=METHOD_HELP)
    add("--cells", type=positive, default=8, metavar="N", help="finer: side of the grid (8)")
    add("--steps", type=positive, default=16, metavar="N", help="of integrated gradients (16)")
    add("--output", metavar="FILE", help="PNG with the maps; with --measure, JSON")
    add("--font", metavar="FILE", help="font of the labels, if yours has no Korean letters")
    add("--lens", type=int, metavar="LAYER", help="print the words at the image tokens; -1: last")
    add("--json", action="store_true", help="print one JSON object")
    add("--measure", type=positive, metavar="SCENES", help="how faithful each method is on scenes")
    add("--artwork", nargs="+", default=[], metavar="DIR", help="scrubbed artwork; none: shapes")
    add("--budget", type=positive, metavar="SECONDS", help="measure what is done by then")
    add_model_options(parser)
    args = parser.parse_intermixed_args(argv)
    if (args.image is None) == (args.measure is None):
        parser.error('give a picture and a question: explain.py IMAGE "QUESTION", or --measure N')
    return args
