"""Tables of the experiments from runs with known numbers."""

import json
from pathlib import Path

import pytest

from experiments import figures, planted

pytest.importorskip("matplotlib", reason="matplotlib, an extra, is not installed")


def lines(path: Path, values: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(value) + "\n" for value in values))


def test_extraction_counts_secrets_by_how_often_they_were_planted(tmp_path: Path) -> None:
    runs: dict[str, list[Path]] = {"raw": [], "scrubbed": []}
    for variant, seed in [(v, s) for v in runs for s in range(3)]:
        folder = tmp_path / f"{variant}{seed}"
        secrets = [
            {
                "kind": kind,
                "repeats": repeats,
                "with_its_picture": variant == "raw" and repeats >= 4,
                "with_another_picture": variant == "raw" and repeats >= 32,
                "exposure": 9.0 if variant == "raw" and repeats >= 4 else 1.0,
            }
            for repeats in planted.REPEATS
            for kind in planted.KINDS
        ]
        lines(folder / "extraction.jsonl", secrets)
        runs[variant].append(folder)
    figures.extraction(runs, tmp_path / "result")
    facts = json.loads((tmp_path / "result_extraction.json").read_text())
    assert facts["raw"]["all"]["4"]["with_its_picture"]["value"] == 1
    assert facts["raw"]["all"]["2"]["with_its_picture"]["value"] == 0
    assert facts["raw"]["card"]["32"]["with_another_picture"]["value"] == 1
    assert facts["scrubbed"]["all"]["32"]["exposure"]["value"] == 1
    table = (tmp_path / "result_extraction.md").read_text()
    assert "| raw | 16 | 1.00 [" in table and (tmp_path / "result_extraction.svg").exists()


def test_curves_and_seconds_of_a_step(tmp_path: Path) -> None:
    runs: dict[str, list[Path]] = {"packed": [], "padded": []}
    for variant, tokens, speed in (("packed", 100, 1000), ("padded", 300, 1500)):
        for seed in range(2):
            folder = tmp_path / f"{variant}{seed}"
            points: list[dict[str, object]] = [
                {"step": s, "loss": 1 / s, "tokens": tokens * s, "tokens_per_s": speed, "fill": 0.5}
                for s in (10, 20, 30)
            ]
            lines(folder / "metrics.jsonl", [*points, {"step": 30, "held_out/all": 0.5}])
            runs[variant].append(folder)
    figures.curves(runs, tmp_path / "result")
    figures.speeds(runs, tmp_path / "result")
    facts = json.loads((tmp_path / "result_seconds.json").read_text())
    assert facts["packed"]["seconds"] == pytest.approx([0.1, 0.1])
    assert facts["padded"]["seconds"] == pytest.approx([0.2, 0.2])
    assert (
        "| padded | 300 | 50% | 0.2000, 0.2000 | 2.00 |"
        in (tmp_path / "result_seconds.md").read_text()
    )
    assert json.loads((tmp_path / "result_curves.json").read_text())["packed"]["step"] == [
        10,
        20,
        30,
    ]


def test_trials_are_listed_best_first(tmp_path: Path) -> None:
    for index, loss in enumerate((0.5, 0.25, 0.75)):
        status = {
            "state": "done" if loss < 0.7 else "failed",
            "overrides": ["experiment=a", f"recipe.learning_rates.encoder={10.0**-index}"],
            "metrics": {"loss": loss},
            "started": "",
        }
        lines(tmp_path / str(index) / "status.json", [status])
    figures.trials(tmp_path, tmp_path / "search")
    table = (tmp_path / "search.md").read_text().splitlines()
    assert table == [
        "| encoder | loss |",
        "| --- | --- |",
        "| 1.00e-01 | 0.2500 |",
        "| 1.00e+00 | 0.5000 |",
    ]
