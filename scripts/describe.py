"""Describe the model that a choice of parts gives: its architecture, size, costs and needs.

Parts are Hydra groups by name, the files under conf/encoder, conf/projector and conf/decoder. A
decoder alone is a text model; with nothing chosen it is the model that ships, whose parts also
stand in where an encoder or a projector is chosen without the rest. model=DIR is a stored model
instead, ours or a published Qwen3's. Nothing is loaded or trained.

A plan is KEY=VALUE too: gpu=h100 (or its memory, gpu=24GB), dtype=bf16, context=TOKENS and
batch=ROWS for decoding; tokens=, length=, pictures=, checkpointing=true and frozen=[encoder] for a
training step.

Examples:
  python scripts/describe.py decoder=qwen3_0_6b gpu=rtx4090
  python scripts/describe.py decoder=qwen3_0_6b encoder=siglip_base projector=mlp --svg model.svg
"""

import argparse
import sys
from pathlib import Path

from mm.cli.console import run

CONF = Path(__file__).resolve().parents[1] / "conf"


def show(arguments: argparse.Namespace) -> int:
    """Compose the parts and print their description."""
    from mm.report.describe import describe
    from mm.report.describe.choice import compose_parts
    from mm.report.describe.drawing import save
    from mm.report.describe.text import as_json, report

    parts, plan, title = compose_parts(arguments.overrides, CONF)
    description = describe(parts, (arguments.height, arguments.width), plan, title)
    if arguments.svg:
        save(description, arguments.svg)
    if arguments.json:
        print(as_json(description))
    else:
        print(report(description, sys.stdout.encoding))
    return 0


def main() -> int:
    """Read the arguments and show what they choose."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="parts, fields, plan")
    parser.add_argument("--height", type=int, default=480, help="of a picture (default: 480)")
    parser.add_argument("--width", type=int, default=640, help="of a picture (default: 640)")
    parser.add_argument("--svg", metavar="FILE", help="also write the architecture as a drawing")
    parser.add_argument("--json", action="store_true", help="print all figures as JSON instead")
    arguments = parser.parse_intermixed_args()
    return run("describe", lambda: show(arguments))


if __name__ == "__main__":
    sys.exit(main())
