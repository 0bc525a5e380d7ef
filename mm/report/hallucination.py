"""How often a model makes things up about scenes: things in its captions that are not there, and
answers to questions whose premise is false.

Of each scene it is asked, in English and Korean, about a thing that the scene does not show:
whether it is there, how many there are, what stands above it; what colour a shape has that is not
there; and what a text says where there is none. To deny or to decline is right.

Ref: Rohrbach et al. 2018, Object Hallucination in Image Captioning (CHAIR, per thing and per
caption); Li et al. 2023, Evaluating Object Hallucination in Large Vision-Language Models (POPE).
"""

from __future__ import annotations

import functools
import hashlib
import json
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

from mm.data.sample import Sample
from mm.data.scenes.concepts import (
    COLOURS,
    LANGUAGES,
    SHAPES,
    Concept,
    article,
    concepts,
    particle,
    plural,
)
from mm.data.scenes.language import DECLINE
from mm.data.shards import ShardReader
from mm.errors import UsageError
from mm.evaluate.questions import Answered, Question, ask, in_batches, normalise, questions_of
from mm.evaluate.records import Record
from mm.evaluate.results import estimate_of, grouped
from mm.evaluate.subject import Subject, read_subject
from mm.privacy.door import open_image

_DENIALS = {
    "en": re.compile(r"\b(?:no|not|none|zero|nothing|never|without|cannot|\w+n't)\b|^0$", re.I),
    "ko": re.compile(r"없|아니|않|모르|^영(?: |$)|^0"),
}
_COUNTERS = {"animal": "마리", "vehicle": "대"}
_WORD = {"en": re.compile(r'the word "[^"]*"'), "ko": re.compile(r'"[^"]*" 글자')}
_BEFORE = {"en": re.compile(r"(?:a|an|two|three|four) "), "ko": re.compile("")}
_AFTER = {
    "en": re.compile(r", | and | "),
    "ko": re.compile(r"(?: (?:두|세|네) (?:개|마리|대))?(?:, |[과와] | )?"),
}


@dataclass(frozen=True)
class Report:
    """What was made up, by kind of question and slice."""

    model: str
    records: tuple[Record, ...]
    facts: Mapping[str, Any]

    def measures(self) -> dict[str, dict[str, Any]]:
        """Shares by kind, then by slice; intervals are over pictures."""
        kinds: dict[str, list[Record]] = {}
        for record in self.records:
            kinds.setdefault(record.tags["kind"], []).append(record)
        return {
            kind: {
                name.removeprefix(f"{kind}."): {
                    "value": e.value,
                    "interval": [e.low, e.high],
                    "n": e.n,
                    "items": e.items,
                }
                for name, own in grouped(records).items()
                if not name.startswith("language=")  # as KIND.en and KIND.ko
                for e in [estimate_of(own)]
            }
            for kind, records in sorted(kinds.items())
        }

    def json(self) -> str:
        """As scripts/card.py reads it."""
        found = {"kind": "hallucination", "model": self.model, **self.facts}
        return json.dumps({**found, "measures": self.measures()}, indent=1, ensure_ascii=False)

    def table(self) -> str:
        """A line per kind and slice."""
        lines = []
        for kind, slices in self.measures().items():
            lines.append(kind)
            for name, m in slices.items():
                low, high = m["interval"]
                lines.append(f"  {name:<28} {m['value']:.3f} [{low:.3f}, {high:.3f}] n={m['n']}")
        return "\n".join(lines)


def measure(
    directory: str, shards: str, device: torch.device, limit: int | None = None, command: str = ""
) -> Report:
    """Ask a model about what scenes don't show.

    Args:
        directory: the model's.
        shards: scrubbed scenes of `scripts/compose_scenes.py`, whose captions name everything.
        limit: of scenes.

    Raises:
        UsageError: the shards hold other pictures than scenes.
    """
    subject, reader = read_subject(directory, device), ShardReader(shards)
    records: list[Record] = []
    for batch in in_batches(islice(reader, limit), subject.pictures_per_batch):
        asked = [probes(sample) for sample in batch]
        for sample, row in zip(batch, _answers(subject, batch, asked), strict=True):
            records += [record for answered in row for record in records_of(sample, answered)]
    if not records:
        raise UsageError(f"{shards} holds no composed scenes with captions: name such shards")
    facts = {"command": command, "ledger": reader.ledger["self_hash"], "limit": limit}
    return Report(subject_name(directory), tuple(records), facts)


def subject_name(directory: str) -> str:
    """The last part of a path."""
    return directory.rstrip("/").rpartition("/")[2]


def _answers(
    subject: Subject, batch: Sequence[Sample], asked: Sequence[Sequence[Question]]
) -> list[list[Answered]]:
    model = subject.model
    pictures = model.encoder.preprocess([open_image(sample.images[0]) for sample in batch])
    return ask(
        model, subject.tokenizer, pictures, asked, num_beams=subject.num_beams,
        batch_size=subject.batch_size, chat=subject.chat,
    )  # fmt: skip


def probes(sample: Sample) -> list[Question]:
    """A scene's caption questions, and questions about what it doesn't show; always the same."""
    captions = [q for q in questions_of(sample) if q.tags.get("kind") == "caption"]
    english = next((q for q in captions if q.tags["language"] == "en"), None)
    if english is None or not (shown := set(things_in(english.answer, "en"))):
        return []
    rng = random.Random(int.from_bytes(hashlib.sha256(sample.source_id.encode()).digest()[:8]))
    absent = [concept for concept in concepts() if concept.english not in shown]
    kinds = {c.category_english for c in concepts() if c.english in shown}
    near = [concept for concept in absent if concept.category_english in kinds]
    is_near = bool(near) and rng.random() < 0.5
    concept = rng.choice(near if is_near else absent)
    tags = {
        **{name: value for name, value in english.tags.items() if name in ("things", "set")},
        "like": "things of its kind" if concept.category_english in kinds else "nothing there",
    }
    shapes = [shape for shape in SHAPES if not any(name.endswith(f" {shape}") for name in shown)]
    shape = rng.choice(shapes) if shapes else None
    found = list(captions)
    for language in LANGUAGES:
        texts = _about(concept, language)
        if shape:
            texts["colour"] = {
                "en": f"What color is the {shape}?",
                "ko": f"{particle(SHAPES[shape], '은', '는')} 무슨 색인가요?",
            }[language]
        if "word" not in shown:
            texts["reading"] = {"en": "What does the text say?", "ko": "뭐라고 쓰여 있나요?"}[
                language
            ]
        for kind, text in texts.items():
            own = {**tags, "kind": f"false_{kind}", "language": language}
            if kind in ("presence", "count", "where"):
                own["category"] = concept.category_english
            else:
                own.pop("like")
            name = f"{sample.source_id[:16]}/{kind}.{language}"
            found.append(Question(text, DECLINE[language], (kind,), tags=own, id=name))
    return found


def _about(concept: Concept, language: str) -> dict[str, str]:
    name = concept.name(language)
    if language == "en":
        return {
            "presence": f"Is there {article(name)} {name}?",
            "count": f"How many {plural(name)} are there?",
            "where": f"What is above the {name}?",
        }
    counter = _COUNTERS.get(concept.category_english, "개")
    return {
        "presence": f"{particle(name, '이', '가')} 있나요?",
        "count": f"{particle(name, '이', '가')} 몇 {counter} 있나요?",
        "where": f"{name}의 위에는 무엇이 있나요?",
    }


def records_of(sample: Sample, answered: Answered) -> Iterable[Record]:
    """Score 1 for what is made up: per question, and per thing that a caption names."""
    question, said = answered.question, answered.said.strip()
    tags, wanted = question.tags, question.accepted
    if tags["kind"] != "caption":
        made_up = not denies(said, tags["language"])
        yield Record(sample.source_id, question.id, tags, said, wanted, float(made_up))
        return
    there = set(things_in(question.answer, tags["language"]))
    named = things_in(said, tags["language"])
    wrong = [thing not in there for thing in named]
    yield Record(sample.source_id, question.id, tags, said, wanted, float(any(wrong)))
    for number, is_wrong in enumerate(wrong):
        own = {**tags, "kind": "thing_in_caption"}
        yield Record(
            sample.source_id, f"{question.id}/{number}", own, named[number], wanted, float(is_wrong)
        )


def denies(said: str, language: str) -> bool:
    """Whether an answer says that there is no such thing, or that the model can't tell."""
    declined = normalise(said) in map(normalise, DECLINE.values())
    return declined or bool(_DENIALS[language].search(said))


def things_in(caption: str, language: str) -> list[str]:
    """The things that a caption in the words of scenes names, by their English names.

    A word to be read is `word`, whatever it says; a shape keeps its colour. What no scene can show
    is left as it stands, as it is made up for certain.
    """
    rest = caption.split("에 있는 ", 1)[-1] if language == "ko" else _without_ground(caption)
    found: list[str] = []
    while rest:
        if match := _WORD[language].match(rest):
            found.append("word")
            rest = rest[match.end() :]
        else:
            if match := _BEFORE[language].match(rest):
                rest = rest[match.end() :]
            name = _longest(rest, language)
            unknown = re.split(r", | and |[과와] ", rest, maxsplit=1)[0]
            found.append(_names(language)[name] if name else unknown)
            rest = rest[len(name or unknown) :]
        match = _AFTER[language].match(rest)
        rest = rest[match.end() :] if match and match.end() else rest[1:]
    return found


def _without_ground(caption: str) -> str:
    return re.split(r" on (?:an? )(?:[\w ]* )?background$", caption.rstrip("."))[0]


def _longest(text: str, language: str) -> str:
    return next((name for name in _by_length(language) if text.startswith(name)), "")


@functools.cache
def _by_length(language: str) -> tuple[str, ...]:
    return tuple(sorted(_names(language), key=len, reverse=True))


@functools.cache
def _names(language: str) -> dict[str, str]:
    """Every form of every name that captions use -> its English name."""
    found: dict[str, str] = {}
    for english, korean in SHAPES.items():
        for colour, (korean_colour, _) in COLOURS.items():
            name = f"{colour} {english}"
            forms = (name, plural(name)) if language == "en" else (f"{korean_colour} {korean}",)
            found |= dict.fromkeys(forms, name)
    for concept in concepts():
        name = concept.name(language)
        forms = (name, plural(name)) if language == "en" else (name,)
        found |= dict.fromkeys(forms, concept.english)
    return found
