"""A tiny training run through the real configuration; also a program, so that it can be killed."""

import sys
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from mm.train.build import run

CONF = Path(__file__).resolve().parents[2] / "conf"


def config(folder: Path, *overrides: str) -> tuple[dict[str, Any], str]:
    """The smoke experiment with everything in `folder`: artwork/, tokenizer.json, run/."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose(
            "train",
            [
                "experiment=scenes_smoke",
                "name=tiny",
                f"output={folder}/run",
                f"tokenizer={folder}/tokenizer.json",
                "decoder.config.vocab_size=600",
                f"++data.artwork=[{folder}/artwork]",
                "++data.others=[]",
                "++data.held_out.scenes=0",
                "data.stream.rows=4",
                "recipe.steps=12",
                "recipe.log_every=2",
                "recipe.checkpoint_every=4",
                "device=cpu",
                *overrides,
            ],
        )
    plain = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(plain, dict)
    del plain["objective"]  # what a sweep looks at, and no run
    return {str(k): v for k, v in plain.items()}, OmegaConf.to_yaml(composed, resolve=True)


def train(folder: Path, *overrides: str) -> dict[str, float]:
    """Run it; return the last metrics."""
    return run(*config(folder, *overrides), lambda *_: None)


if __name__ == "__main__":
    train(Path(sys.argv[1]), *sys.argv[2:])
