import json
from itertools import islice
from pathlib import Path

import pytest
import torch
from PIL import Image

import mm
from mm.data.sample import Sample, question_details
from mm.data.shards import ShardReader, write_shards
from mm.errors import CheckpointError, ConfigError, UsageError
from mm.evaluate.records import read_records
from mm.evaluate.task import evaluate
from mm.privacy.door import encode_png
from mm.privacy.errors import LedgerError
from mm.privacy.policy import Policy
from mm.registry import ConfigValueError
from tests import tiny_model
from tests.checkpoints import published_vlm
from tests.tiny_artwork import write_artwork

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, three pictures with questions, and artwork with pictures to decline."""
    root = tmp_path_factory.mktemp("task")
    tiny_model.save(root / "model")
    turns = [("user", "<image>What is this?"), ("assistant", "a red cup")]
    turns += [("user", "yes?"), ("assistant", "no")]
    tags = {"labels": "caption.en+caption.en.1 presence_no.en"}
    image = encode_png(Image.new("RGB", (30, 20), (200, 10, 10)))
    write_shards(
        [Sample([image], turns, tags, f"{n:064x}") for n in range(3)], root / "data", Policy()
    )
    write_artwork(root / "artwork")
    return root


def task(folder: Path, **values: object) -> dict[str, object]:
    return {
        "name": "try",
        "version": 1,
        "kind": "questions",
        "shards": str(folder / "data"),
        **values,
    }


def test_every_label_is_counted_and_saved(folder: Path, tmp_path: Path) -> None:
    result = evaluate(str(folder / "model"), task(folder), device=CPU)
    assert {k: e.n for k, e in result.measures["score"].items()} == {
        "all": 6, "caption.en": 3, "presence_no.en": 3,
    }  # fmt: skip
    result.save(tmp_path / "out" / "result.json")
    saved = json.loads((tmp_path / "out" / "result.json").read_text())
    score = saved["measures"]["score"]["caption.en"]
    assert score["n"] == score["items"] == 3 and len(score["interval"]) == 2
    assert saved["picture"] == "true" and saved["kind"] == "task"
    assert saved["task"] == "try" and len(saved["ledger"]) == 64
    assert "caption.en" in result.table()
    assert tuple(read_records(tmp_path / "out" / "result.jsonl")) == result.records
    record = result.records[0]
    assert record.item == f"{0:064x}"[:64] and record.wanted == ("a red cup",)
    assert record.tags == {"kind": "caption", "language": "en", "things": "1"}


def test_limit_and_blank_change_what_is_asked_and_seen(folder: Path) -> None:
    result = evaluate(str(folder / "model"), task(folder), device=CPU, limit=1, picture="blank")
    assert result.measures["score"]["caption.en"].n == 1 and result.facts["picture"] == "blank"


def test_declined_pictures_are_those_of_the_split(folder: Path) -> None:
    values = task(folder, kind="decline", shards=str(folder / "artwork"), split="train")
    result = evaluate(str(folder / "model"), values, device=CPU)
    score = result.measures["score"]  # two photographs, two questions, two languages
    assert score["all"].n == 8 and score["all"].items == 2
    assert score["decline.en"].n == score["decline.ko"].n == 4
    assert {record.tags["picture"] for record in result.records} == {"photo"}
    with pytest.raises(UsageError, match="asks nothing"):
        evaluate(str(folder / "model"), {**values, "split": "test"}, device=CPU)


def test_a_published_model_is_asked_as_a_person_asks_it(folder: Path, tmp_path: Path) -> None:
    published_vlm.save_internvl(tmp_path / "model", seed=3)
    result = evaluate(str(tmp_path / "model"), task(folder), device=CPU, limit=1)
    model = mm.load(tmp_path / "model", device="cpu")
    (sample,) = islice(ShardReader(folder / "data"), 1)
    said = [
        model.ask(sample.images[0], text, max_new_tokens=64) for text in ("What is this?", "yes?")
    ]
    assert len(set(said)) == 2 and result.measures["score"]["all"].value == 0
    # A model that is asked what it says itself is right.
    turns = [("user", "<image>What is this?"), ("assistant", said[0])]
    turns += [("user", "yes?"), ("assistant", said[1])]
    again = Sample(sample.images, turns, sample.tags, sample.source_id)
    write_shards([again], tmp_path / "data", Policy())
    found = evaluate(str(tmp_path / "model"), task(tmp_path), device=CPU)
    assert {e.value for e in found.measures["score"].values()} == {1.0}


def test_mistakes_are_named(folder: Path, tmp_path: Path) -> None:
    text = tiny_model.save_text(tmp_path / "text")
    with pytest.raises(CheckpointError, match="is a text model's, but tasks show pictures"):
        evaluate(str(text), task(folder), device=CPU)
    with pytest.raises(ConfigValueError, match="kind of task is 'declin'"):
        evaluate(str(folder / "model"), task(folder, kind="declin"), device=CPU)
    (tmp_path / "raw").mkdir()
    with pytest.raises(LedgerError, match=r"scripts/scrub\.py"):
        evaluate(str(folder / "model"), task(folder, shards=str(tmp_path / "raw")), device=CPU)


def test_published_files_are_asked_through_the_door(folder: Path, tmp_path: Path) -> None:
    for number, colour in enumerate(("red", "blue")):
        Image.new("RGB", (30, 20), colour).save(tmp_path / f"{number}.jpg")
    (tmp_path / "2.jpg").write_bytes(b"no picture")
    rows = [
        {"question_id": n, "image": f"{n % 4}.jpg", "text": "a cup?", "label": ("yes", "no")[n % 2]}
        for n in range(8)
    ]  # fmt: skip
    for name in ("random", "popular"):
        lines = [json.dumps(row) + "\n" for row in rows]
        (tmp_path / f"coco_pope_{name}.json").write_text("".join(lines))
    values = {
        "name": "pope", "version": 1, "metric": "presence", "max_new_tokens": 3,
        "source": {"name": "pope", "path": str(tmp_path), "options": {"root": None}},
    }  # fmt: skip
    result = evaluate(str(folder / "model"), values, device=CPU)
    assert dict(result.facts["left_out"]) == {"not-an-image": 1, "missing": 1}
    score = result.measures["score"]
    assert score["all"].n == 8 and score["all"].items == 2
    assert score["sampling=popular"].n == 4 and score["present=yes"].n == 4
    assert {"precision", "recall", "f1", "yes_ratio", "hallucination"} <= set(result.measures)
    assert result.measures["recall"]["all"].value == score["present=yes"].value
    assert "left out: 1" in result.table() and result.facts["source"] == "pope"
    with pytest.raises(UsageError, match=r"task\.source\.path is not set: name the pope files"):
        evaluate(str(folder / "model"), {**values, "source": {"name": "pope"}}, device=CPU)


def test_choices_by_likelihood_and_by_generation(folder: Path, tmp_path: Path) -> None:
    tags = question_details([{"choices": ["yes", "no"]}])
    image = encode_png(Image.new("RGB", (30, 20), (0, 90, 0)))
    turns = [("user", "<image>a cup?"), ("assistant", "no")]
    write_shards([Sample([image], turns, tags, "0" * 64)], tmp_path / "data", Policy())
    values = task(tmp_path, metric="choice", by="likelihood", letters=False)
    found = evaluate(str(folder / "model"), values, device=CPU)
    assert found.records[0].said in ("yes", "no") and found.records[0].extra["choices"] == 2
    assert found.measures["score"]["all"].value == float(found.records[0].said == "no")
    said = evaluate(str(folder / "model"), {**values, "by": "generation"}, device=CPU)
    assert "unread" in said.measures


def test_wrong_combinations_are_named(folder: Path) -> None:
    for changed, message in (
        ({"by": "likelihood"}, "weighs choices"),
        ({"shards": ""}, "task.shards or task.source"),
        ({"metric": "vqq"}, "did you mean 'vqa'"),
    ):
        with pytest.raises(ConfigError, match=message):
            evaluate(str(folder / "model"), task(folder, **changed), device=CPU)
