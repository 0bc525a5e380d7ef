"""Fetch the openly licensed artwork and prepare it as pictures with an index.

python scripts/prepare_artwork.py --output artwork/raw [--cache DIR]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Fetch and prepare the artwork of the scenes.")
    parser.add_argument("--output", type=Path, default=Path("artwork/raw"))
    parser.add_argument("--cache", type=Path, default=Path("artwork/cache"))
    parser.add_argument("--only", nargs="+", default=[], metavar="SET", help="just these sets")
    skip_help = "leave out these sources of pictures, or all of a package manager (debian)"
    parser.add_argument("--skip", nargs="+", default=[], metavar="SOURCE", help=skip_help)
    arguments = parser.parse_args()

    from mm.data.artwork import build
    from mm.data.artwork.fetch import FetchError

    try:
        counts = build.prepare(arguments.output, arguments.cache, arguments.only, arguments.skip)
    except (FetchError, FileExistsError, ValueError) as error:
        print(f"prepare_artwork: {error}", file=sys.stderr)
        return 1
    for name, count in counts.items():
        print(f"{count:6d}  {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
