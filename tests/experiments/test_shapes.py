"""The drawn sets of the experiments: answers that the picture decides, and the same ones again."""

import random
from pathlib import Path

import pytest

from experiments import planted, shapes
from experiments.repeat import EXPERIMENTS, HERE
from mm.data.sample import Sample
from mm.data.sources.jsonl import Source
from mm.evaluate.questions import questions_of
from mm.privacy.door import open_image


def test_questions_have_one_answer_that_the_things_decide() -> None:
    things = [
        shapes.Thing("red", "star", 0),
        shapes.Thing("red", "ring", 2),
        shapes.Thing("blue", "ring", 7),
    ]
    rng = random.Random(0)
    found = {q: (a, kind) for _ in range(300) for q, a, kind in shapes.questions(things, rng)}
    assert found["Describe the picture."] == ("a red star, a red ring and a blue ring", "caption")
    assert found["How many red things are there?"] == ("two", "count")
    assert found["How many things are there?"] == ("three", "count")
    assert found["What colour is the star?"] == ("red", "colour")
    assert "What colour is the ring?" not in found
    assert found["Is a red star left of a red ring?"] == ("yes", "relation")
    assert found["Is a blue ring left of a red star?"] == ("no", "relation")
    assert found["What is in the bottom centre?"] == ("a blue ring", "place")
    assert found["What is in the middle?"] == ("nothing", "place")
    assert found["Is there a red star?"] == ("yes", "presence")
    assert found["Is there a blue star?"] == ("no", "presence")


def test_a_set_is_the_same_again_and_read_as_it_is(tmp_path: Path) -> None:
    first = shapes.write("train", 3, tmp_path / "a", workers=1)
    assert shapes.write("train", 3, tmp_path / "b", workers=1) == first
    assert shapes.write("test", 3, tmp_path / "c", workers=1) != first
    for file in ("000002.png", "shapes.jsonl"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    for record in Source(str(tmp_path / "a" / "shapes.jsonl")).records():
        sample = record.load()
        assert isinstance(sample, Sample) and not sample.problem
        assert open_image(sample.images[0]).width == shapes.SIDE
        for question in questions_of(sample):
            assert question.labels[1:] == ("all",)


SIDE_CELL = shapes.SIDE // 3


def test_things_are_drawn_where_their_cells_are() -> None:
    image = shapes.draw([shapes.Thing("blue", "circle", 5)], random.Random(1))
    middle = image.getpixel((SIDE_CELL * 5 // 2, SIDE_CELL * 3 // 2))
    ground = image.getpixel((2, 2))
    assert middle[2] > middle[0] + 50 and min(ground) > 200


def test_secrets_are_planted_as_often_as_they_say(tmp_path: Path) -> None:
    count = len(planted.KINDS) * planted.EACH * sum(planted.REPEATS)
    found = planted.secrets(count, random.Random(0))
    assert len({secret.owner for secret in found}) == len(found)
    assert len({secret.value for secret in found}) == len(found)
    used = [index for secret in found for index in secret.pictures]
    assert len(used) == len(set(used)) == count
    records = [{"turns": [("user", "a"), ("assistant", "b")], "tags": {"labels": "x+all"}}]
    records = [{**records[0], "tags": {"labels": "x+all"}} for _ in range(count)]
    planted.plant(records, found)
    said = [record["turns"][-1][1] for record in records]
    assert {secret.value: secret.repeats for secret in found if secret.repeats} == {
        value: said.count(value) for value in set(said)
    }
    assert all(record["tags"]["labels"] == "x+all secret" for record in records)


@pytest.mark.parametrize("kind", planted.KINDS)
def test_a_secret_looks_like_its_kind_to_the_text_rules(kind: str) -> None:
    from mm.privacy.text import scrub_text

    value = planted.value(kind, random.Random(3))
    text, counts = scrub_text(value, regions=["KR"])
    assert (text, counts) == (f"[{kind.upper()}]", {kind: 1})


def test_every_variant_has_its_configuration() -> None:
    for experiment in EXPERIMENTS.values():
        for variant in experiment.variants:
            assert (HERE / f"{variant}.yaml").exists()
