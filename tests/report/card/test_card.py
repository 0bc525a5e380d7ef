"""A run's card says what lies in the run's folder, all of it, and nothing else."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from mm.errors import UsageError
from mm.report.card import card_after_training, write_run_card
from mm.report.card.run_facts import measures_of, read_run
from mm.report.card.sections import MEASURED, both_languages, sections
from scripts import card
from tests import tiny_model
from tests.tiny_artwork import write_artwork


def result(kind: str, **measures: float) -> dict[str, Any]:
    rows = {
        name: {"value": value, "interval": [value - 0.01, value + 0.01], "n": 40}
        for name, value in measures.items()
    }
    return {"kind": kind, "command": f"python scripts/{kind}.py", "measures": rows}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with everything that a card can hold; written once, copied by tests that change it."""
    place = tmp_path_factory.mktemp("runs")
    run, artwork = place / "cups", write_artwork(place / "artwork")
    tiny_model.save(run / "model", tiny_model.model(1))
    ledger = json.loads((artwork / "ledger.json").read_text())
    config = {"name": "cups", "data": {"artwork": [str(artwork)]}, "recipe": {"steps": 70}}
    facts = {
        "git_commit": "c0ffee", "git_dirty": True, "python": "3.12.1", "torch": "2.11.0",
        "device": "NVIDIA H100 80GB HBM3", "device_used": "cuda", "seed": 5, "init": None,
        "ledgers": {"artwork": ledger["self_hash"]}, "processes": 2,
    }  # fmt: skip
    status = {"state": "done", "seconds": 1800.0, "overrides": ["experiment=cups"]}
    metrics = [{"step": 70, "loss": 0.4321, "tokens": 98765.0}]
    answers = [
        {"item": item, "label": label, "right": item % 3 > 0}
        for item in range(60)
        for label in ("caption.en", "caption.ko", "reading")
    ]
    write(run / "config.yaml", yaml.safe_dump(config))
    write(run / "run.json", json.dumps(facts))
    write(run / "status.json", json.dumps(status))
    write(run / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in metrics))
    write(run / "held_out.jsonl", "".join(json.dumps(row) + "\n" for row in answers))
    for number, (_, kinds, start, _) in enumerate(MEASURED):
        found = result(kinds[0], **{"count.en": 0.71 + number / 100, "count.ko": 0.31})
        if start:
            found[start.rstrip("/")] = {"all": {"value": 0.567, "interval": [0.5, 0.6], "n": 40}}
        write(run / "results" / f"{kinds[0]}.json", json.dumps(found))
    return run


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "cups"))


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_a_complete_run_leaves_nothing_unmeasured(run: Path) -> None:
    text = write_run_card(run).read_text("utf-8")
    assert "Not measured" not in text and "Not known" not in text
    assert (run / "model" / "README.md").read_text("utf-8") == text
    for words in (
        "c0ffee", "0.4321", "98,765", "70 of 70", "0.667", "| 0.710", "0.760", "0.567",
        "2 x NVIDIA H100", "0.7 kWh", "experiment=cups", "Not looked for", "SHA-256", "not stated",
    ):  # fmt: skip
        assert words in text, words
    assert all(not re.search(r"\bNone\b|nan", line) for line in text.splitlines() if line)


@pytest.mark.parametrize(
    ("file", "title"),
    [
        ("config.yaml", "Configuration"),
        ("config.yaml", "Reproduce it"),
        ("status.json", "Energy"),
        ("metrics.jsonl", "Training"),
        ("held_out.jsonl", "Held-out questions"),
        *((f"results/{kinds[0]}.json", title) for title, kinds, _, _ in MEASURED),
    ],
)
def test_what_is_not_there_is_said_not_to_be_measured(run: Path, file: str, title: str) -> None:
    assert all(part.is_measured for part in sections(read_run(run)))
    (run / file).unlink()
    if title == "Results on tasks":  # where the controls' are shown too
        (run / "results" / "controls.json").unlink()
    part = next(part for part in sections(read_run(run)) if part.title == title)
    assert not part.is_measured and part.lines[0].startswith("Not measured")
    assert "python scripts/" in part.lines[-1] and "{" not in part.command
    assert (
        title
        in json.loads(Path(write_run_card(run).with_suffix(".json")).read_text())["not_measured"]
    )


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, item in inner:
        deeper = isinstance(item, dict | list) and bool(item)
        found += leaves(item, (*path, key)) if deeper else [(*path, key)]
    return found


@pytest.mark.parametrize("file", ["run.json", "status.json", "results/task.json"])
def test_every_fact_shows_in_the_card(run: Path, file: str) -> None:
    before = write_run_card(run).read_text("utf-8")
    content = json.loads((run / file).read_text())
    for path in leaves(content):
        if path[-1] in ("state", "kind", "device_used", "init"):  # read to choose words, or empty
            continue
        changed = json.loads((run / file).read_text())
        inner = changed
        for key in path[:-1]:
            inner = inner[key]
        old = inner[path[-1]]
        if isinstance(old, bool):
            inner[path[-1]] = not old
        else:
            inner[path[-1]] = old * 3 if isinstance(old, int | float) else "0123456789ab"
        (run / file).write_text(json.dumps(changed))
        assert write_run_card(run).read_text("utf-8") != before, path
        (run / file).write_text(json.dumps(content))


def test_no_sentence_is_about_one_run(whole: Path, tmp_path: Path) -> None:
    """A card of almost nothing shares no number with the one of a whole run."""
    other = tiny_model.save(tmp_path / "bare", tiny_model.model(2))
    numbers = [
        {
            number
            for part in sections(read_run(folder))
            if part.title not in ("Model", "Misuse", "Limits")  # of the same tiny sizes and rules
            for line in part.lines
            if not line.startswith("    ")  # a command, with this machine's paths
            for number in re.findall(r"\d+(?:[.,]\d+)*", line)
        }
        for folder in (whole, other)
    ]
    assert numbers[0] and not numbers[1]


def test_front_matter_is_what_the_hub_reads(run: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    found = hub.ModelCard(write_run_card(run, grams_per_kwh=400).read_text("utf-8")).data
    assert found.library_name == "mm" and found.language == ["en", "ko"]
    assert found.datasets == ["artwork"] and found.model_name == "cups"
    values = {(r.dataset_name, r.metric_type): r.metric_value for r in found.eval_results}
    assert values[("held-out questions", "caption.en")] == pytest.approx(2 / 3, abs=1e-6)
    assert values[("task", "count.en")] == 0.71
    emissions = found.to_dict()["co2_eq_emissions"]
    assert emissions["emissions"] == pytest.approx(0.5 * 2 * 0.7 * 400)


def test_json_holds_every_measure(run: Path) -> None:
    found = json.loads(write_run_card(run).with_suffix(".json").read_text("utf-8"))
    assert found["not_measured"] == {}
    assert {entry["kind"] for entry in found["results"]} == {
        kinds[0] for _, kinds, _, _ in MEASURED
    }
    assert found["data"][0]["counts"]["samples"] > 0
    assert found["kilowatt_hours"] == pytest.approx(0.7)
    assert len(found["held_out"]) == 3


def test_languages_share_a_row() -> None:
    entry = {"value": 0.5, "interval": [0.4, 0.6], "n": 9}
    names = ("vqa/count.en", "vqa/count.ko", "caption.en.4", "caption.ko.4", "language=ko", "all")
    lines = both_languages(list(measures_of({"measures": dict.fromkeys(names, entry)})))
    cell = "0.500 [0.400, 0.600] n=9"
    assert f"| vqa/count | {cell} | {cell} |" in lines
    assert f"| caption.4 | {cell} | {cell} |" in lines
    assert f"| language=ko | {cell} |" in lines and f"| all | {cell} |" in lines


def test_a_gap_to_what_was_trained_on_is_a_limit(run: Path) -> None:
    path = run / "results" / "gap.json"
    words = "Better on what it was trained on, gap: overall, kind=count."
    assert words not in write_run_card(run).read_text("utf-8")
    path.write_text(json.dumps({**result("gap"), "flagged": ["overall", "kind=count"]}))
    assert words in write_run_card(run).read_text("utf-8")


def test_data_that_changed_is_not_described(run: Path) -> None:
    facts = json.loads((run / "run.json").read_text())
    facts["ledgers"]["artwork"] = "0" * 64
    (run / "run.json").write_text(json.dumps(facts))
    text = write_run_card(run).read_text("utf-8")
    assert "not at hand in this state" in text and "Not looked into" in text


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run"):
        write_run_card(tmp_path)


@pytest.mark.parametrize("text", ["[1]", "{", '{"measures": '])
def test_a_damaged_file_is_named(run: Path, text: str) -> None:
    (run / "run.json").write_text(text)
    with pytest.raises(UsageError, match="damaged"):
        write_run_card(run)


def test_a_finished_training_never_fails_for_its_card(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card_after_training(run, 1800.0)
    assert "1.4 kWh" in (run / "card.md").read_text("utf-8")
    (run / "run.json").write_text("{")
    card_after_training(run, 1.0)
    assert "scripts/card.py" in capsys.readouterr().err


def test_the_script_writes_cards_of_runs_and_sets(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_artwork(tmp_path / "set")
    monkeypatch.setattr("sys.argv", ["card.py", str(run), str(data), "--licence", "MIT"])
    assert card.main() == 0
    assert capsys.readouterr().out.split() == [str(run / "card.md"), str(data / "README.md")]
    monkeypatch.setattr("sys.argv", ["card.py", str(tmp_path)])
    assert card.main() == 2
