"""Measures what `docs/misuse.md` says: refusals on labelled questions, and what is made up."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import yaml

LABELLED = Path(__file__).parent / "labelled" / "people.yaml"
SETS = ("development", "held_out", "later")


@dataclass(frozen=True)
class Labelled:
    """A question, and whether it asks who somebody is."""

    text: str
    language: str
    identifies: bool
    part: str  # of SETS


def labelled_questions(*parts: str) -> list[Labelled]:
    """The questions of `labelled/people.yaml`, all of them or some parts'."""
    rows = yaml.safe_load(LABELLED.read_text(encoding="utf-8"))
    questions = [
        Labelled(text, language, kind.endswith("identify"), _part_of(kind, text))
        for language, kinds in rows.items()
        for kind, texts in kinds.items()
        for text in texts
    ]
    return [question for question in questions if not parts or question.part in parts]


def _part_of(kind: str, text: str) -> str:
    if kind.startswith("paraphrased_"):
        return "development"
    if kind.startswith("later_"):
        return "later"
    return SETS[hashlib.sha256(text.encode()).digest()[0] % 2]
