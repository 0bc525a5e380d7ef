"""The licence manifest: what was taken from where, under which terms, with the credit due."""

from __future__ import annotations

from mm.data.artwork.letters import SPLITS, load_fonts
from mm.data.artwork.photographs import load_sources
from mm.data.artwork.sets import load_table


def manifest() -> str:
    """Write the manifest as Markdown tables."""
    return "\n".join(["# Sources and licences", "", *_drawings(), *_fonts(), *_pictures()]) + "\n"


def _drawings() -> list[str]:
    lines = ["## Drawings", ""]
    lines += ["| set | split | package | licence | credit |", "|---|---|---|---|---|"]
    for entry in load_table().sets.values():
        credit = f"[{entry.author}]({entry.homepage})"
        package = f"`{entry.package}` {entry.version}"
        lines.append(f"| {entry.name} | {entry.split} | {package} | {entry.licence} | {credit} |")
    changes = (
        "Changes made to all drawings: rendered to pixels, cropped, scaled, colour and coverage"
        " stored apart."
    )
    return [*lines, "", changes, ""]


def _fonts() -> list[str]:
    table = load_fonts()
    terms = (
        f"Packages `@fontsource/NAME` {table['version']}: SIL Open Font Licence 1.1 or Apache-2.0."
    )
    lines = ["## Fonts", "", terms, "", "| split | fonts (weight) |", "|---|---|"]
    for split in SPLITS:
        names = ", ".join(f"{name} ({weight})" for name, weight in table[split].items())
        lines.append(f"| {split} | {names} |")
    for split, fonts in table["korean"].items():
        lines.append(f"| {split}, Korean pages | {', '.join(fonts)} |")
    return [*lines, ""]


def _pictures() -> list[str]:
    lines = ["## Photographs, textures, pages and charts to decline", ""]
    lines += ["| source | split | package | licence | credit |", "|---|---|---|---|---|"]
    for source in load_sources():
        package = f"`{source.package}` {source.version} ({source.manager})"
        row = [source.name, source.split, package, source.licence, source.author]
        lines.append(f"| {' | '.join(row)} |")
    lines.append("| generator | train, test | made by this project | Apache-2.0 | |")
    return [*lines, ""]
