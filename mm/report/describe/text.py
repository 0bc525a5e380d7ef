"""A description for the terminal: diagram, parts, and the figures below them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mm.report.describe.diagram import diagram
from mm.report.describe.figures import figures
from mm.report.describe.numbers import plural, quantity, rate, size

if TYPE_CHECKING:
    from mm.report.describe import Description


def report(description: Description, encoding: str | None = None) -> str:
    """Put title, diagram, parts and figures together, in characters that `encoding` has."""
    drawn = diagram(description)
    try:
        drawn.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        drawn = diagram(description, ascii_only=True)
    return "\n\n".join(
        (description.title, drawn, parts_table(description), figures_text(description))
    )


def as_json(description: Description) -> str:
    """Write all figures as a JSON object."""
    return json.dumps(figures(description), indent=2, ensure_ascii=True)


def figures_text(description: Description) -> str:
    """Lay out what the model weighs, computes and needs, and whether a GPU holds it."""
    found = figures(description)
    counted, cache, flops = (found[key] for key in ("parameters", "kv_cache", "flops_per_token"))
    tasks = [f"{task.replace('_', '-')} {n:,}" for task, n in counted["decoder"].items() if n]
    idle = counted["total"] - counted["active"]
    used = f", of which a token uses {counted['active']:,}" if idle else ""
    context = f"{cache['context']:,} tokens"
    rows = [
        ("parameters", f"{counted['total']:,}{used}"),
        *(("", line) for line in listed(tasks)),
        ("weights", ", ".join(f"{k} {size(v)}" for k, v in found["weight_bytes"].items())),
        ("KV cache", f"{cache['bytes_per_token']:,} bytes a token"),
        ("", f"{size(cache['bytes'])} for {cache['batch']:,} x {context}"),
        ("forward", f"{quantity(flops['weights'], 'FLOP')} a token, and in attention"),
        ("", f"{quantity(flops['attention_at_context'], 'FLOP')} after {context}"),
    ]
    if "picture" in found:
        seen = found["picture"]["encoder_flops"] + found["picture"]["projector_flops"]
        rows.append(("", f"{quantity(seen, 'FLOP')} a picture, before the decoder"))
    rows += _training_rows(found["training"])
    if "gpu" in found:
        rows += _fit_rows(found["gpu"], context)
    return columns(rows)


def _training_rows(training: Mapping[str, Any]) -> list[tuple[str, str]]:
    kept = "with" if training["checkpointing"] else "without"
    needs = [f"{need.replace('_', ' ')} {size(n)}" for need, n in training["bytes"].items()]
    seen = f" and {plural(training['pictures'], 'picture')}" if training["pictures"] else ""
    return [
        ("training", f"{training['tokens']:,} tokens{seen}, in rows of {training['length']:,},"),
        ("", f"{kept} activation checkpointing: {quantity(training['step_flops'], 'FLOP')} a step"),
        *(("", line) for line in listed([size(training["total_bytes"]) + ":", *needs])),
    ]


def _fit_rows(fit: Mapping[str, Any], context: str) -> list[tuple[str, str]]:
    def fits(can: bool) -> str:
        return "fits" if can else "does not fit"

    usable = size(fit["memory_bytes"] - fit["reserved_bytes"])
    needed = size(fit["decoding_bytes"])
    longest = f"up to {fit['longest_context']:,} tokens do"
    if not fit["longest_context"]:
        longest = "the weights alone are too large"
    rows = [
        f"{size(fit['memory_bytes'])}, of which {usable} can be used",
        f"decoding in {fit['dtype']} {fits(fit['decoding_fits'])}: {needed} ({longest})",
    ]
    if fit["bytes_per_second"]:
        first, last = (
            rate(fit["tokens_per_second_first"]),
            rate(fit["tokens_per_second_at_context"]),
        )
        rows.append(f"decoding: at most {first} tokens/s, {last} after {context}")
    several = fit["gpus_for_training"]
    if fit["training_fits"]:
        more = ""
    elif several is None:
        more = ", even without weights: lower tokens"
    else:
        more = f"; on {several:,} of them, weights and states cut evenly"
    rows.append(f"training {fits(fit['training_fits'])}{more}")
    if fit["flops_per_second"]:
        most = rate(fit["training_tokens_per_second"])
        rows.append(f"training: at most {most} tokens/s each, at peak FLOP/s")
    return [(fit["name"] if index == 0 else "", row) for index, row in enumerate(rows)]


def parts_table(description: Description) -> str:
    """Lay the parts out, and the tokens of a picture."""
    rows = [("part", "name", "parameters", "bf16", "shape")]
    rows += [
        (r.part, r.name, f"{r.num_parameters:,}", size(2 * r.num_parameters), r.shape)
        for r in description.parts
    ]
    if len(description.parts) > 1:
        total = description.num_parameters
        rows.append(("together", "", f"{total:,}", size(2 * total), ""))
    text = columns(rows, right=(2, 3))
    if description.pictures:
        height, width = description.pictures.size
        tokens = plural(description.num_image_tokens, "token")
        text += f"\n\nA picture of {width} x {height} takes {tokens}."
    return text


def listed(items: Sequence[str], width: int = 64) -> list[str]:
    """Join items by commas, on as many lines as they need."""
    lines = [items[0]]
    for item in items[1:]:
        joined = f"{lines[-1]}{'' if lines[-1].endswith(':') else ','} {item}"
        if len(joined) < width:
            lines[-1] = joined
        else:
            lines[-1] += ","
            lines.append(item)
    return lines


def columns(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Align rows of cells; the columns in `right` end together, the others start together."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
