"""scripts/contamination.py, diversity.py and counterfactual.py: JSON, and bad input in one line."""

import io
import json
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from mm.data.sample import Sample
from mm.data.shards import write_shards
from mm.evaluate.records import Record, write_records
from mm.privacy.policy import Policy
from mm.report.card.run_facts import read_result
from scripts import contamination, counterfactual, diversity
from tests import tiny_model
from tests.tiny_artwork import write_artwork


def call(monkeypatch: pytest.MonkeyPatch, script: ModuleType, *arguments: object) -> int:
    name = script.__name__.rpartition(".")[2]
    monkeypatch.setattr("sys.argv", [f"{name}.py", *map(str, arguments)])
    code = script.main()
    assert isinstance(code, int)
    return code


def sample(number: int) -> Sample:
    small = np.random.default_rng(number).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(small).resize((60, 60)).save(file, "PNG")
    turns = [("user", "<image>what is it?"), ("assistant", f"thing {number}")]
    return Sample([file.getvalue()], turns, {"kind": "ab"[number % 2]}, f"{number:064x}")


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation set of four samples, two of whose pictures are in the training set."""
    place = tmp_path_factory.mktemp("sets")
    write_shards([sample(n) for n in (1, 2, 3, 4)], place / "evaluation", Policy())
    write_shards([sample(n) for n in (3, 4, 5)], place / "training", Policy())
    records = [
        Record(f"{number:064x}", "q", score=score)
        for number, score in ((1, 0.0), (2, 0.5), (3, 1.0), (4, 1.0))
    ]
    write_records(records, place / "records.jsonl")
    return place


def check_error(capsys: pytest.CaptureFixture[str], prog: str, *words: str) -> None:
    out, err = capsys.readouterr()
    assert not out and err.startswith(f"{prog}: ") and err.count("\n") == 1
    assert all(word in err for word in words), err


def test_contamination_and_scores_beside_each_other(
    sets: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "contamination.json"
    given = (sets / "evaluation", "--training", sets / "training")
    more = ("--records", sets / "records.jsonl", "--output", output)
    assert call(monkeypatch, contamination, *given, *more) == 0
    assert "4 evaluation items, 3 training samples" in capsys.readouterr().out
    facts = json.loads(output.read_text())
    assert facts["items"] == [f"{number:064x}" for number in (3, 4)]
    scores = facts["scores"]["slices"]["in training"]
    assert (scores["yes"]["value"], scores["no"]["value"]) == (1.0, 0.25)
    found = read_result(output)
    assert found.kind == "contamination" and "--records" in found.command
    assert {m.name: m.value for m in found.measures}["found/any"] == 0.5


def test_diversity_is_counted_over_all_sets(
    sets: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "diversity.json"
    both = (sets / "evaluation", sets / "training")
    assert call(monkeypatch, diversity, *both, "--output", output) == 0
    assert "7 samples, 7 pictures, 14 turns" in capsys.readouterr().out
    facts = json.loads(output.read_text())
    assert facts["tags"]["kind"]["counts"] == {"a": 3, "b": 4}
    assert facts["near_duplicates"]["value"] == pytest.approx(4 / 7)
    assert read_result(output).kind == "diversity"
    assert call(monkeypatch, diversity, *both, "--sampled", 4, "--output", output) == 0
    assert json.loads(output.read_text())["near_duplicates"]["n"] == 4


def test_tones_are_swapped_and_answers_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny_model.save(tmp_path / "model", tiny_model.model(1))
    artwork, output = write_artwork(tmp_path / "artwork"), tmp_path / "counterfactual.json"
    given = (model, "--artwork", artwork, "--scenes", 1, "--device", "cpu")
    assert call(monkeypatch, counterfactual, *given, "--output", output) == 0
    out = capsys.readouterr().out
    assert out.count("answers changed") == 11 and out.startswith("tone 2 ")
    found = read_result(output)
    assert found.kind == "counterfactual" and "--scenes 1" in found.command
    names = {measure.name for measure in found.measures}
    assert names == {
        *(f"changed/tone {number}" for number in range(2, 11)),
        *(f"changed/language {language}" for language in ("en", "ko")),
    }
    assert all(measure.n > 0 and 0 <= measure.value <= 1 for measure in found.measures)
    capsys.readouterr()
    assert call(monkeypatch, counterfactual, model, "--artwork", tmp_path / "none") == 2
    check_error(capsys, "counterfactual", "none")


def test_bad_input_is_one_line(
    sets: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "out.json"
    missing, written = tmp_path / "missing", ("--output", output)
    evaluation, training = sets / "evaluation", ("--training", sets / "training")
    assert call(monkeypatch, contamination, missing, *training, *written) == 2
    check_error(capsys, "contamination", "missing")
    assert call(monkeypatch, contamination, evaluation, "--training", missing, *written) == 2
    check_error(capsys, "contamination", "missing")
    assert call(monkeypatch, diversity, missing, *written) == 2
    check_error(capsys, "diversity", "missing")
    assert call(monkeypatch, counterfactual, missing, "--device", "cpu", *written) == 2
    check_error(capsys, "counterfactual", "missing")
    bare = Path(shutil.copytree(evaluation, tmp_path / "bare"))
    (bare / "ledger.json").unlink()  # nobody says that it was scrubbed
    assert call(monkeypatch, diversity, bare, *written) == 2
    check_error(capsys, "diversity", "bare")
    records = tmp_path / "bad.jsonl"
    records.write_text("{}\n")
    assert call(monkeypatch, contamination, evaluation, *training, "--records", records) == 2
    assert "bad.jsonl:1" in capsys.readouterr().err
    assert not output.exists()
