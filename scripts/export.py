"""Write a model in a published layout: `python scripts/export.py MODEL OUT`."""

import argparse
import sys
from collections.abc import Sequence

from mm.cli.console import run
from mm.cli.options import make_parser

PROG = "export.py"
DESCRIPTION = """\
Write a model in a published layout, which transformers and others load.

MODEL is mm's own, or a published folder, whose weights are laid out and cast anew. A model that
sees becomes one of transformers' InternVL, Llava, Qwen3VL or Lfm2Vl classes, if it is the same
network; if not, the part that does not fit is named. OUT appears whole or not at all."""
EXAMPLES = """\
  python scripts/export.py models/my-model exported
  python scripts/export.py models/my-model decoder --text-only
  python scripts/export.py models/Qwen3-30B-A3B halved --dtype bfloat16 --experts fused"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser(PROG, DESCRIPTION, EXAMPLES)
    parser.add_argument("model", metavar="MODEL", help="the model's folder")
    parser.add_argument("out", metavar="OUT", help="a new folder, or an older export to replace")
    parser.add_argument("--text-only", action="store_true", help="write the decoder alone")
    parser.add_argument(
        "--dtype",
        choices=("bfloat16", "float16", "float32"),
        help="of the weights (default: as they are)",
    )
    parser.add_argument(
        "--experts",
        choices=("each", "fused"),
        default="each",
        help="one by one, as published, or all of a layer in one tensor (default: each)",
    )
    parser.add_argument(
        "--max-shard-gb",
        type=float,
        default=5.0,
        metavar="N",
        help="largest file, in 10**9 bytes (default: 5)",
    )
    args = parser.parse_args(argv)
    return run(PROG, lambda: run_export(args))


def run_export(args: argparse.Namespace) -> int:
    import torch

    from mm.checkpoints.export import export
    from mm.errors import UsageError

    if not 0 < args.max_shard_gb < 1e9:
        raise UsageError(f"--max-shard-gb is {args.max_shard_gb}; it must be above 0")
    note = export(
        args.model,
        args.out,
        text_only=args.text_only,
        dtype=getattr(torch, args.dtype) if args.dtype else None,
        experts=args.experts,
        max_shard_bytes=int(args.max_shard_gb * 10**9),
    )
    print(f"{PROG}: {note}\n" if note else "", end="", file=sys.stderr)
    print(args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
