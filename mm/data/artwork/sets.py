"""The table of artwork sets (`sets.yaml`) and of the things they show (`scenes/concepts.tsv`)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
CONCEPTS = FOLDER.parent / "scenes" / "concepts.tsv"
LICENCES = frozenset("Apache-2.0 MIT ISC BSD-3-Clause CC0-1.0 CC-BY-3.0 CC-BY-4.0 OFL-1.1".split())
MATCHES = ("glyph", "name", "font")
SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class Concept:
    """A thing scenes draw and talk about."""

    english: str
    korean: str
    category_english: str
    category_korean: str
    glyphs: tuple[str, ...]

    @property
    def slug(self) -> str:
        """The English name as icon sets spell names: `jack-o-lantern`."""
        return slug(self.english)


@dataclass(frozen=True)
class ArtworkSet:
    """One package of drawings and how its drawings are found.

    Attributes:
        match: `glyph`: an icon set named after emoji; `name`: one searched for the concepts'
            English names; `font`: a font file with emoji, `names` gives its path under `file`.
        mono: one flat colour, so that only the mask says anything.
        licence: as the package itself states it (SPDX), checked when the set is read.
        suffixes: style endings tried in this order after a name (name-matched sets).
        names: emoji code points to icon names, where the set spells them in its own way; an
            empty name leaves the emoji out.
        include: further icons per concept, seen by eye.
        exclude: names of icons left out, seen by eye.
    """

    name: str
    package: str
    version: str
    licence: str
    author: str
    homepage: str
    match: str
    split: str
    mono: bool = False
    suffixes: tuple[str, ...] = ("",)
    names: dict[str, str] = field(default_factory=dict)
    include: dict[str, tuple[str, ...]] = field(default_factory=dict)
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what would put unusable artwork into the data."""
        if self.licence not in LICENCES:
            known = ", ".join(sorted(LICENCES))
            raise ValueError(f"set '{self.name}': licence '{self.licence}' is not one of {known}")
        if self.match not in MATCHES or self.split not in SPLITS:
            raise ValueError(f"set '{self.name}': unknown match '{self.match}' or '{self.split}'")


@dataclass(frozen=True)
class Table:
    """Everything `sets.yaml` says about drawings.

    Attributes:
        words: further icon names that mean a concept in any name-matched set.
        ambiguous: concepts whose own name means something else in most sets (a phone, a bolt):
            only their `words` and a set's `include` are looked for.
        coloured: concepts that a one-colour drawing can't show.
    """

    sets: dict[str, ArtworkSet]
    words: dict[str, tuple[str, ...]]
    ambiguous: frozenset[str]
    coloured: frozenset[str]


def slug(text: str) -> str:
    """Lower-case words joined by hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower().replace("'", "")).strip("-")


def code_points(glyph: str) -> str:
    """Spell an emoji as hexadecimal code points, without the variation selector."""
    return "-".join(f"{ord(letter):x}" for letter in glyph if letter != "\ufe0f")


@cache
def load_concepts(path: Path = CONCEPTS) -> tuple[Concept, ...]:
    """Read the concepts, in the file's order."""
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines if line and not line.startswith("#")]
    return tuple(
        Concept(english, korean, category_english, category_korean, tuple(glyphs.split()))
        for english, korean, category_english, category_korean, glyphs in rows
    )


@cache
def load_table(path: Path = FOLDER / "sets.yaml") -> Table:
    """Read the sets; a misspelt field is a TypeError naming it.

    Raises:
        ValueError: a licence, split or concept that this project doesn't know.
    """
    import yaml

    data: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    sets = {name: _artwork_set(name, fields) for name, fields in data["sets"].items()}
    words = _tuples(data["words"])
    ambiguous, coloured = frozenset(data["ambiguous"]), frozenset(data["coloured"])
    known = {concept.english for concept in load_concepts()}
    named = set(words) | ambiguous | coloured
    for entry in sets.values():
        named |= set(entry.include)
    if unknown := sorted(named - known):
        raise ValueError(f"{path.name}: no such concept: {', '.join(unknown)}")
    return Table(sets, words, ambiguous, coloured)


def _artwork_set(name: str, fields: dict[str, Any]) -> ArtworkSet:
    values = dict(fields)
    for key in ("suffixes", "exclude"):
        if key in values:
            values[key] = tuple(str(item) for item in values[key])
    if "include" in values:
        values["include"] = _tuples(values["include"])
    if "names" in values:
        values["names"] = {str(key): str(item) for key, item in values["names"].items()}
    return ArtworkSet(name=name, **values)


def _tuples(table: dict[str, list[str]]) -> dict[str, tuple[str, ...]]:
    return {str(key): tuple(str(item) for item in items) for key, items in table.items()}
