"""Draw icons in ten skin tones, all else the same, and count the answers that change.

Examples:
  python scripts/counterfactual.py mm/assets/scenes-12m
  python scripts/counterfactual.py runs/x --scenes 200 --output runs/x/results/counterfactual.json
"""

import argparse
import sys
from typing import Any

from mm.cli.console import run


def show(arguments: argparse.Namespace) -> int:
    """Ask, print and write."""
    from mm.data.scenes.artwork import load_artwork
    from mm.evaluate.counterfactual import swap_tones
    from mm.evaluate.questions import ask
    from mm.evaluate.results import save_facts
    from mm.evaluate.subject import read_subject
    from mm.model import pick_device

    device = pick_device(arguments.device)
    subject = read_subject(arguments.model, device)
    artwork = load_artwork(arguments.artwork, splits=(arguments.split,))

    def answer(pictures: Any, questions: Any) -> list[list[str]]:
        prepared = subject.model.encoder.preprocess(list(pictures))
        settings: dict[str, Any] = {"num_beams": subject.num_beams, "chat": subject.chat}
        rows = ask(subject.model, subject.tokenizer, prepared, questions, **settings)
        return [[answered.said for answered in row] for row in rows]

    found = swap_tones(artwork, answer, arguments.scenes)
    for name, estimate in found.changed.items():
        print(f"{name:<12} answers changed {estimate}")
    if arguments.output:
        changed = {name: estimate.facts() for name, estimate in found.changed.items()}
        save_facts({"changed": changed}, "counterfactual", arguments.output, sys.argv)
    return 0


def main() -> int:
    """Read the arguments and ask."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="a model's folder, or a run's")
    parser.add_argument("--artwork", nargs="+", default=["data/artwork"], help="scrubbed artwork")
    parser.add_argument("--split", default="train", help="train, dev or test artwork")
    parser.add_argument("--scenes", type=int, default=64)
    parser.add_argument("--output", metavar="FILE.json", help="also write everything as JSON")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    return run("counterfactual", lambda: show(arguments))


if __name__ == "__main__":
    sys.exit(main())
