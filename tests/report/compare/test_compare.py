import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from mm.errors import UsageError
from mm.report.compare import plot
from mm.report.compare.comparison import ONE_SEED, SAME, Comparison, compare
from mm.report.compare.runs import collect
from scripts import compare as script


def write_run(
    sweep: Path,
    projector: str,
    seed: int,
    loss: float,
    rights: list[bool] | None = None,
    state: str = "done",
) -> Path:
    folder = sweep / f"{projector}-{seed}"
    folder.mkdir(parents=True)
    config = {"projector": {"name": projector}, "recipe": {"seed": seed}, "output": str(folder)}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "run.json").write_text(json.dumps({"device_used": "cpu"}))
    status: dict[str, Any] = {
        "state": state,
        "overrides": ["experiment=x", f"projector={projector}", f"recipe.seed={seed}"],
        "metrics": {"loss": loss, "step": 5, "tokens": 1000},
        "seconds": 2.0,
        "peak_memory_bytes": 2**20 * 7,
    }
    (folder / "status.json").write_text(json.dumps(status))
    if rights is not None:
        lines = [{"item": i, "label": f"l{i % 2}", "right": r} for i, r in enumerate(rights)]
        (folder / "held_out.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    return folder


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    place = tmp_path / "sweep"
    for seed, noise in enumerate((0.3, -0.1, -0.2)):
        write_run(place, "mlp", seed, 5.0 + noise)
        write_run(place, "linear", seed, 6.0 + noise + 0.01 * seed)
        write_run(place, "qformer", seed, 5.0 - noise)
    return place


def compared(*paths: Path, **options: Any) -> Comparison:
    return compare(collect(paths).variants, **options)


def test_differences_are_paired_and_marked(sweep: Path) -> None:
    found = compared(sweep, baseline="projector=mlp")
    rows = {row.name: row for row in found.rows}
    assert found.metric == "loss" and found.rows[0].name == "projector=mlp"
    linear, qformer = rows["projector=linear"], rows["projector=qformer"]
    assert linear.mark == "higher" and linear.difference
    assert linear.difference.value == pytest.approx(1.01)
    # Unpaired, the noise that both share would hide it.
    assert linear.difference.high - linear.difference.low < 0.2
    assert linear.estimate.high - linear.estimate.low > 1.0
    assert qformer.mark == SAME
    assert rows["projector=mlp"].mark == "baseline"


def test_the_table_says_cost_and_marks(sweep: Path) -> None:
    table = compared(sweep, baseline="projector=mlp").table()
    line = next(line for line in table.splitlines() if "projector=qformer" in line)
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[:3] == ["projector=qformer", "3", "5.0000"]
    assert cells[6:] == [SAME, "2.0", "1,000", "7"]
    assert "paired, seed by seed" in table


def test_held_out_items_are_the_measure_where_there_are_any(tmp_path: Path) -> None:
    for seed in range(3):
        write_run(tmp_path, "mlp", seed, 5.0, [True] * 6 + [False] * 14)
        write_run(tmp_path, "linear", seed, 5.0, [True] * 16 + [False] * 4)
    found = compared(tmp_path, baseline="projector=mlp")
    assert found.metric == "held_out" and "20 held-out items" in found.table()
    other = found.rows[1]
    assert other.difference and other.difference.value == pytest.approx(0.5)
    assert other.difference.items == 20 and other.mark == "higher"
    # All seeds agree, so the items alone make the interval.
    assert other.estimate.low < 0.8 < other.estimate.high


def test_none_right_is_not_certainly_none(tmp_path: Path) -> None:
    for seed in range(3):
        write_run(tmp_path, "mlp", seed, 5.0, [False] * 20)
        write_run(tmp_path, "linear", seed, 5.0, [False] * 20)
    rows = compared(tmp_path).rows
    assert rows[0].estimate.low == 0 and 0.1 < rows[0].estimate.high < 0.2
    assert rows[1].mark == SAME


def test_one_seed_can_tell_nothing_apart(tmp_path: Path) -> None:
    write_run(tmp_path, "mlp", 0, 5.0)
    write_run(tmp_path, "linear", 0, 9.0)
    assert compared(tmp_path).rows[1].mark == ONE_SEED
    assert "unknown" in compared(tmp_path).table()


def test_several_comparisons_hold_together(sweep: Path) -> None:
    two = compared(sweep, baseline="projector=mlp").rows[1].difference
    folders = [path for path in sweep.iterdir() if "qformer" not in path.name]
    alone = compared(*folders, baseline="projector=mlp").rows[1].difference
    assert two and alone and two.high - two.low > alone.high - alone.low


def test_bad_input_is_one_line(sweep: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="neither a run nor a sweep"):
        collect([tmp_path / "nothing"])
    with pytest.raises(UsageError, match="did you mean 'loss'"):
        compared(sweep, metric="los")
    with pytest.raises(UsageError, match="did you mean 'projector=mlp'"):
        compared(sweep, baseline="projector=ml")
    write_run(tmp_path / "other", "mlp", 0, 5.0)
    with pytest.raises(UsageError, match="same configuration and seed"):
        collect([sweep, tmp_path / "other"])
    write_run(tmp_path / "failed", "mlp", 0, 5.0, state="failed")
    with pytest.raises(UsageError, match="none of 1 runs is finished"):
        collect([tmp_path / "failed"])
    write_run(tmp_path / "far", "x", 9, 5.0)
    with pytest.raises(UsageError, match="no seed in common"):
        compared(sweep, tmp_path / "far")
    (sweep / "mlp-0/config.yaml").write_text("{")
    with pytest.raises(UsageError, match="mlp-0 is damaged"):
        collect([sweep])


def test_the_script_prints_and_writes(
    sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib, an extra, is not installed")
    write_run(sweep, "mlp", 7, 1.0, state="killed")
    words = ["compare.py", str(sweep), "--baseline", "projector=mlp", "--output", f"{tmp_path}/r"]
    monkeypatch.setattr("sys.argv", words)
    assert script.main() == 0
    said = capsys.readouterr()
    assert "mlp-7 (killed)" in said.err and SAME in said.out
    assert (tmp_path / "r.md").read_text().startswith("| variant")
    rows = json.loads((tmp_path / "r.json").read_text())["rows"]
    assert [row["mark"] for row in rows] == ["baseline", "higher", SAME]
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")
    first = (tmp_path / "r.svg").read_bytes()
    assert b"projector=qformer" in first and SAME.encode() in first
    plot.save(compared(sweep, baseline="projector=mlp"), tmp_path / "again.svg")
    assert (tmp_path / "again.svg").read_bytes() == first
