"""Train a model: `experiment=NAME` composes a file of experiments/ over conf/train.yaml.

Examples:
  python scripts/train.py experiment=scenes
  python scripts/train.py experiment=scenes_smoke recipe.steps=50 output=runs/try
  python scripts/train.py -m experiment=scenes_smoke encoder=siglip_tiny,torchvision_resnet50 \\
      recipe.seed=0,1,2 output=runs/sweep        (the same again runs only what is not done)
  python scripts/train.py -m ... hydra/launcher=joblib     (submitit_slurm, submitit_local, ray)
  python scripts/train.py -m ... hydra/sweeper=tpe 'recipe.learning_rate=interval(1e-4,1e-2)'
  torchrun --nproc-per-node 8 scripts/train.py experiment=NAME recipe.accumulate=8
"""

import sys
import time
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from mm.errors import MMError
from mm.train.sweep import check_plugins


@hydra.main(version_base="1.3", config_path="../conf", config_name="train")
def main(config: DictConfig) -> float | None:
    """Compose the configuration, then train: a run, or a job of a sweep."""
    from mm.evaluate.held_out import make_evaluate
    from mm.privacy.errors import PrivacyError
    from mm.report.card import card_after_training
    from mm.report.describe.figures import training_costs
    from mm.train.build import run
    from mm.train.distributed import launched
    from mm.train.sweep import start

    def train(values: dict[str, Any], text: str) -> dict[str, float]:
        began = time.monotonic()
        metrics = run(values, text, make_evaluate, training_costs)
        if not values["plan"] and launched()[0] == 0:
            card_after_training(values["output"], time.monotonic() - began)
        return metrics

    chosen = HydraConfig.get()
    try:
        return start(config, chosen.overrides.task, chosen.mode == RunMode.MULTIRUN, train)
    except (MMError, PrivacyError, ValueError) as error:
        from mm.train.distributed import teller

        if who := teller(error):
            print(f"{who}: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] in ("-h", "--help"):
        print(__doc__)
        sys.exit(0)
    try:
        check_plugins(sys.argv[1:])
    except MMError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    main()
