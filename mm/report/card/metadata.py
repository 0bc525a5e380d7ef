"""The part of a card that machines read: Hugging Face's front matter, and everything as JSON.

Ref: huggingface.co/docs/hub/model-cards (YAML metadata, `model-index`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import yaml

from mm.report.card.data_facts import UNSTATED
from mm.report.card.energy import estimate
from mm.report.card.run_facts import Measure, RunFacts
from mm.report.card.sections import Section, languages

TASK = {"type": "image-text-to-text", "name": "Answers about pictures"}


def front_matter(facts: RunFacts, name: str, grams_per_kwh: float | None) -> list[str]:
    """The lines between the two `---` of a model card."""
    licences = sorted({name for entry in facts.data for name in entry.licences} - {UNSTATED})
    found: dict[str, Any] = {
        "library_name": "mm",
        "pipeline_tag": TASK["type"],
        "language": languages(facts),
        "tags": ["mm", *_parts(facts)],
        "datasets": [entry.name for entry in facts.data],
        "data_licences": licences,
        "model-index": [{"name": name, "results": _index(facts)}],
    }
    energy = estimate(facts.run, facts.status, facts.last)
    if energy is not None and grams_per_kwh is not None:
        found["co2_eq_emissions"] = {
            "emissions": round(energy.carbon(grams_per_kwh), 3),
            "source": f"{energy.basis}; {grams_per_kwh:g} g/kWh",
            "training_type": "fine-tuning" if facts.run.get("init") else "pre-training",
            "hardware_used": f"{energy.devices} x {facts.run.get('device', '')}",
        }
    kept = {key: value for key, value in found.items() if value}
    text = yaml.safe_dump(kept, sort_keys=False, allow_unicode=True, width=1000)
    return text.rstrip().splitlines()


def card_json(facts: RunFacts, name: str, sections: Sequence[Section]) -> str:
    """Everything that the card says, as plain data."""
    energy = estimate(facts.run, facts.status, facts.last)
    found = {
        "name": name,
        "configuration": facts.config,
        "run": facts.run,
        "status": facts.status,
        "last_metrics": facts.last,
        "parameters": dict(facts.parameters),
        "weights_sha256": dict(facts.weights),
        "data": [
            {
                "name": entry.name,
                "ledger": entry.digest,
                "counts": entry.ledger.get("counts"),
                "policy": entry.ledger.get("policy"),
                "licences": dict(entry.licences),
                "tags": {tag: dict(values) for tag, values in entry.tags.items()},
            }
            for entry in facts.data
        ],
        "held_out": [asdict(measure) for measure in facts.held_out],
        "results": [
            {
                "name": result.name,
                "kind": result.kind,
                "command": result.command,
                "measures": [asdict(measure) for measure in result.measures],
            }
            for result in facts.results
        ],
        "kilowatt_hours": energy.kilowatt_hours if energy else None,
        "not_measured": {part.title: part.command for part in sections if not part.is_measured},
    }
    return json.dumps(found, indent=1, ensure_ascii=False, default=str) + "\n"


def _parts(facts: RunFacts) -> list[str]:
    found = [facts.model.get(part, {}).get("name") for part in ("encoder", "projector", "decoder")]
    return [str(name) for name in found if name]


def _index(facts: RunFacts) -> list[dict[str, Any]]:
    """One result per task: what `model-index` takes."""
    sets = [("held-out questions", "held_out", facts.held_out)]
    sets += [(r.name, r.name, r.measures) for r in facts.of_kind("task", "controls")]
    return [
        {
            "task": dict(TASK),
            "dataset": {"name": name, "type": kind},
            "metrics": [_metric(measure) for measure in measures],
        }
        for name, kind, measures in sets
        if measures
    ]


def _metric(measure: Measure) -> dict[str, Any]:
    return {
        "type": measure.name,
        "value": round(measure.value, 6),
        "name": f"{measure.name} [{measure.low:.3f}, {measure.high:.3f}] n={measure.n}",
    }
