"""A tiny training run through the real configuration; also a program, so that it can be killed."""

import random
import sys
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from mm.data.scenes.language import corpus
from mm.text.tokenizer import train_tokenizer
from mm.train.build import run
from tests.data.scenes.test_layout import sampler
from tests.tiny_artwork import write_artwork

CONF = Path(__file__).resolve().parents[2] / "conf"


def prepare(folder: Path) -> None:
    """Write artwork/ and tokenizer.json."""
    write_artwork(folder / "artwork")
    rng = random.Random(0)
    texts = corpus((sampler().draw(rng) for _ in range(200)), rng)
    train_tokenizer(texts, 600).save(folder / "tokenizer.json")


def overrides(folder: Path) -> list[str]:
    """The smoke experiment with everything in `folder`: artwork/, tokenizer.json, run/."""
    return [
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
    ]


def config(folder: Path, *more: str) -> tuple[dict[str, Any], str]:
    """The configuration of a tiny run, plain and as YAML."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose("train", [*overrides(folder), *more])
    plain = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(plain, dict)
    del plain["objective"]  # what a sweep looks at, and no run
    return {str(k): v for k, v in plain.items()}, OmegaConf.to_yaml(composed, resolve=True)


def train(folder: Path, *more: str) -> dict[str, float]:
    """Run it; return the last metrics."""
    return run(*config(folder, *more), lambda *_: None)


if __name__ == "__main__":
    train(Path(sys.argv[1]), *sys.argv[2:])
