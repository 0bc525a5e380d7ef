"""The measure that training logs: questions about scenes of artwork that training does not use."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mm.checkpoints.store import write_atomically
from mm.data.scenes.artwork import load_artwork
from mm.data.scenes.batch import collate_scenes
from mm.data.scenes.language import examine
from mm.data.scenes.layout import SceneConfig
from mm.data.scenes.render import Renderer
from mm.data.scenes.style import PLAIN_STYLE
from mm.data.shards import ShardReader
from mm.encoders import Pictures
from mm.evaluate.questions import Answered, Question, ask, ask_samples, by_label
from mm.privacy.door import open_image
from mm.text.tokenizer import Tokenizer
from mm.train.feeds import HELD_OUT_CANVAS
from mm.train.loop import Evaluate
from mm.vlm import VisionLanguageModel

HELD_OUT_SEED = 20_000


def make_evaluate(
    config: Mapping[str, Any], tokenizer: Tokenizer, device: torch.device
) -> Evaluate | None:
    """The held-out measure that `config["data"]["held_out"]` describes, or None if it is empty.

    It also writes the run's `held_out.jsonl`: which questions were right, for `scripts/compare.py`.
    """
    output = Path(config["output"])
    data = config["data"]
    held_out = data["held_out"]
    if data["kind"] == "scenes":
        if not held_out.get("scenes"):
            return None
        return _scenes(data["artwork"], held_out, tokenizer, device, output)
    if not held_out.get("shards"):
        return None
    return _shards(held_out, tokenizer, output)


def _scenes(
    directories: list[str],
    held_out: Mapping[str, Any],
    tokenizer: Tokenizer,
    device: torch.device,
    output: Path,
) -> Evaluate:
    artwork = load_artwork(directories, splits=tuple(held_out["splits"]), letter_splits=("test",))
    sampler = artwork.sampler(SceneConfig(pairs="any", words="test", word_share=0.15))
    rng = random.Random(HELD_OUT_SEED)
    scenes = [sampler.draw(rng) for _ in range(held_out["scenes"])]
    batch = collate_scenes(scenes, artwork, rng, PLAIN_STYLE).to(device)
    generator = torch.Generator(device).manual_seed(HELD_OUT_SEED)
    pictures, _ = Renderer(artwork, device).draw(batch, HELD_OUT_CANVAS, PLAIN_STYLE, generator)
    questions = [
        [Question(e.question, e.answer, (f"{e.kind}.{e.language}",)) for e in examine(scene, rng)]
        for scene in scenes
    ]

    def evaluate(model: VisionLanguageModel) -> dict[str, float]:
        return _measures(
            ask(model, tokenizer, model.encoder.preprocess(pictures), questions), output
        )

    return evaluate


def _shards(held_out: Mapping[str, Any], tokenizer: Tokenizer, output: Path) -> Evaluate:
    readers = [ShardReader(directory) for directory in held_out["shards"]]
    samples = [sample for reader in readers for sample in reader][: held_out["samples"]]

    def evaluate(model: VisionLanguageModel) -> dict[str, float]:
        def prepare(images: Any) -> Pictures:
            return model.encoder.preprocess([open_image(data) for data in images])

        answers = ask_samples(model, tokenizer, samples, prepare)
        return _measures(([answered] for answered in answers), output)

    return evaluate


def _measures(items: Iterable[Sequence[Answered]], output: Path) -> dict[str, float]:
    """Shares by label; the answers to each item's questions become lines of a file, words apart."""
    rows = [list(item) for item in items]
    lines = [
        json.dumps(
            {"item": index, "label": answered.question.labels[0], "right": answered.is_right}
        )
        for index, row in enumerate(rows)
        for answered in row
    ]
    output.mkdir(parents=True, exist_ok=True)
    text = "".join(line + "\n" for line in lines)
    write_atomically(output / "held_out.jsonl", lambda file: file.write(text.encode()))
    shares = by_label(answered for row in rows for answered in row)
    return {f"held_out/{label}": share.value for label, share in shares.items()}
