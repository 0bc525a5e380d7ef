"""Count what a scrubbed data set is made of: tags and their entropy, scripts, near duplicates.

Examples:
  python scripts/diversity.py data/held_out/scenes_seen
  python scripts/diversity.py data/a data/b --output runs/x/results/diversity.json
"""

import argparse
import sys
from itertools import chain

from mm.cli.console import run


def show(arguments: argparse.Namespace) -> int:
    """Count, print and write."""
    from mm.data.shards import ShardReader
    from mm.evaluate.diversity import diversity
    from mm.evaluate.results import save_facts

    samples = chain.from_iterable(ShardReader(folder) for folder in arguments.shards)
    found = diversity(samples, arguments.sampled)
    print(found.table())
    if arguments.output:
        save_facts(found.facts(), "diversity", arguments.output, sys.argv)
    return 0


def main() -> int:
    """Read the arguments and count."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shards", nargs="+", metavar="DIR", help="scrubbed shards")
    parser.add_argument("--sampled", type=int, default=5000, help="pictures compared (5000)")
    parser.add_argument("--output", metavar="FILE.json", help="also write everything as JSON")
    arguments = parser.parse_args()
    return run("diversity", lambda: show(arguments))


if __name__ == "__main__":
    sys.exit(main())
