import json
from pathlib import Path

import torch
from PIL import Image

from mm.checkpoints import native
from mm.data.sample import Sample
from mm.data.shards import write_shards
from mm.evaluate.held_out import as_saved, make_evaluate
from mm.evaluate.records import read_records
from mm.evaluate.task import evaluate
from mm.privacy.door import encode_png
from mm.privacy.policy import Policy
from tests import tiny_model

CPU = torch.device("cpu")
TURNS = [("user", "<image>What is this?"), ("assistant", "a red cup")]
TURNS += [("user", "yes?"), ("assistant", "no")]


def data(root: Path) -> dict[str, object]:
    samples = [
        Sample(
            [encode_png(Image.new("RGB", (30, 20), colour))],
            TURNS,
            {"labels": "caption.en+caption.en.1 presence_no.en"},
            f"{n:064x}",
        )
        for n, colour in enumerate(("red", "green", "blue"))
    ]
    write_shards(samples, root / "data", Policy())
    task = {"name": "try", "version": 1, "shards": str(root / "data"), "max_new_tokens": 6}
    held_out = {"shards": [str(root / "data")], "samples": 2, "task": task}
    return {"output": str(root / "run"), "data": {"kind": "shards", "held_out": held_out}}


def test_a_task_in_training_gives_what_the_saved_model_gives(tmp_path: Path) -> None:
    model, config = tiny_model.model(), data(tmp_path)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    measure = make_evaluate(config, tiny_model.tokenizer(), CPU)
    assert measure is not None
    found = measure(model.eval())
    assert all(tensor.equal(before[name]) for name, tensor in model.state_dict().items())
    assert {"try/all", "try/caption.en", "held_out/caption.en"} <= set(found)

    native.save(
        model, tiny_model.tokenizer(), tmp_path / "run" / "model", card="x", dtype=torch.bfloat16
    )
    task = config["data"]["held_out"]["task"]
    later = evaluate(str(tmp_path / "run"), task, device=CPU, limit=2)
    assert tuple(read_records(tmp_path / "run" / "results" / "try.jsonl")) == later.records
    saved = json.loads((tmp_path / "run" / "results" / "try.json").read_text())
    assert saved["measures"] == json.loads(later.json())["measures"]
    assert found["try/all"] == later.measures["score"]["all"].value
    assert saved["command"].endswith("task=try limit=2")


def test_a_picture_with_its_questions_is_one_held_out_item(tmp_path: Path) -> None:
    measure = make_evaluate(data(tmp_path), tiny_model.tokenizer(), CPU)
    assert measure is not None
    measure(tiny_model.model().eval())
    lines = (tmp_path / "run" / "held_out.jsonl").read_text().splitlines()
    items = [(line["item"], line["label"]) for line in map(json.loads, lines)]
    assert items == [
        (0, "caption.en"), (0, "presence_no.en"), (1, "caption.en"), (1, "presence_no.en"),
    ]  # fmt: skip


def test_weights_are_as_saved_for_a_while_only() -> None:
    model = tiny_model.model()
    weight = model.decoder.model.embed_tokens.weight
    own = weight.detach().clone()
    with as_saved(model):
        assert weight.equal(own.bfloat16().float()) and not weight.equal(own)
    assert weight.equal(own)
