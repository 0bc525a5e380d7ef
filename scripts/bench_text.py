"""Measure the text rules of mm.privacy: recall and precision by kind and language, and speed.

The lines are made up from a seed: `development` is what the rules were written with, `held_out`
what they were not, `faker` puts values from Faker's lists (pip install 'mm[faker]')
into the held-out lines.
A value counts as found when none of its letters and digits is left. --clean counts the lines of a
file of yours in which something is found, by kind, and shows none.

Examples:
  python scripts/bench_text.py
  python scripts/bench_text.py held_out --seed 7 --names spacy
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Measure, print a table and write everything as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("sets", nargs="*", help="development, held_out, faker (default: the first two)")
    add("--per-kind", type=int, default=200, help="lines of each kind and language (200)")
    add("--seed", type=int, default=0, help="of the values (0)")
    add("--names", default="rules", help="what finds people: rules, presidio or spacy")
    add("--clean", type=Path, metavar="FILE", help="a text that should be left alone")
    add("--json", type=Path, help="where to write (default: runs/bench-text.json)")
    arguments = parser.parse_args()

    from mm.report import bench, bench_text

    try:
        result = bench_text.bench_text(
            arguments.sets or ("development", "held_out"),
            arguments.per_kind,
            arguments.seed,
            arguments.names,
            arguments.clean,
        )
        print(bench_text.table(result))
        bench.write_json(result, arguments.json or ROOT / "runs/bench-text.json")
    except (ValueError, OSError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
