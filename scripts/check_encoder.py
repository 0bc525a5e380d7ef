"""Check that an encoder keeps the contract: `python scripts/check_encoder.py NAME`.

NAME is a file of conf/encoder, or a registered name (a package's own too) for its defaults. Each
check that fails says what to change, and the exit status is 1.

Examples:
  python scripts/check_encoder.py siglip_base
  python scripts/check_encoder.py dinov3 --tiny image_size=64
  python scripts/check_encoder.py siglip --reference DIR --json
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mm.cli.console import run

CONF = Path(__file__).resolve().parents[1] / "conf"


def check(args: argparse.Namespace) -> int:
    """Run the suite and print what it found."""
    from mm.encoders import conformance, load, name_of
    from mm.errors import UsageError
    from mm.report import check_encoder as report

    encoder = report.make_encoder(args.name, args.fields, CONF, args.tiny)
    reference = None
    if args.reference:
        kind, encoder = type(encoder), load(args.reference).float()
        if type(encoder) is not kind:
            raise UsageError(f"{args.reference} holds a {name_of(type(encoder))}, not {args.name}")
        reference = report.load_reference(args.reference)
    around = conformance.Surroundings(
        save_and_load=report.save_and_load,
        projectors=report.small_projectors(encoder.hidden_size),
        reference=reference,
        compile_backend=args.compile or None,
        least_per_second=args.at_least,
        batch_size=args.batch_size,
        skip=args.skip,
    )
    try:
        results = list(conformance.run(encoder, around))
    except ValueError as error:
        raise UsageError(str(error)) from None
    print((report.as_json if args.json else report.table)(args.name, results))
    return int(any(result.status == "fail" for result in results))


def main(argv: Sequence[str] | None = None) -> int:
    """Read the arguments and check the encoder they name."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("name", metavar="NAME", help="such as siglip_base")
    add("fields", nargs="*", metavar="FIELD=VALUE", help="of the encoder's config")
    add("--tiny", action="store_true", help="shrink it first, which takes seconds")
    add("--reference", metavar="DIR", help="a published folder, also read with transformers")
    add("--compile", default="inductor", metavar="BACKEND", help="default: inductor; '' for none")
    add("--batch-size", type=int, default=4, help="of the throughput's batches (default: 4)")
    add("--at-least", type=float, default=0, metavar="N", help="pictures a second to demand")
    add("--skip", action="append", default=[], metavar="CHECK", help="leave a check out")
    add("--json", action="store_true", help="print JSON instead of a table")
    return run("check_encoder.py", lambda: check(parser.parse_intermixed_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
