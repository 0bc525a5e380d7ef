"""Write the card of a run, of a model's folder or of a scrubbed set, from what lies in it.

Of a run: card.md, card.json and the model's README.md. It reads config.yaml, run.json, status.json,
metrics.jsonl, held_out.jsonl, the ledgers that the run names, and every file of RUN/results, where
evaluate.py, contamination.py, misuse.py and others leave what they measured. What nobody measured
is named in the card, with the command. Of a set: README.md and croissant.json (Croissant 1.0).

Examples:
  python scripts/card.py runs/scenes
  python scripts/card.py runs/scenes --grid 420        (g of CO2 per kWh where it was trained)
  python scripts/card.py data/photos --licence CC-BY-4.0
"""

import argparse
import sys
from pathlib import Path

from mm.cli.console import run


def write(arguments: argparse.Namespace) -> int:
    """Write each card; print where."""
    from mm.report.card import write_data_card, write_run_card

    for folder in arguments.folders:
        if (Path(folder) / "ledger.json").exists():
            print(write_data_card(folder, arguments.licence))
        else:
            print(write_run_card(folder, arguments.grid))
    return 0


def main() -> int:
    """Read the arguments and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="runs, models, scrubbed sets")
    parser.add_argument("--grid", type=float, metavar="G", help="g of CO2 per kWh of the grid")
    parser.add_argument(
        "--licence", default="", metavar="NAME", help="of a set whose samples don't say theirs"
    )
    arguments = parser.parse_args()
    return run("card", lambda: write(arguments))


if __name__ == "__main__":
    sys.exit(main())
