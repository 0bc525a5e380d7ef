"""Read what evaluate.py wrote of every question: scores by slice, languages, paired differences.

RECORDS is a .jsonl of scripts/evaluate.py. Further ones (--against) of the same task are compared
with it, question by question. With --trained, records of the same model on what it was trained on,
those scores stand beside the ones of RECORDS, which was held out.

Examples:
  python scripts/slices.py runs/a/results/scenes.jsonl --output runs/a/results/slices.json
  python scripts/slices.py a.jsonl --against b.jsonl c.jsonl --tags kind language
  python scripts/slices.py held_out.jsonl --trained trained.jsonl --output runs/a/results/gap.json
"""

import argparse
import sys

from mm.cli.console import run


def show(arguments: argparse.Namespace) -> int:
    """Print the tables; write the JSON."""
    from mm.evaluate.gap import training_gap
    from mm.evaluate.records import read_records
    from mm.evaluate.results import save_facts
    from mm.evaluate.slices import slices
    from mm.evaluate.statistics import paired
    from mm.report.slice_tables import comparison_table, gap_table, paired_facts, slice_tables

    records = list(read_records(arguments.records))
    if arguments.trained:
        trained = read_records(arguments.trained)
        gap = training_gap(trained, records, arguments.tags, arguments.min_items)
        print(gap_table(gap))
        kind, facts = "gap", gap.facts()
    else:
        found = slices(records, arguments.tags, arguments.min_items)
        print(slice_tables(found))
        others = {path: paired(read_records(path), records) for path in arguments.against}
        if others:
            print(f"\nless {arguments.records}:\n\n{comparison_table(others)}")
        kind, facts = "slices", {**found.facts(), "against": paired_facts(others)}
    if arguments.output:
        save_facts(facts, kind, arguments.output, sys.argv)
    return 0


def main() -> int:
    """Read the arguments and show."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("records", metavar="RECORDS", help="a .jsonl of evaluate.py")
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--against", nargs="+", default=[], metavar="RECORDS", help="other runs")
    other.add_argument("--trained", metavar="RECORDS", help="of what this model was trained on")
    parser.add_argument("--tags", nargs="+", metavar="TAG", help="default: all of several values")
    parser.add_argument("--min-items", type=int, default=30, help="pictures of a slice to read it")
    parser.add_argument("--output", metavar="FILE.json", help="also write everything as JSON")
    arguments = parser.parse_args()
    return run("slices", lambda: show(arguments))


if __name__ == "__main__":
    sys.exit(main())
