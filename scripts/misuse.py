"""Measure what docs/misuse.md says: refusals of questions who somebody is, and what is made up.

`refusal` asks a policy about labelled questions (mm/report/labelled/people.yaml). `hallucination`
asks a model about things that composed scenes don't show, and looks for such things in its
captions; --output RUN/results/hallucination.json puts that into the run's card.

Examples:
  python scripts/misuse.py refusal
  python scripts/misuse.py refusal --policy my_module:MyPolicy
  python scripts/misuse.py hallucination --shards data/held_out/scenes_unseen --limit 300
"""

import argparse
import shlex
import sys
from pathlib import Path

from mm.cli.console import run


def refusal(arguments: argparse.Namespace) -> int:
    """Print recall, precision and false refusals by part of the set and language."""
    from mm.refusal import make_policy
    from mm.report.misuse import refusal_table

    print(refusal_table(make_policy(arguments.policy)))
    return 0


def hallucination(arguments: argparse.Namespace) -> int:
    """Print shares made up by kind of question and slice."""
    from mm.model import pick_device
    from mm.report.hallucination import measure
    from mm.train.run import write_text

    device, command = pick_device(arguments.device), shlex.join(["python", *sys.argv])
    report = measure(arguments.model, arguments.shards, device, arguments.limit, command)
    print(report.table())
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        write_text(arguments.output, report.json() + "\n")
    return 0


def main() -> int:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("what", choices=("refusal", "hallucination"))
    add("--policy", default="people", metavar="NAME", help="people, names, none or MODULE:CLASS")
    add("--model", default="mm/assets/scenes-12m", metavar="DIR", help="default: the shipped one")
    add("--shards", default="data/held_out/scenes_unseen", metavar="DIR", help="composed scenes")
    add("--limit", type=int, metavar="N", help="scenes at most")
    add("--output", type=Path, metavar="FILE.json")
    add("--device", default="auto")
    arguments = parser.parse_args()
    work = {"refusal": refusal, "hallucination": hallucination}[arguments.what]
    return run("misuse", lambda: work(arguments))


if __name__ == "__main__":
    sys.exit(main())
