"""A comparison as a plot: every seed, the intervals, and the differences to the baseline."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mm.errors import UsageError

if TYPE_CHECKING:
    from mm.report.compare.comparison import Comparison

TOLD_APART, SAME = "#1f5fa8", "#8a8a8a"


def save(comparison: Comparison, *paths: str | Path) -> None:
    """Draw into files, each of the kind that its ending says: `.png`, `.svg`, `.pdf`.

    Raises:
        UsageError: matplotlib is missing, or a file can't be written.
    """
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError("a plot needs matplotlib: pip install 'mm[plot]'") from error
    rows = comparison.rows
    figure = Figure(figsize=(9, 1.6 + 0.42 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    for place, row in enumerate(rows):
        _bar(left, place, row.estimate, TOLD_APART if row.difference is None else "#333333")
        left.plot(row.values, [place] * len(row.values), ".", color="#333333", alpha=0.35)
        if row.difference is not None:
            apart = row.difference.excludes_zero
            _bar(right, place, row.difference, TOLD_APART if apart else SAME, apart)
            if not apart:
                right.annotate(
                    row.mark, (row.difference.value, place), (0, 5), textcoords="offset points",
                    ha="center", color=SAME,
                )  # fmt: skip
    left.set_yticks(range(len(rows)), [row.name for row in rows], fontsize=8)
    left.set_ylim(len(rows) - 0.5, -0.5)
    left.set_xlabel(f"{comparison.metric}: mean, 95 % interval, seeds")
    right.axvline(0, color="#333333", linewidth=0.8)
    right.set_xlabel(f"difference to {rows[0].name}", fontsize=8)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="x", color="#e6e6e6")
        axes.set_axisbelow(True)
    # The same comparison gives the same bytes, whatever is written before.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    with matplotlib.rc_context({"svg.hashsalt": "mm", "svg.fonttype": "none"}):
        for path in paths:
            stamp = {"Date": None} if str(path).endswith(".svg") else {}
            try:
                figure.savefig(path, dpi=150, metadata=stamp)
            except OSError as error:
                raise UsageError(f"cannot write {path}: {error.strerror or error}") from error


def _bar(axes: Any, place: int, estimate: Any, colour: str, filled: bool = True) -> None:
    if math.isfinite(estimate.low):
        axes.plot([estimate.low, estimate.high], [place, place], color=colour, linewidth=2)
    face = colour if filled else "white"
    axes.plot([estimate.value], [place], "o", color=colour, markerfacecolor=face, markersize=6)
