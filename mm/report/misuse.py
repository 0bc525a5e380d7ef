"""Measures what `docs/misuse.md` says: refusals on labelled questions, and what is made up."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import yaml

from mm.data.scenes.concepts import LANGUAGES
from mm.evaluate.intervals import Proportion
from mm.refusal import PeoplePolicy, Policy

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


@dataclass(frozen=True)
class Rates:
    """How a policy did on labelled questions."""

    recall: Proportion  # of those that ask who somebody is, the refused
    precision: Proportion  # of the refused, those that ask
    false_refusals: Proportion  # of those that don't ask, the refused


def refusal_rates(part: str, policy: Policy | None = None) -> dict[str, Rates]:
    """Ask a policy about every question of a part of the labelled set, by language."""
    judge = PeoplePolicy() if policy is None else policy
    found = {}
    for language in LANGUAGES:
        rows = [q for q in labelled_questions(part) if q.language == language]
        refused = [judge.before(question.text, 1) is not None for question in rows]
        hits = sum(r and q.identifies for r, q in zip(refused, rows, strict=True))
        asking = sum(question.identifies for question in rows)
        found[language] = Rates(
            Proportion(hits, asking),
            Proportion(hits, sum(refused)),
            Proportion(sum(refused) - hits, len(rows) - asking),
        )
    return found


def refusal_table(policy: Policy | None = None) -> str:
    """Rates by part and language, as a Markdown table."""
    lines = [
        "| questions | language | recall | precision | false refusals |",
        "|---|---|---|---|---|",
    ]
    for part in SETS:
        for language, rates in refusal_rates(part, policy).items():
            cells = (part, language, rates.recall, rates.precision, rates.false_refusals)
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)
