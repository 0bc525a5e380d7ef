"""Count lines of code per folder, and in the files between a picture and its caption.

Lines of code are those that are not blank, comment or docstring. The way from picture to caption
is what `scripts/caption.py` imports, directly or not, plus the parts that the model names.

Examples:
  python scripts/count_lines.py
  python scripts/count_lines.py --start scripts.scrub
"""

import argparse
import sys
from pathlib import Path

from mm.report.source import lines_per_folder, reading_path

# Found by name when a model is loaded, so that no import statement shows them.
PARTS = ("mm.encoders.siglip", "mm.projectors.mlp")


def table(rows: list[tuple[str, int]]) -> str:
    """Lay out names and counts, with their sum."""
    rows = [*rows, ("together", sum(count for _, count in rows))]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {count:>6,}" for name, count in rows)


def main() -> int:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--start", default="scripts.caption", help="module to start reading from")
    start = parser.parse_args().start
    root = Path(__file__).resolve().parents[1]
    try:
        path = reading_path(root, start, also=PARTS if start == "scripts.caption" else ())
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("Lines of code per folder\n")
    print(table(sorted(lines_per_folder(root).items())))
    print(f"\nFiles behind {start}, in the order in which imports lead to them\n")
    print(table([(file.path.as_posix(), file.lines) for file in path]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
