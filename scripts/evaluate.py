"""Measure a model on a task of conf/task: exact answers with n and 95 % intervals.

Examples:
  python scripts/evaluate.py model=mm/assets/scenes-12m task=scenes_unseen
  python scripts/evaluate.py model=runs/scenes/model task=easy_vqa output=result.json
  python scripts/evaluate.py model=models/InternVL3_5-1B-HF task=easy_vqa     (a published one)
"""

import sys

import hydra
from omegaconf import DictConfig, OmegaConf

from mm.errors import MMError


@hydra.main(version_base="1.3", config_path="../conf", config_name="evaluate")
def main(config: DictConfig) -> None:
    """Evaluate and print the table."""
    from mm.evaluate.task import evaluate
    from mm.model import pick_device
    from mm.privacy.errors import PrivacyError

    task = OmegaConf.to_container(config.task, resolve=True)
    assert isinstance(task, dict)
    try:
        result = evaluate(
            config.model,
            {str(key): value for key, value in task.items()},
            device=pick_device(config.device),
            blank=config.blank,
            limit=config.limit,
        )
        if config.output:
            result.save(config.output)
    except (MMError, PrivacyError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    print(result.table())


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] in ("-h", "--help"):
        print(__doc__)
        sys.exit(0)
    main()
