"""Train a model: `experiment=NAME` composes a file of experiments/ over conf/train.yaml.

Examples:
  python scripts/train.py experiment=scenes
  python scripts/train.py experiment=scenes_smoke recipe.steps=50 output=runs/try
"""

import sys

import hydra
from omegaconf import DictConfig, OmegaConf

from mm.errors import MMError


@hydra.main(version_base="1.3", config_path="../conf", config_name="train")
def main(config: DictConfig) -> None:
    """Compose the configuration, then train."""
    from mm.evaluate.held_out import make_evaluate
    from mm.privacy.errors import PrivacyError
    from mm.train.build import run

    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    try:
        run(
            {str(k): v for k, v in plain.items()},
            OmegaConf.to_yaml(config, resolve=True),
            make_evaluate,
        )
    except (MMError, PrivacyError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] in ("-h", "--help"):
        print(__doc__)
        sys.exit(0)
    main()
