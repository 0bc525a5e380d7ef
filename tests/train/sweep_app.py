"""`scripts/train.py` with a stand-in for training: a program for the tests of sweeps.

The environment says in which folder: SWEEP_TEST, where a file `fail` names a seed that fails, and
`kill` one at which the whole process dies.
"""

import os
import signal
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

CONF = str(Path(__file__).resolve().parents[2] / "conf")


def train(values: dict[str, Any], text: str) -> dict[str, float]:
    place = Path(os.environ["SWEEP_TEST"])
    seed, rate = values["recipe"]["seed"], values["recipe"]["learning_rate"]
    (place / f"took-{seed}-{os.getpid()}-{os.urandom(4).hex()}").touch()
    if (place / "kill").exists() and (place / "kill").read_text() == str(seed):
        os.kill(os.getpid(), signal.SIGKILL)
    if (place / "fail").exists() and (place / "fail").read_text() == str(seed):
        raise RuntimeError("this seed fails")
    (Path(values["output"]) / "config.yaml").write_text(text)
    return {"loss": (rate - 0.3) ** 2 + seed, "step": 1}


@hydra.main(version_base="1.3", config_path=CONF, config_name="train")
def main(config: DictConfig) -> float | None:
    from mm.train.sweep import start

    chosen = HydraConfig.get()
    return start(config, chosen.overrides.task, chosen.mode == RunMode.MULTIRUN, train)


if __name__ == "__main__":
    main()
