"""Slices, gaps and comparisons of records as Markdown tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mm.evaluate.gap import TrainingGap
from mm.evaluate.intervals import Estimate
from mm.evaluate.slices import Slice, Slices
from mm.evaluate.statistics import Paired, holm, power_of

SHOWN = 12  # rows of one tag in a table; the JSON has all


def slice_tables(found: Slices) -> str:
    """The slices as Markdown tables: every tag, then the languages side by side."""
    lines = [f"overall {found.overall}", ""]
    lines += ["| slice | score | interval | n | pictures | to the rest | |", "|" + "---|" * 7]
    for row in _shown(found.rows):
        rest = "" if row.to_rest is None or row.is_small else _signed(row.to_rest)
        lines.append(_line(f"{row.tag}={row.value}", row.score, rest, row.verdict, row.is_small))
    hidden = len(found.rows) - len(_shown(found.rows))
    if hidden:
        lines += ["", f"{hidden} more slices in between: see the JSON."]
    for gap in found.gaps:
        lines += ["", f"{gap.tag}: {gap.best} is {_signed(gap.difference)} over {gap.worst}"]
    if found.languages:
        first, second = found.languages[0].languages
        lines += ["", f"| slice | {first} | {second} | {second} less {first} | |", "|" + "---|" * 5]
    for both in found.languages:
        off = both.difference.is_off_zero
        verdict = "too few" if both.is_small else "≈" if not off else "differs"
        one, two = both.scores
        difference = "" if both.is_small else _signed(both.difference)
        lines.append(
            f"| {both.name} | {one.value:.3f} | {two.value:.3f} | {difference} | {verdict} |"
        )
    lines += [
        "",
        f"Intervals hold together 95 times in 100; under {found.min_items} pictures: too few.",
    ]
    return "\n".join(lines)


def _shown(rows: Sequence[Slice]) -> list[Slice]:
    """The best and the worst of every tag."""
    shown: list[Slice] = []
    for tag in dict.fromkeys(row.tag for row in rows):
        of_tag = [row for row in rows if row.tag == tag]
        many = len(of_tag) > SHOWN
        shown += [*of_tag[: SHOWN // 2], *of_tag[-SHOWN // 2 :]] if many else of_tag
    return shown


def _line(name: str, score: Estimate, rest: str, verdict: str, is_small: bool) -> str:
    interval = "" if is_small else f"[{score.low:.3f}, {score.high:.3f}]"
    value = f"{score.value:.3f}"
    return f"| {name} | {value} | {interval} | {score.n} | {score.items} | {rest} | {verdict} |"


def _signed(estimate: Estimate) -> str:
    return f"{estimate.value:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]"


def gap_table(found: TrainingGap) -> str:
    """Scores on what was trained on and on what was held out, side by side."""
    lines = ["| slice | trained on | held out | gap | pictures | |", "|" + "---|" * 6]
    for row in found.rows:
        one, two = row.trained, row.held_out
        gap = "" if row.is_small else _signed(row.gap)
        lines.append(
            f"| {row.name} | {_cell(one, row.is_small)} | {_cell(two, row.is_small)} | {gap} |"
            f" {one.items}, {two.items} | {row.verdict} |"
        )
    if found.one_sided:
        lines += ["", f"In one of the sets only: {', '.join(found.one_sided)}."]
    if found.shared:
        lines += [
            "",
            f"{found.shared} held-out pictures are named as trained ones: unless the sets only"
            " number theirs alike, they were not held out (scripts/contamination.py tells).",
        ]
    lines += [
        "",
        f"Better on what was trained on by more than chance: {', '.join(found.flagged) or 'none'}.",
        f"Intervals hold together 95 times in 100; under {found.min_items} pictures: too few.",
    ]
    return "\n".join(lines)


def _cell(score: Estimate, is_small: bool) -> str:
    return f"{score.value:.3f}" + ("" if is_small else f" [{score.low:.3f}, {score.high:.3f}]")


def comparison_table(runs: Mapping[str, Paired]) -> str:
    """Paired differences to a baseline, their p-values corrected for how many runs there are."""
    adjusted = holm({name: run.p for name, run in runs.items()})
    lines = [
        "| run | difference | p (Holm) | answers changed | could be seen | |",
        "|" + "---|" * 6,
    ]
    for name, run in runs.items():
        least = power_of(run.difference).smallest
        mark = "≈" if adjusted[name] > 0.05 else "lower" if run.difference.value < 0 else "higher"
        lines.append(
            f"| {name} | {_signed(run.difference)} | {adjusted[name]:.4f} |"
            f" {run.changed.value:.3f} | {least:.3f} | {mark} |"
        )
    lines += ["", "could be seen: the smallest difference that these pictures show 4 times in 5."]
    return "\n".join(lines)


def paired_facts(runs: Mapping[str, Paired]) -> dict[str, Any]:
    """Comparisons as plain data, for JSON."""
    adjusted = holm({name: run.p for name, run in runs.items()})
    return {
        name: {
            **run.difference.facts(),
            "p": run.p,
            "p_holm": adjusted[name],
            "smallest_difference": power_of(run.difference).smallest,
            "changed": {
                "value": run.changed.value, "interval": run.changed.interval, "n": run.changed.n,
            },
            "left_out": run.left_out,
        }
        for name, run in runs.items()
    }  # fmt: skip
