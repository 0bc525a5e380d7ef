"""Look for an evaluation set in training shards: the same and changed pictures, the same texts.

With --records, a .jsonl that evaluate.py wrote of that set, the scores of what was found and of the
rest stand beside each other.

Examples:
  python scripts/contamination.py data/held_out/scenes_seen --training data/train
  python scripts/contamination.py data/set --training data/a data/b --records set.jsonl
"""

import argparse
import sys
from itertools import chain

from mm.cli.console import run


def show(arguments: argparse.Namespace) -> int:
    """Search, print and write."""
    from mm.data.shards import ShardReader
    from mm.evaluate.contamination.search import clean_and_touched, find
    from mm.evaluate.records import read_records
    from mm.evaluate.results import save_facts
    from mm.report.slice_tables import slice_tables

    training = chain.from_iterable(ShardReader(folder) for folder in arguments.training)
    found = find(ShardReader(arguments.evaluation), training)
    print(found.table())
    facts = found.facts()
    if arguments.records:
        scores = clean_and_touched(read_records(arguments.records), found.touched)
        print("\n" + slice_tables(scores))
        facts["scores"] = scores.facts()
    if arguments.output:
        save_facts(facts, "contamination", arguments.output, sys.argv)
    return 0


def main() -> int:
    """Read the arguments and search."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("evaluation", help="scrubbed shards of the evaluation set")
    parser.add_argument("--training", nargs="+", required=True, metavar="DIR", help="shards")
    parser.add_argument("--records", metavar="FILE.jsonl", help="what evaluate.py wrote of the set")
    parser.add_argument("--output", metavar="FILE.json", help="also write everything as JSON")
    arguments = parser.parse_args()
    return run("contamination", lambda: show(arguments))


if __name__ == "__main__":
    sys.exit(main())
