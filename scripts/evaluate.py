"""Measure a model on a task of conf/task: scores by slice, with n and 95 % intervals.

Examples:
  python scripts/evaluate.py model=mm/assets/scenes-12m task=scenes_unseen
  python scripts/evaluate.py model=runs/scenes task=easy_vqa controls=true    (is it looking?)
  python scripts/evaluate.py model=models/InternVL3_5-1B-HF task=pope task.source.path=pope.json
  python scripts/evaluate.py task=vqav2 task.source.path=questions.json output=result.json
"""

import shlex
import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf

from mm.errors import MMError


@hydra.main(version_base="1.3", config_path="../conf", config_name="evaluate")
def main(config: DictConfig) -> None:
    """Evaluate, print the table, and write the result beside the model of a run."""
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
            picture="blank" if config.blank else config.picture,
            controls=config.controls,
            limit=config.limit,
            command=shlex.join(["python", *sys.argv]),
        )
        output = config.output or default_output(Path(config.model), config.task.name)
        if output:
            result.save(output)
    except (MMError, PrivacyError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    print(result.table())


def default_output(model: Path, task: str) -> Path | None:
    """A run keeps its results: RUN/results/TASK.json, whether RUN or RUN/model is named."""
    for run in (model, model.parent):
        if (run / "status.json").exists():
            return run / "results" / f"{task}.json"
    return None


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] in ("-h", "--help"):
        print(__doc__)
        sys.exit(0)
    main()
