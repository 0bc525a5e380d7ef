"""Write a model in the published Qwen3 layout: `python scripts/export.py MODEL OUT`."""

import argparse
import sys
from collections.abc import Sequence

from mm.cli.console import run
from mm.cli.options import make_parser

PROG = "export.py"
DESCRIPTION = """\
Write a model in the published Qwen3 layout, which transformers and others load.

MODEL is a published Qwen3 folder, whose weights are laid out and cast anew, or mm's own, of which
the decoder and the tokenizer are written. OUT appears whole or not at all."""
EXAMPLES = """\
  python scripts/export.py models/my-model exported
  python scripts/export.py models/Qwen3-30B-A3B halved --dtype bfloat16 --experts fused"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser(PROG, DESCRIPTION, EXAMPLES)
    parser.add_argument("model", metavar="MODEL", help="the model's folder")
    parser.add_argument("out", metavar="OUT", help="a new folder, or an older export to replace")
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
    left_out = export(
        args.model,
        args.out,
        dtype=getattr(torch, args.dtype) if args.dtype else None,
        experts=args.experts,
        max_shard_bytes=int(args.max_shard_gb * 10**9),
    )
    if left_out:
        print(f"{PROG}: text only, without its {' and '.join(left_out)}", file=sys.stderr)
    print(args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
