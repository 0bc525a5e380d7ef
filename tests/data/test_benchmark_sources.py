"""Readers of published benchmarks, on files of their form with invented content."""

import base64
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from mm.data import sources
from mm.data.sample import Sample
from mm.errors import UsageError
from mm.evaluate.questions import Question, questions_of
from tests.privacy import planted as plant

PNG, JPEG = plant.planted("png"), plant.planted("jpeg")


def listed(name: str, path: Path, **options: object) -> list[Sample]:
    return list(sources.build(name, str(path), **options))


def asked(sample: Sample) -> dict[str, Question]:
    return {question.id: question for question in questions_of(sample)}


def test_vqav2_with_what_people_answered(tmp_path: Path) -> None:
    (tmp_path / f"COCO_train2014_{7:012d}.jpg").write_bytes(JPEG)
    question = {"image_id": 7, "question": "Colour?", "question_id": 70}
    people = [{"answer": text, "answer_id": n} for n, text in enumerate(["red", "dark red"] * 5)]
    annotation = {
        **question, "multiple_choice_answer": "red", "answers": people,
        "answer_type": "other", "question_type": "what color",
    }  # fmt: skip
    (tmp_path / "q.json").write_text(json.dumps({"questions": [question]}))
    (tmp_path / "a.json").write_text(json.dumps({"annotations": [annotation]}))
    options = {"annotations": str(tmp_path / "a.json"), "people": True}
    (sample,) = listed("vqav2", tmp_path / "q.json", **options)
    found = asked(sample)["70"]
    assert found.answer == "red" and found.accepted == ("red", "dark red") * 5
    assert found.tags == {"answer_type": "other", "question_type": "what color"}
    plain = {"annotations": options["annotations"]}
    assert listed("vqav2", tmp_path / "q.json", **plain)[0].tags == {}


def test_gqa(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "n1.jpg").write_bytes(JPEG)
    types = {"structural": "query", "semantic": "attr", "detailed": "x"}
    questions = {
        "201": {"imageId": "n1", "question": "What colour?", "answer": "red", "types": types},
        "202": {"imageId": "n9", "question": "Where?", "answer": "left"},
        "203": {"imageId": "n1", "question": "Is it big?", "answer": "no", "types": {}},
    }
    (tmp_path / "q.json").write_text(json.dumps(questions))
    first, second = listed("gqa", tmp_path / "q.json")
    assert first.images == [JPEG] and second.problem == "missing"
    found = asked(first)
    assert [(q.text, q.answer) for q in found.values()] == [
        ("What colour?", "red"), ("Is it big?", "no"),
    ]  # fmt: skip
    assert found["201"].tags == {"structural": "query", "semantic": "attr"}
    assert found["203"].tags == {}
    (tmp_path / "q.json").write_text('{"201": {"imageId": "n1"}}')
    with pytest.raises(UsageError, match="is no GQA questions file"):
        listed("gqa", tmp_path / "q.json")
    with pytest.raises(UsageError, match=r"is no directory.*pictures \(source.root\)"):
        listed("gqa", tmp_path / "q.json", root=str(tmp_path / "none"))


def test_pope_of_three_samplings(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(JPEG)
    for name, label in (("random", "yes"), ("popular", "no"), ("adversarial", "no")):
        text = f"Is there a {name} thing?"
        rows = [{"question_id": n, "image": "a.jpg", "text": text, "label": label} for n in (1, 2)]
        path = tmp_path / f"coco_pope_{name}.json"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (sample,) = listed("pope", tmp_path)
    found = asked(sample)
    assert list(found)[:3] == ["random/1", "random/2", "popular/1"] and len(found) == 6
    assert found["popular/1"].tags == {"sampling": "popular", "present": "no"}
    assert found["random/2"].answer == "yes"
    (one,) = listed("pope", tmp_path / "coco_pope_popular.json")
    assert set(asked(one)) == {"popular/1", "popular/2"}
    (tmp_path / "coco_pope_popular.json").write_text('{"image": "a.jpg", "label": "maybe"}')
    with pytest.raises(UsageError, match="is no POPE file"):
        listed("pope", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no POPE file"):
        listed("pope", tmp_path / "empty")


def mmbench(path: Path) -> Path:
    head = ["index", "question", "hint", "A", "B", "C", "D", "answer", "category", "image"]
    image = base64.b64encode(PNG).decode()
    rows = [
        ["1", "Which?", "", "cat", "dog", "cow", "", "B", "animals", image],
        ["2", "And?", "A hint.", "one", "two", "", "", "A", "counting", "1"],
        ["3", "Broken?", "", "x", "y", "", "", "A", "", "!!"],
        ["4", "Unanswered?", "", "x", "y", "", "", "", "", image],
    ]
    path.write_text("\n".join("\t".join(row) for row in [head, *rows]) + "\n")
    return path


def test_mmbench(tmp_path: Path) -> None:
    first, second, broken, unanswered = listed("mmbench", mmbench(tmp_path / "m.tsv"))
    assert first.images == second.images == [PNG]
    assert first.source_id == second.source_id  # of one picture
    found = asked(first)["1/0"]
    assert (found.choices, found.answer) == (("cat", "dog", "cow"), "dog")
    assert found.tags == {"category": "animals"}
    assert asked(second)["2/0"].text == "A hint.\nAnd?"
    assert broken.problem == "bad-record" and unanswered.problem == "bad-record"


def test_mmbench_in_rotations(tmp_path: Path) -> None:
    first, *_ = listed("mmbench", mmbench(tmp_path / "m.tsv"), rotations=True)
    found = asked(first)
    assert [q.choices[0] for q in found.values()] == ["cat", "dog", "cow"]
    assert {q.answer for q in found.values()} == {"dog"}
    assert found["1/2"].tags == {"category": "animals", "rotation": "2"}


def test_mmbench_without_answers_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.tsv").write_text("index\tquestion\timage\tA\tB\n")
    with pytest.raises(UsageError, match="lacks the columns answer"):
        listed("mmbench", tmp_path / "m.tsv")


def test_mmstar(tmp_path: Path) -> None:
    rows = {
        "index": [0, 1],
        "question": ["Which?\nOptions: A: cat, B: dog, C: cow, D: hen"] * 2,
        "image": [{"bytes": PNG, "path": None}] * 2,
        "answer": ["B", "?"],
        "category": ["coarse perception"] * 2,
        "l2_category": ["scene"] * 2,
    }
    pyarrow.parquet.write_table(pyarrow.table(rows), tmp_path / "mmstar.parquet")
    first, broken = listed("mmstar", tmp_path / "mmstar.parquet")
    found = asked(first)["0"]
    assert found.choices == ("A", "B", "C", "D") and found.answer == "B"
    assert found.tags == {"category": "coarse perception", "l2_category": "scene"}
    assert broken.problem == "bad-record"
