"""The measure that training logs: questions about scenes of artwork that training does not use."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
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
from mm.evaluate.questions import Answered, Question, ask, ask_samples, by_label, questions_of
from mm.evaluate.results import Result, measures_of
from mm.evaluate.running import SAVED_DTYPE, TRAINED_CHAT, floating
from mm.evaluate.subject import Subject
from mm.evaluate.task import TaskConfig, TaskData, run_task
from mm.privacy.door import open_image
from mm.registry import make_config
from mm.text.tokenizer import Tokenizer
from mm.train.feeds import HELD_OUT_CANVAS
from mm.train.loop import Evaluate
from mm.train.samples import SAMPLES
from mm.vlm import VisionLanguageModel

HELD_OUT_SEED = 20_000
SHOWN = 4  # answers that are shown while training


def make_evaluate(
    config: Mapping[str, Any], tokenizer: Tokenizer, device: torch.device
) -> Evaluate | None:
    """The held-out measures that `config["data"]["held_out"]` describes, or None if it is empty.

    Its own questions also become the run's `held_out.jsonl`: which were right, for
    `scripts/compare.py`. A `task` of conf/task becomes `results/TASK.json` with its records.
    """
    output = Path(config["output"])
    data = config["data"]
    held_out = data["held_out"]
    measures: list[Evaluate] = []
    if data["kind"] == "scenes" and held_out.get("scenes"):
        measures.append(_scenes(data["artwork"], held_out, tokenizer, device, output))
    if data["kind"] != "scenes" and held_out.get("shards"):
        measures.append(_shards(held_out, tokenizer, output))
    if held_out.get("task"):
        measures.append(_task(held_out["task"], held_out.get("samples"), tokenizer, output))
    if not measures:
        return None

    def evaluate(model: VisionLanguageModel) -> dict[str, Any]:
        return {name: value for measure in measures for name, value in measure(model).items()}

    return evaluate


def _task(
    values: Mapping[str, Any], limit: int | None, tokenizer: Tokenizer, output: Path
) -> Evaluate:
    """What `scripts/evaluate.py` would measure of the model if it were saved now."""
    task: TaskConfig = make_config(TaskConfig, values, "data.held_out.task")
    data = TaskData(task)

    def evaluate(model: VisionLanguageModel) -> dict[str, float]:
        device = next(model.parameters()).device
        with as_saved(model), torch.autocast(device.type, enabled=False):
            answers = run_task(Subject(model, tokenizer, TRAINED_CHAT), data, limit=limit)
        measures = measures_of(answers.records, data.metric)
        command = f"python scripts/evaluate.py model={output} task={task.name}"
        command += f" limit={limit}" if limit else ""
        facts = {"command": command, **data.facts, "samples": limit}
        facts["left_out"] = dict(answers.left_out)
        result = Result(task.name, task.version, answers.records, measures, facts)
        result.save(output / "results" / f"{task.name}.json")
        return {f"{task.name}/{part}": e.value for part, e in measures["score"].items()}

    return evaluate


@contextmanager
def as_saved(model: VisionLanguageModel) -> Iterator[None]:
    """Give the weights the values that a saved model has, and then their own again."""
    tensors = floating(model)
    own = {name: tensor.clone() for name, tensor in tensors.items()}
    with torch.no_grad():
        try:
            for name, tensor in tensors.items():
                tensor.copy_(own[name].to(SAVED_DTYPE))
            yield
        finally:
            for name, tensor in tensors.items():
                tensor.copy_(own[name])


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

    def evaluate(model: VisionLanguageModel) -> dict[str, Any]:
        return _measures(
            ask(model, tokenizer, model.encoder.preprocess(pictures), questions), output
        )

    return evaluate


def _shards(held_out: Mapping[str, Any], tokenizer: Tokenizer, output: Path) -> Evaluate:
    readers = [ShardReader(directory) for directory in held_out["shards"]]
    samples = [sample for reader in readers for sample in reader][: held_out["samples"]]

    def evaluate(model: VisionLanguageModel) -> dict[str, Any]:
        def prepare(images: Any) -> Pictures:
            return model.encoder.preprocess([open_image(data) for data in images])

        answers = iter(ask_samples(model, tokenizer, samples, prepare))
        # A picture with its questions is one item.
        rows = (list(islice(answers, len(questions_of(sample)))) for sample in samples)
        return _measures(rows, output)

    return evaluate


def _measures(items: Iterable[Sequence[Answered]], output: Path) -> dict[str, Any]:
    """Shares by label, and a few answers under SAMPLES.

    The answers to each item's questions become lines of a file, words apart.
    """
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
    measured: dict[str, Any] = {f"held_out/{label}": s.value for label, s in shares.items()}
    return {**measured, SAMPLES: _samples(rows)}


def _samples(rows: Sequence[Sequence[Answered]]) -> list[dict[str, str]]:
    """What was said of the first items: the first question of each kind, new kinds first."""
    seen: set[str] = set()
    chosen: list[Answered] = []
    for row in rows[:SHOWN]:
        label, answered = next(
            ((a.question.labels[0], a) for a in row if a.question.labels[0] not in seen),
            (row[0].question.labels[0], row[0]),
        )
        seen.add(label)
        chosen.append(answered)
    return [
        {"question": a.question.text, "said": a.said, "wanted": a.question.answer} for a in chosen
    ]
