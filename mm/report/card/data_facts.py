"""What a scrubbed set holds, from its ledger and the tags of its samples."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mm.data.artwork.letters import SPLITS, load_fonts
from mm.data.artwork.photographs import load_sources
from mm.data.artwork.sets import load_table
from mm.data.shards import ShardReader
from mm.privacy import ledger as ledgers

MOST_SAMPLES = 20_000  # whose tags are counted, evenly spaced
MOST_VALUES = 12  # of a tag that are listed
CROISSANT = "croissant.json"
LICENCE_TAGS = ("licence", "license")
UNSTATED = "not stated"
FONTS = "OFL-1.1 or Apache-2.0"


@dataclass(frozen=True)
class DataFacts:
    """A scrubbed set; `ledger` is empty if the set is not at hand or is another state of it."""

    name: str
    digest: str  # the ledger's self-hash, as the run noted it
    folder: Path | None = None
    ledger: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # tag -> value -> samples
    licences: Mapping[str, int] = field(default_factory=dict)  # -> samples
    counted: int = 0  # samples whose tags were read

    @property
    def samples(self) -> int:
        """How many there are; 0 if not known."""
        return int(self.ledger.get("counts", {}).get("samples", 0))

    @property
    def kept(self) -> list[str]:
        """What the policy does not look for."""
        if not self.ledger:
            return []
        policy = ledgers.policy_of(self.ledger).as_dict()  # of an old ledger too
        text = policy["text"]
        found = [f"{kind} in texts" for kind, action in text.items() if action == "keep"]
        pixels = ("faces", "codes", "plates", "text_in_pictures")
        return found + [name.replace("_", " ") for name in pixels if policy[name] == "keep"]


def data_facts(name: str, digest: str, places: Mapping[str, Path]) -> DataFacts:
    """Find a set by its name and read it, if it is still in the state that the run saw."""
    folder = places.get(name)
    if folder is None or ledgers.read(folder)["self_hash"] != digest:
        return DataFacts(name, digest)
    return read_set(folder, name)


def read_set(folder: Path, name: str = "") -> DataFacts:
    """Read a scrubbed set.

    Raises:
        LedgerError: it is none, or was edited.
    """
    ledger = ledgers.read(folder)
    reader = ShardReader(folder, verify=False)
    step = max(1, -(-len(reader) // MOST_SAMPLES))
    tags: dict[str, Counter[str]] = {}
    licences: Counter[str] = Counter()
    stated, table = _stated(folder), known_licences()
    numbers = range(0, len(reader), step)
    for number in numbers:
        own = reader[number].tags
        for tag, value in own.items():
            tags.setdefault(tag, Counter())[value] += 1
        licences[licence_of(own, table) or stated] += 1
    few = {tag: dict(count.most_common()) for tag, count in tags.items() if _is_slice(count)}
    return DataFacts(
        name or folder.resolve().name,
        ledger["self_hash"],
        folder,
        ledger,
        few,
        dict(licences.most_common()),
        len(numbers),
    )


def licence_of(tags: Mapping[str, str], known: Mapping[str, str]) -> str:
    """A sample's licence: its own tag, or that of the package it says it is from; "" unknown."""
    for tag in LICENCE_TAGS:
        if tags.get(tag):
            return tags[tag]
    names = (tags.get(tag, "") for tag in ("set", "source", "task", "font"))
    return next((known[name] for name in names if name in known), "")


def known_licences() -> dict[str, str]:
    """Licences of the packages that this project's own tools read."""
    drawings = {entry.name: entry.licence for entry in load_table().sets.values()}
    pictures = {source.name: source.licence for source in load_sources()}
    fonts = load_fonts()
    letters = {name: FONTS for split in SPLITS for name in fonts[split]}
    own = dict.fromkeys(("generator", "generator-korean", "generator-korean-test"), "Apache-2.0")
    return {**letters, **drawings, **pictures, **own, "easy-vqa": "MIT"}


def _is_slice(count: Counter[str]) -> bool:
    """A tag that groups samples, rather than one that tells each apart."""
    return len(count) <= 200 and sum(count.values()) >= 2 * len(count)


def _stated(folder: Path) -> str:
    """The licence that the set's data card was made with."""
    path = folder / CROISSANT
    if not path.exists():
        return UNSTATED
    return str(json.loads(path.read_text(encoding="utf-8")).get("license") or UNSTATED)
