"""Describe the model that a choice of parts gives: parameters, and tokens per picture.

Parts are Hydra groups by name, the files under conf/encoder, conf/projector and conf/decoder; those
of the shipped model stand where nothing else is said. Nothing is loaded or trained.

Examples:
  python scripts/describe.py decoder=qwen3_0_6b encoder=siglip_base projector=mlp
  python scripts/describe.py decoder.config.num_hidden_layers=12 --width 1024 --height 768
"""

import argparse
import sys
from pathlib import Path

from mm.registry import unknown_name_message

CONF = Path(__file__).resolve().parents[1] / "conf"
SHIPPED = {"encoder": "siglip_scenes", "projector": "mlp_scenes", "decoder": "qwen3_scenes"}


def choose_parts(overrides: list[str]) -> list[str]:
    """Add the parts that `overrides` leave open; check the names of those that it chooses."""
    chosen = dict(SHIPPED)
    fields = []
    for override in overrides:
        group, _, name = override.partition("=")
        if group in chosen:
            known = [path.stem for path in (CONF / group).glob("*.yaml")]
            if name not in known:
                raise ValueError(unknown_name_message(f"{group} configuration", name, known))
            chosen[group] = name
        else:
            fields.append(override)
    return [f"+{group}={name}" for group, name in chosen.items()] + fields


def main() -> int:
    """Compose the parts and print their description."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("overrides", nargs="*", metavar="GROUP=NAME", help="Hydra overrides")
    parser.add_argument("--height", type=int, default=480, help="of a picture (default: 480)")
    parser.add_argument("--width", type=int, default=640, help="of a picture (default: 640)")
    arguments = parser.parse_intermixed_args()

    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf

    from mm.report.describe import describe

    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose(overrides=choose_parts(arguments.overrides))
        parts = OmegaConf.to_container(config, resolve=True)
        print(describe(parts, (arguments.height, arguments.width)).table())
    except (ValueError, HydraException) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
