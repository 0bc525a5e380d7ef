"""Cards: what a run's model is, does and must not be trusted with, written from files alone.

`write_run_card` writes `card.md`, `card.json` and the model's own README.md; `write_data_card` a
scrubbed set's `README.md` and `croissant.json`. No sentence in them is about one run: each is made
of what was measured, and what was not measured says so. `scripts/card.py` is this.

Ref: Mitchell et al. 2019, Model Cards for Model Reporting; Gebru et al. 2021, Datasheets for
Datasets; the metadata of Hugging Face model cards.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from mm.errors import MMError
from mm.privacy import PrivacyError
from mm.train.run import write_text


def card_after_training(folder: str | Path, seconds: float) -> None:
    """Write the card of a run that has just ended; say why if that can't be done, and go on.

    Args:
        seconds: what the run took now, which its status does not know yet.
    """
    try:
        write_run_card(folder, seconds=seconds)
    except (MMError, PrivacyError, OSError, ValueError) as error:
        print(f"no card: {error}; later: python scripts/card.py {folder}", file=sys.stderr)


def write_run_card(
    folder: str | Path, grams_per_kwh: float | None = None, seconds: float = 0.0
) -> Path:
    """Write a run's card beside everything else that the run has left.

    Args:
        folder: of a run, or of a model alone.
        grams_per_kwh: of CO2 on the grid that fed the run, if it is known.
        seconds: to be added to those that its status knows.

    Returns:
        The card's path.

    Raises:
        UsageError: there is no run.
    """
    from mm.report.card.metadata import card_json, front_matter
    from mm.report.card.run_facts import read_run
    from mm.report.card.sections import sections

    facts = read_run(folder)
    if seconds:
        spent = facts.status.get("seconds", 0.0) + seconds
        facts = replace(facts, status={**facts.status, "seconds": spent})
    parts = sections(facts)
    name = str(facts.config.get("name") or facts.folder.resolve().name)
    lines = ["---", *front_matter(facts, name, grams_per_kwh), "---", "", f"# {name}", ""]
    for part in parts:
        lines += [f"## {part.title}", "", *part.lines, ""]
    text = "\n".join(lines)
    card = facts.folder / "card.md"
    write_text(card, text)
    write_text(facts.folder / "card.json", card_json(facts, name, parts))
    if (facts.folder / "model").is_dir():
        write_text(facts.folder / "model" / "README.md", text)
    return card


def write_data_card(folder: str | Path, licence: str = "") -> Path:
    """Write a scrubbed set's card and its Croissant metadata into its folder.

    Args:
        licence: SPDX name or address of the licence, where the samples don't say theirs.

    Returns:
        The card's path.

    Raises:
        LedgerError: it is no scrubbed set, or was edited.
    """
    from mm.report.card.croissant import croissant_json
    from mm.report.card.data_facts import CROISSANT, read_set
    from mm.report.card.sections import describe_set

    place = Path(folder)
    write_text(place / CROISSANT, croissant_json(read_set(place), licence))
    facts = read_set(place)  # again, as it now knows the licence
    lines = [f"# {facts.name}", "", *describe_set(facts), ""]
    write_text(place / "README.md", "\n".join(lines))
    return place / "README.md"
