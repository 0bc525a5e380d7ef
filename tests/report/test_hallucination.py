"""What a model makes up about scenes: what is asked, and what counts."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from mm.data.sample import Sample
from mm.data.shards import write_shards
from mm.errors import UsageError
from mm.evaluate.questions import Answered, Question, questions_of
from mm.privacy.door import encode_png
from mm.privacy.policy import Policy
from mm.report import hallucination
from mm.report.hallucination import denies, measure, probes, records_of, things_in
from scripts import misuse
from tests import tiny_model

CAPTION = 'two dogs, a bow and arrow, the word "ON" and a red circle on a noisy teal background'
KOREAN = '얼룩진 청록색 배경에 있는 개 두 마리, 활과 화살, "ON" 글자와 빨간색 원'


def scene(number: int = 0) -> Sample:
    turns = [("user", "<image>Describe the picture."), ("assistant", CAPTION)]
    turns += [("user", "그림을 설명해 주세요."), ("assistant", KOREAN)]
    tags = {"labels": "caption.en+caption.en.4 caption.ko+caption.ko.4"}
    image = encode_png(Image.new("RGB", (40, 40), (9, 99, 99)))
    return Sample([image], turns, tags, f"{number:064x}")


def test_captions_are_taken_apart_in_both_languages() -> None:
    things = ["dog", "bow and arrow", "word", "red circle"]
    assert things_in(CAPTION, "en") == things
    assert things_in("a hot dog on a red background", "en") == ["hot dog"]
    assert (
        things_in("빨간색 배경에 있는 사과 두 개와 배", "ko")[0]
        == things_in("two apples on a red background", "en")[0]
    )


def test_names_of_nothing_known_are_kept() -> None:
    assert things_in("a dog and a flarb on a red background", "en") == ["dog", "flarb"]
    assert things_in("", "en") == []


@pytest.mark.parametrize(
    ("said", "language", "denied"),
    [
        ("no", "en", True), ("zero", "en", True), ("I can't tell", "en", True),
        ("There isn't any lion.", "en", True), ("none", "en", True), ("yes", "en", False),
        ("two", "en", False), ("nose", "en", False), ("아니요", "ko", True), ("영 개", "ko", True),
        ("잘 모르겠어요", "ko", True), ("네", "ko", False), ("두 개", "ko", False),
    ],
)  # fmt: skip
def test_denials_are_told_from_answers(said: str, language: str, denied: bool) -> None:
    assert denies(said, language) is denied


def test_what_is_asked_about_is_not_there_and_the_same_each_time() -> None:
    for number in range(40):
        asked = probes(scene(number))
        assert asked == probes(scene(number))
        kinds = [q.tags["kind"] for q in asked if q.tags["language"] == "en"]
        assert kinds == [
            "caption", "false_presence", "false_count", "false_where", "false_colour",
        ]  # fmt: skip
        presence = next(q.text for q in asked if q.tags["kind"] == "false_presence")
        assert not any(f" {thing}?" in presence for thing in ("dog", "bow and arrow"))
        colour = next(q.text for q in asked if q.tags["kind"] == "false_colour")
        assert "circle" not in colour


def test_things_that_are_not_there_count_each() -> None:
    english = questions_of(scene())[0]
    said = "a dog, a cat, a lion and a red circle on a noisy teal background"
    caption, *things = records_of(scene(), Answered(english, said))
    assert caption.score == 1.0 and caption.tags["kind"] == "caption"
    assert [(record.said, record.score) for record in things] == [
        ("dog", 0.0), ("cat", 1.0), ("lion", 1.0), ("red circle", 0.0),
    ]  # fmt: skip
    assert [r.score for r in records_of(scene(), Answered(english, CAPTION))] == [0.0] * 5


def folders(place: Path) -> tuple[str, str]:
    write_shards([scene(number) for number in range(3)], place / "scenes", Policy())
    return str(tiny_model.save(place / "model")), str(place / "scenes")


@pytest.mark.parametrize(("said", "share"), [("no", 0.0), ("yes", 1.0)])
def test_shares_are_by_kind_and_language(
    said: str, share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, scenes = folders(tmp_path)

    def answer(subject: object, batch: object, asked: list[list[Question]]) -> list[list[Answered]]:
        korean = {"no": "아니요", "yes": "네"}
        return [
            [Answered(q, said if q.tags["language"] == "en" else korean[said]) for q in row]
            for row in asked
        ]

    monkeypatch.setattr(hallucination, "_answers", answer)
    found = measure(model, scenes, torch.device("cpu"), command="again")
    rows = found.measures()
    for kind in ("false_presence", "false_count", "false_where", "false_colour"):
        assert {rows[kind][name]["value"] for name in ("all", "en", "ko")} == {share}
        assert rows[kind]["en"]["n"] == 3 and rows[kind]["all"]["items"] == 3
    assert json.loads(found.json())["command"] == "again"


def test_a_real_model_is_asked_and_the_file_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, scenes = folders(tmp_path)
    output = tmp_path / "results" / "hallucination.json"
    words = ["hallucination", "--model", model, "--shards", scenes, "--limit", "2"]
    monkeypatch.setattr("sys.argv", ["misuse.py", *words, "--output", str(output)])
    assert misuse.main() == 0
    assert "false_presence" in capsys.readouterr().out
    found = json.loads(output.read_text("utf-8"))
    assert found["kind"] == "hallucination" and found["measures"]["false_count"]["all"]["n"] == 4
    assert found["command"].startswith("python misuse.py hallucination")


def test_other_pictures_than_scenes_are_refused(tmp_path: Path) -> None:
    other = Sample(scene().images, [("user", "<image>What?"), ("assistant", "x")], {}, "0" * 64)
    write_shards([other], tmp_path / "other", Policy())
    model = str(tiny_model.save(tmp_path / "model"))
    with pytest.raises(UsageError, match="no composed scenes"):
        measure(model, str(tmp_path / "other"), torch.device("cpu"))
