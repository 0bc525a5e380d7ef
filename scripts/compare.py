"""Compare runs: mean, interval over seeds and items, paired difference to a baseline, cost.

A RUN is a run's folder or a sweep's, which stands for all runs in it. Runs that differ by their
seed alone are one row. The mark ≈ stands where a row can't be told apart from the baseline.

Examples:
  python scripts/compare.py runs/sweep
  python scripts/compare.py runs/a runs/b --metric held_out/count.en --output result
                                     (writes result.md, result.json, result.png and result.svg)
"""

import argparse
import sys

from mm.cli.console import run


def show(arguments: argparse.Namespace) -> int:
    """Print the table; write the files."""
    from mm.report.compare import plot
    from mm.report.compare.comparison import compare
    from mm.report.compare.runs import collect

    found = collect(arguments.runs)
    for folder in found.unfinished:
        print(f"left out: {folder}", file=sys.stderr)
    comparison = compare(found.variants, arguments.metric, arguments.baseline)
    print(comparison.table())
    if arguments.output:
        comparison.save(arguments.output)
        plot.save(comparison, f"{arguments.output}.png", f"{arguments.output}.svg")
    return 0


def main() -> int:
    """Read the arguments and compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders that train.py wrote")
    parser.add_argument("--metric", help="a logged name (default: held_out, else loss)")
    parser.add_argument("--baseline", metavar="ROW", help="a row's name (default: the first)")
    parser.add_argument("--output", metavar="PREFIX", help="also write table, JSON and plots")
    arguments = parser.parse_args()
    return run("compare", lambda: show(arguments))


if __name__ == "__main__":
    sys.exit(main())
