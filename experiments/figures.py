"""Tables and plots of the experiments beyond those of `scripts/compare.py`.

Each function reads finished runs, by variant, and writes files that start with `prefix`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.planted import KINDS, REPEATS
from mm.evaluate.intervals import of_items
from mm.report.compare.comparison import compare
from mm.report.compare.runs import collect

Runs = Mapping[str, Sequence[Path]]  # variant -> folders
COLOURS = ("#1f5fa8", "#c2571a", "#3a8a4d")


def by_kind(runs: Runs, prefix: Path) -> None:
    """Share of right answers by kind of question, each row beside the first: `PREFIX_kinds.md`."""
    found = collect([folder for folders in runs.values() for folder in folders])
    kinds = sorted({k for v in found.variants for r in v.runs for i in r.rights for k in i})
    first = f"experiment={next(iter(runs))}"
    table: dict[str, list[str]] = {}
    for kind in kinds:
        for row in compare(found.variants, f"held_out/{kind}", first).rows:
            e = row.estimate
            mark = {"higher": " higher", "lower": " lower"}.get(row.mark, "")
            table.setdefault(row.name.removeprefix("experiment="), []).append(
                f"{e.value:.3f} [{e.low:.3f}, {e.high:.3f}]{mark}"
            )
    lines = [["", *kinds], ["---"] * (len(kinds) + 1), *([n, *c] for n, c in table.items())]
    text = "".join("| " + " | ".join(line) + " |\n" for line in lines)
    Path(f"{prefix}_kinds.md").write_text(text, encoding="utf-8")


def curves(runs: Runs, prefix: Path) -> None:
    """Training loss against pictures: `PREFIX_curves.png`, `.svg` and `.json`."""
    lines: dict[str, Any] = {}
    figure, axes = _figure(1)
    for colour, (variant, folders) in zip(COLOURS, runs.items(), strict=False):
        logged = [_logged(folder) for folder in folders]
        steps = [point["step"] for point in logged[0]]
        losses = np.array([[point["loss"] for point in run] for run in logged])
        axes[0].plot(steps, losses.mean(0), color=colour, label=variant)
        axes[0].fill_between(steps, losses.min(0), losses.max(0), color=colour, alpha=0.2)
        lines[variant] = {"step": steps, "loss": losses.round(5).tolist()}
    axes[0].set(xlabel="step", ylabel="loss: mean and range", yscale="log")
    axes[0].legend()
    _save(figure, f"{prefix}_curves", lines)


def _logged(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [point for point in map(json.loads, lines) if "loss" in point]


def speeds(runs: Runs, prefix: Path) -> None:
    """Seconds a step, its first logged ones apart: `PREFIX_seconds.md` and `.json`."""
    rows: dict[str, Any] = {}
    for variant, folders in runs.items():
        seconds = []
        for folder in folders:
            points = _logged(folder)
            each = [
                (b["tokens"] - a["tokens"]) / (b["step"] - a["step"]) / b["tokens_per_s"]
                for a, b in zip(points, points[1:], strict=False)
            ]
            seconds.append(float(np.median(each)))
        last = _logged(folders[0])[-1]
        per_step = last["tokens"] / last["step"]
        rows[variant] = {"seconds": seconds, "tokens": per_step, "fill": last.get("fill")}
    base = np.mean(next(iter(rows.values()))["seconds"])
    text = "| | tokens a step | filled | seconds a step, each seed | times the first |\n" + (
        "|---|---|---|---|---|\n"
    )
    for variant, row in rows.items():
        each = ", ".join(f"{s:.4f}" for s in row["seconds"])
        ratio = np.mean(row["seconds"]) / base
        text += f"| {variant} | {row['tokens']:,.0f} | {row['fill']:.0%} | {each} | {ratio:.2f} |\n"
    Path(f"{prefix}_seconds.md").write_text(text, encoding="utf-8")
    Path(f"{prefix}_seconds.json").write_text(json.dumps(rows, indent=1) + "\n", "utf-8")


def extraction(runs: Runs, prefix: Path) -> None:
    """What was said of the planted secrets: `PREFIX_extraction.md`, `.json`, `.png`, `.svg`."""
    measures = ("with_its_picture", "with_another_picture", "exposure")
    rows: dict[str, Any] = {}
    for variant, folders in runs.items():
        read = [
            [json.loads(line) for line in (f / "extraction.jsonl").read_text().splitlines()]
            for f in folders
        ]
        for repeats in REPEATS:
            for kind in (*KINDS, "all"):
                chosen = [
                    [s for s in run if s["repeats"] == repeats and kind in (s["kind"], "all")]
                    for run in read
                ]
                for measure in measures:
                    values = np.array([[float(s[measure]) for s in run] for run in chosen])
                    found = of_items(
                        values, np.ones((1, values.shape[1])), bounded=measure != "exposure"
                    )
                    rows.setdefault(variant, {}).setdefault(kind, {}).setdefault(str(repeats), {})[
                        measure
                    ] = found.facts()
    head = ["", "repeats", "said with its picture", "said with another picture", "exposure, bits"]
    lines = [head, ["---"] * len(head)]
    figure, axes = _figure(2)
    for colour, (variant, kinds) in zip(COLOURS, rows.items(), strict=False):
        cells = kinds["all"]
        for repeats, cell in cells.items():
            lines.append([variant, repeats, *(_span(cell[measure]) for measure in measures)])
        for panel, measure in zip(axes, measures[1:], strict=True):
            values = [cells[str(r)][measure]["value"] for r in REPEATS]
            spans = [cells[str(r)][measure]["interval"] for r in REPEATS]
            low, high = (list(side) for side in zip(*spans, strict=True))
            panel.plot(range(len(REPEATS)), values, "o-", color=colour, label=variant)
            panel.fill_between(range(len(REPEATS)), low, high, color=colour, alpha=0.2)
            panel.set_xticks(range(len(REPEATS)), [str(r) for r in REPEATS])
            panel.set(xlabel="times planted", ylabel=measure.replace("_", " "))
    axes[0].legend()
    text = "".join("| " + " | ".join(line) + " |\n" for line in lines)
    Path(f"{prefix}_extraction.md").write_text(text, encoding="utf-8")
    _save(figure, f"{prefix}_extraction", rows)


def trials(sweep: Path, prefix: Path) -> None:
    """The trials of a search, best first: `PREFIX.md` and `.json`."""
    rows = []
    for path in sorted(sweep.glob("*/status.json")):
        status = json.loads(path.read_text(encoding="utf-8"))
        if status["state"] != "done":
            continue
        pairs = dict(word.lstrip("+").split("=", 1) for word in status["overrides"])
        rates = {
            key.rsplit(".", 1)[-1]: float(value)
            for key, value in pairs.items()
            if key.startswith("recipe.learning_rates.")
        }
        rows.append({**rates, "loss": status["metrics"]["loss"], "started": status["started"]})
    rows.sort(key=lambda row: row["loss"])
    names = [key for key in rows[0] if key not in ("loss", "started")]
    lines = [[*names, "loss"], ["---"] * (len(names) + 1)]
    lines += [[*(f"{row[n]:.2e}" for n in names), f"{row['loss']:.4f}"] for row in rows]
    text = "".join("| " + " | ".join(line) + " |\n" for line in lines)
    Path(f"{prefix}.md").write_text(text, encoding="utf-8")
    Path(f"{prefix}.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def _span(facts: Mapping[str, Any]) -> str:
    low, high = facts["interval"]
    return f"{facts['value']:.2f} [{low:.2f}, {high:.2f}]"


def _figure(columns: int) -> tuple[Any, Any]:  # Any: matplotlib is an extra without types
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5 * columns + 0.5, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def _save(figure: Any, path: str, facts: Mapping[str, Any]) -> None:
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "mm"}):  # the same file from the same numbers
        figure.savefig(f"{path}.png", dpi=110, metadata={"Software": None})
        figure.savefig(f"{path}.svg", metadata={"Date": None})
    Path(f"{path}.json").write_text(json.dumps(facts) + "\n", encoding="utf-8")
