"""The comparison itself: every variant's measure, its paired difference to a baseline, its cost."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mm.errors import UsageError
from mm.evaluate.intervals import Array, Estimate, of_items, of_seeds
from mm.registry import unknown_name_message
from mm.report.compare.runs import ALL_ITEMS, Run, Variant, value_of

SAME = "≈"  # can't be told apart from the baseline
ONE_SEED = "1 seed"  # nothing can be said


@dataclass(frozen=True)
class Row:
    """One variant."""

    name: str
    estimate: Estimate
    values: tuple[float, ...]  # of each seed
    difference: Estimate | None  # to the baseline, which has none
    seconds: float  # means over the runs
    tokens: float | None
    peak_memory_bytes: float | None

    @property
    def mark(self) -> str:
        """`≈` where the variant can't be told apart from the baseline."""
        if self.difference is None:
            return "baseline"
        if self.difference.seeds < 2:
            return ONE_SEED
        if self.difference.excludes_zero:
            return "higher" if self.difference.value > 0 else "lower"
        return SAME


@dataclass(frozen=True)
class Comparison:
    """Rows in the order of the runs, the baseline first."""

    metric: str
    rows: tuple[Row, ...]
    on_gpu: bool
    level: float  # of each difference, so that all of them hold together 95 times in 100

    def table(self) -> str:
        """The table as Markdown."""
        seconds = "GPU-s" if self.on_gpu else "CPU s"
        head = ["variant", "seeds", self.metric, "95 % interval", "difference", "interval", "",
                seconds, "tokens", "peak MiB"]  # fmt: skip
        lines = [head]
        for row in self.rows:
            d = row.difference
            lines.append([
                row.name, str(len(row.values)), _number(row.estimate.value), _span(row.estimate),
                f"{d.value:+.4f}" if d else "", _span(d) if d else "", row.mark,
                f"{row.seconds:.1f}", f"{row.tokens:,.0f}" if row.tokens else "",
                f"{row.peak_memory_bytes / 2**20:,.0f}" if row.peak_memory_bytes else "",
            ])  # fmt: skip
        widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
        texts = [
            "| " + " | ".join(f"{c:<{w}}" for c, w in zip(line, widths, strict=True)) + " |"
            for line in lines
        ]
        texts.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
        return "\n".join(texts) + "\n\n" + self.note()

    def note(self) -> str:
        """What the table's intervals are."""
        items = max(row.estimate.items for row in self.rows)
        over = f"seeds and {items} held-out items" if items else "seeds"
        text = f"Intervals over {over}, by bootstrap standard errors and Student's t."
        if len(self.rows) > 1:
            text += (
                f" Differences are paired, seed by seed{' and item by item' if items else ''};"
                f" together they hold 95 times in 100. {SAME}: can't be told apart from the"
                " baseline."
            )
        return text

    def save(self, prefix: str) -> None:
        """Write `PREFIX.md` and `PREFIX.json`.

        Raises:
            UsageError: they can't be written.
        """
        try:
            Path(f"{prefix}.md").write_text(self.table() + "\n", encoding="utf-8")
            Path(f"{prefix}.json").write_text(self.json(), encoding="utf-8")
        except OSError as error:
            raise UsageError(f"cannot write {prefix}.md: {error.strerror or error}") from error

    def json(self) -> str:
        """Everything as JSON; infinite ends are null."""
        rows = [{**dataclasses.asdict(row), "mark": row.mark} for row in self.rows]
        return json.dumps(_finite({"metric": self.metric, "rows": rows}), indent=1) + "\n"


def compare(
    variants: Sequence[Variant], metric: str | None = None, baseline: str | None = None
) -> Comparison:
    """Compare variants by a measure.

    Args:
        metric: a name that the runs logged, or `held_out`, the share of right held-out answers.
            Default: `held_out` if all runs have it, else `loss`.
        baseline: name of a variant; default: the first.

    Raises:
        UsageError: no such measure or variant.
    """
    if metric is None:
        has_items = all(run.rights for variant in variants for run in variant.runs)
        metric = ALL_ITEMS if has_items else "loss"
    names = [variant.name for variant in variants]
    if baseline is not None and baseline not in names:
        raise UsageError(unknown_name_message("baseline", baseline, names))
    first = variants[names.index(baseline)] if baseline is not None else variants[0]
    ordered = [first, *(variant for variant in variants if variant is not first)]
    level = 1 - 0.05 / max(len(ordered) - 1, 1)
    rows = []
    for variant in ordered:
        runs = variant.runs
        tokens = [run.tokens for run in runs if run.tokens is not None]
        memory = [run.peak_memory_bytes for run in runs if run.peak_memory_bytes is not None]
        rows.append(
            Row(
                variant.name,
                _interval(variant, metric),
                tuple(variant.values(metric)),
                None if variant is first else _difference(variant, first, metric, level),
                float(np.mean([run.seconds for run in runs])),
                float(np.mean(tokens)) if tokens else None,
                float(np.mean(memory)) if memory else None,
            )
        )
    return Comparison(metric, tuple(rows), all(r.on_gpu for v in variants for r in v.runs), level)


def _interval(variant: Variant, metric: str) -> Estimate:
    counts = _counts(variant.runs, metric)
    if counts is None:
        return of_seeds(np.array(variant.values(metric)))
    return of_items(*counts, bounded=True)


def _difference(variant: Variant, first: Variant, metric: str, level: float) -> Estimate:
    """Paired over the seeds that both have, and over items where both were asked the same."""
    ours = {run.seed: run for run in variant.runs}
    theirs = {run.seed: run for run in first.runs}
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        raise UsageError(
            f"{variant.name!r} and the baseline {first.name!r} have no seed in common: their"
            " difference can't be paired; run them with the same recipe.seed"
        )
    a, b = [ours[seed] for seed in seeds], [theirs[seed] for seed in seeds]
    left, right = _counts(a, metric), _counts(b, metric)
    if left and right and left[1].shape == right[1].shape and (left[1] == right[1]).all():
        return of_items(left[0] - right[0], left[1], level)
    pairs = zip(a, b, strict=True)
    return of_seeds(np.array([value_of(x, metric) - value_of(y, metric) for x, y in pairs]), level)


def _counts(runs: Sequence[Run], metric: str) -> tuple[Array, Array] | None:
    """Right answers and answers, `[S, I]`, if the measure is a share of the items of all runs."""
    label = None if metric == ALL_ITEMS else metric.removeprefix(f"{ALL_ITEMS}/")
    if label is not None and not metric.startswith(f"{ALL_ITEMS}/"):
        return None
    tables = []
    for run in runs:
        kept = [
            [count for name, count in item.items() if label in (None, name)] for item in run.rights
        ]
        tables.append([(sum(r for r, _ in item), sum(n for _, n in item)) for item in kept])
    if not tables or len({len(table) for table in tables}) != 1 or not tables[0]:
        return None
    both = np.array(tables, dtype=np.float64)  # [S, I, 2]
    if not both[..., 1].sum() or (both[..., 1] != both[0, :, 1]).any():
        return None
    asked = both[0, :, 1] > 0
    return both[:, asked, 0], both[:, asked, 1]


def _number(value: float) -> str:
    return f"{value:.4f}"


def _span(estimate: Estimate) -> str:
    if not math.isfinite(estimate.low):
        return "unknown"
    return f"[{estimate.low:.4f}, {estimate.high:.4f}]"


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
