"""Read icon sets in the Iconify JSON format and find the icons that show a concept."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mm.data.artwork.sets import ArtworkSet, Concept, Table, code_points, slug

FLAT = (43, 43, 48)  # what one-colour icons are drawn in


@dataclass(frozen=True)
class Icon:
    """One drawing of a concept: the icon's name in its set and its emoji code points, if any."""

    concept: str
    name: str
    glyph: str = ""


class IconSet:
    """An unpacked Iconify package: names, emoji code points and drawings."""

    def __init__(self, folder: Path) -> None:
        """Read the package's files; drawings stay as text until asked for."""
        data = _json(folder / "icons.json")
        self._icons: dict[str, dict[str, Any]] = data["icons"]
        # An alias that turns its parent is another picture than its name says: left out.
        self._aliases: dict[str, str] = {
            name: alias["parent"]
            for name, alias in data.get("aliases", {}).items()
            if set(alias) == {"parent"}
        }
        self._size = (data.get("width", 16), data.get("height", 16))
        chars = folder / "chars.json"
        self.characters: dict[str, str] = _json(chars) if chars.exists() else {}
        self.licence: str = _json(folder / "info.json")["license"].get("spdx", "unknown")

    def __contains__(self, name: str) -> bool:
        """Say whether an icon has this name."""
        return name in self._icons or name in self._aliases

    def variants(self, name: str) -> list[str]:
        """The icon called `name` and its numbered variants `name-1`, `name-2`, ..."""
        numbered = [f"{name}-{number}" for number in range(1, 6)]
        return [candidate for candidate in (name, *numbered) if candidate in self]

    def body(self, name: str) -> str:
        """The SVG elements of an icon: equal for two names of one drawing."""
        return str(self._icon(name)["body"])

    def _icon(self, name: str) -> dict[str, Any]:
        while name in self._aliases:
            name = self._aliases[name]
        return self._icons[name]

    def svg(self, name: str) -> str:
        """Write the icon as an SVG document."""
        icon = self._icon(name)
        left, top = icon.get("left", 0), icon.get("top", 0)
        width, height = icon.get("width", self._size[0]), icon.get("height", self._size[1])
        side = max(width, height)
        box = f"{left - (side - width) / 2} {top - (side - height) / 2} {side} {side}"
        body = self.body(name).replace("currentColor", f"rgb{FLAT}")
        namespaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
        return f'<svg {namespaces} viewBox="{box}" width="256" height="256">{body}</svg>'


def emoji_names(glyph: str, books: list[dict[str, str]]) -> list[str]:
    """Names an emoji goes by in other sets' lists and in Unicode, most usual first."""
    code = code_points(glyph)
    found = [book[key] for book in books for key in (code, f"{code}-fe0f") if key in book]
    found.append(slug(unicodedata.name(glyph[0], "")))
    return list(dict.fromkeys(found))


def by_glyph(
    artwork: ArtworkSet, icons: IconSet, concept: Concept, books: list[dict[str, str]]
) -> Iterator[Icon]:
    """Find a concept's icons in a set named after emoji."""
    for glyph in concept.glyphs:
        code = code_points(glyph)
        if artwork.names.get(code) == "":
            continue
        own = [icons.characters.get(code), icons.characters.get(f"{code}-fe0f")]
        names = [artwork.names.get(code), *own, *emoji_names(glyph, books)]
        names += [name.replace("-", "") for name in names if name]
        for name in names:
            if name and (found := icons.variants(name)):
                yield from (Icon(concept.english, variant, code) for variant in found)
                break


def by_name(artwork: ArtworkSet, icons: IconSet, concept: Concept, table: Table) -> Iterator[Icon]:
    """Find a concept's icons in a set named in plain English."""
    taken = {name for names in artwork.include.values() for name in names}
    wanted = [] if concept.english in table.ambiguous else [concept.slug]
    wanted += table.words.get(concept.english, ())
    for name in wanted:
        found = [f"{name}{suffix}" for suffix in artwork.suffixes if f"{name}{suffix}" in icons]
        if found and found[0] not in taken:
            yield Icon(concept.english, found[0])
    for name in artwork.include.get(concept.english, ()):
        if name not in icons:
            raise ValueError(f"set '{artwork.name}' has no icon '{name}': correct sets.yaml")
        yield Icon(concept.english, name)


def select(
    artwork: ArtworkSet,
    icons: IconSet,
    concepts: tuple[Concept, ...],
    table: Table,
    books: list[dict[str, str]],
) -> list[Icon]:
    """List the icons to draw, each drawing once, without what the set excludes.

    Raises:
        ValueError: the package states another licence than `sets.yaml`.
    """
    _check_licence(artwork, icons.licence)
    chosen: dict[str, Icon] = {}
    for concept in concepts:
        if artwork.mono and concept.english in table.coloured:
            continue
        if artwork.match == "glyph":
            found = by_glyph(artwork, icons, concept, books)
        else:
            found = by_name(artwork, icons, concept, table)
        for icon in found:
            if icon.name not in artwork.exclude:
                chosen.setdefault(icons.body(icon.name), icon)
    return list(chosen.values())


def by_font(
    artwork: ArtworkSet, package: Path, concepts: tuple[Concept, ...], table: Table
) -> Iterator[Icon]:
    """List a concept's emoji for a font that has them all.

    Raises:
        ValueError: the package states another licence than `sets.yaml`.
    """
    _check_licence(artwork, _json(package / "package.json")["license"])
    for concept in concepts:
        if artwork.mono and concept.english in table.coloured:
            continue
        for glyph in concept.glyphs:
            if (code := code_points(glyph)) not in artwork.exclude:
                yield Icon(concept.english, code, code)


def _check_licence(artwork: ArtworkSet, stated: str) -> None:
    if stated != artwork.licence:
        raise ValueError(
            f"set '{artwork.name}' says its licence is {stated}, not {artwork.licence}: "
            "check it and correct sets.yaml"
        )


def _json(path: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return data
