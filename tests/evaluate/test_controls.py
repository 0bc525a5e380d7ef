import random
from pathlib import Path

import pytest
import torch
from PIL import Image

from mm.checkpoints import native
from mm.data.sample import Sample, question_details
from mm.data.shards import write_shards
from mm.errors import UsageError
from mm.evaluate.controls import CONTROLS, show, vision_gain
from mm.evaluate.records import Record, read_records
from mm.evaluate.results import Result
from mm.evaluate.subject import read_subject
from mm.evaluate.task import TaskConfig, TaskData, evaluate, run_task
from mm.privacy.door import encode_png
from mm.privacy.policy import Policy
from tests import tiny_model

CPU = torch.device("cpu")
COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 0, 0), (255, 255, 255)]
TASK = {"name": "try", "version": 1}


def pictures() -> list[tuple[Sample, Image.Image]]:
    return [
        (Sample(source_id=str(n)), Image.new("RGB", (12 + n, 8), colour))
        for n, colour in enumerate(COLOURS[:3])
    ]


def test_what_is_shown_in_place_of_a_picture() -> None:
    own = [image for _, image in pictures()]
    assert [image for _, image in show("true", iter(pictures()))] == own
    assert [image for _, image in show("none", iter(pictures()))] == [None] * 3
    assert [image for _, image in show("other", iter(pictures()))] == [own[1], own[0], own[1]]
    for kind in ("blank", "noise"):
        shown = [image for _, image in show(kind, iter(pictures()))]
        assert [image.shape for image in shown] == [(3, 8, 12), (3, 8, 13), (3, 8, 14)]
        again = [image for _, image in show(kind, iter(pictures()))]
        assert all(a.equal(b) for a, b in zip(shown, again, strict=True))
        assert (len(shown[0].unique()) > 50) == (kind == "noise")
    with pytest.raises(UsageError, match="two samples at least"):
        list(show("other", iter(pictures()[:1])))


# --- constructed models ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, one that ignores pictures, each with data whose answers are its own."""
    folder = tmp_path_factory.mktemp("controls")
    turns = [("user", "<image>What is this?"), ("assistant", "x")]
    samples = [
        Sample([encode_png(Image.new("RGB", (32, 32), colour))], turns, {}, f"{number:064x}")
        for number, colour in enumerate(COLOURS)
    ]
    write_shards(samples, folder / "unlabelled", Policy())
    for name, strength in (("reads", 40.0), ("ignores", 0.0)):
        model = tiny_model.model(seed=3)
        with torch.no_grad():
            for parameter in model.projector.parameters():
                parameter.mul_(strength)
        native.save(model, tiny_model.tokenizer(), folder / name, card="x")
        subject = read_subject(str(folder / name), CPU)
        data = TaskData(TaskConfig(**TASK, shards=str(folder / "unlabelled"), max_new_tokens=4))
        said = {record.item: record.said for record in run_task(subject, data).records}
        # Every second picture's answer is what the model says; the others' is something else.
        labelled = [
            Sample(
                sample.images,
                [sample.turns[0], ("assistant", said[sample.source_id] if n % 2 else "other")],
                {},
                sample.source_id,
            )
            for n, sample in enumerate(samples)
        ]
        write_shards(labelled, folder / f"{name}-data", Policy())
        if name == "reads":
            assert len(set(said.values())) > 2
    return folder


def controlled(root: Path, name: str) -> Result:
    values = {**TASK, "shards": str(root / f"{name}-data"), "max_new_tokens": 4}
    return evaluate(str(root / name), values, device=CPU, controls=True)


def test_a_model_that_ignores_pictures_gains_nothing(root: Path, tmp_path: Path) -> None:
    result = controlled(root, "ignores")
    gain = result.gains["all"]
    assert gain.scores["true"].value == 0.5
    assert gain.gain.value == 0 and gain.gain.low <= 0 <= gain.gain.high and not gain.looks
    assert "no gain to be told" in result.table()
    result.save(tmp_path / "r.json")
    assert len(list(read_records(tmp_path / "r.other.jsonl"))) == 6


def test_a_model_that_reads_pictures_gains(root: Path) -> None:
    gain = controlled(root, "reads").gains["all"]
    assert set(gain.scores) == {"true", *CONTROLS}
    assert gain.scores["true"].value == 0.5 and gain.gain.value > 0.3
    assert not gain.leaks


# --- simulated records ----------------------------------------------------------------------------


def simulated(seed: int, true: float, control: float, items: int = 60) -> dict[str, list[Record]]:
    rng = random.Random(seed)
    runs: dict[str, list[Record]] = {}
    for kind in ("true", *CONTROLS):
        share = true if kind == "true" else control
        runs[kind] = [
            Record(str(i), f"{i}/{q}", {"language": "ko" if q else "en"}, "a", ("a", f"{i}/{q}"),
                   float(rng.random() < share), {"choices": 2.0})
            for i in range(items)
            for q in range(3)
        ]  # fmt: skip
    return runs


def test_gain_is_seldom_claimed_where_there_is_none() -> None:
    claims = sum(vision_gain(simulated(s, 0.5, 0.5, 20))["all"].looks for s in range(40))
    assert claims <= 1  # 2.5 in 100 by its level, less as the best of four controls is taken
    found = vision_gain(simulated(0, 0.9, 0.5))
    assert found["all"].looks and found["language=ko"].looks and found["all"].gain.items == 60


def test_an_answer_without_a_picture_above_chance_leaks() -> None:
    records = {kind: simulated(1, 0.9, 0.9)[kind] for kind in ("true", "none")}
    unlike = [
        Record(r.item, r.question, r.tags, r.said, (r.question,), r.score, r.extra)
        for r in records["true"]
    ]
    gain = vision_gain({"true": unlike, "none": records["none"]})["all"]
    assert gain.chance == 0.5 and gain.leaks
    # Here one answer is right everywhere: giving it always is chance.
    assert vision_gain(records)["all"].chance == 1.0


def test_runs_of_different_questions_are_not_compared() -> None:
    runs = simulated(0, 0.5, 0.5, 4)
    with pytest.raises(UsageError, match="'none' asked other questions"):
        vision_gain({"true": runs["true"], "none": runs["none"][1:]})
    with pytest.raises(UsageError, match="run both"):
        vision_gain({"true": runs["true"]})


def test_details_of_a_source_lead_to_choices(tmp_path: Path) -> None:
    tags = question_details([{"choices": ["yes", "no"], "id": "7"}])
    image = encode_png(Image.new("RGB", (8, 8)))
    sample = Sample([image], [("user", "<image>Cup?"), ("assistant", "no")], tags, "0" * 64)
    write_shards([sample], tmp_path / "data", Policy())
    task = TaskConfig(**TASK, shards=str(tmp_path / "data"), metric="choice", instruction="Letter.")
    data = TaskData(task)
    (question,) = data.questions(next(data.samples()))
    assert question.text == "Cup?\nA. yes\nB. no\nLetter." and question.id == "7"
    assert data.continuations(question) == "AB"
