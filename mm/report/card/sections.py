"""The sections of a run's card: each is a function of the run's facts, and of nothing else.

What was not measured says so, and names the command that would.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mm.report.card.data_facts import DataFacts
from mm.report.card.energy import estimate
from mm.report.card.run_facts import Measure, Result, RunFacts
from mm.report.misuse import refusal_rates

FEW = 30  # a slice of fewer answers is not read as worst or best
SHOWN = 5  # worst slices
Lines = list[str]


@dataclass(frozen=True)
class Section:
    """A part of a card; `command` says how to measure what is missing, "" if nothing is."""

    title: str
    lines: tuple[str, ...]
    command: str = ""

    @property
    def is_measured(self) -> bool:
        """Whether it says something of this run."""
        return not self.command


def missing(title: str, command: str) -> Section:
    """A section of what was not measured."""
    return Section(title, ("Not measured. To measure it:", "", f"    {command}"), command)


# What is measured by a command of its own: title, kinds of results, start of the measures' names,
# command.
GAIN = "vision_gain/"
MEASURED = (
    (
        "Results on tasks",
        ("task", "controls"),
        "",
        "python scripts/evaluate.py model={model} task=NAME output={results}/NAME.json",
    ),
    (
        "Does it look at the picture?",
        ("controls",),
        GAIN,
        "python scripts/evaluate.py model={model} task=NAME controls=true"
        " output={results}/NAME.json",
    ),
    (
        "Fairness and slices",
        ("slices", "fairness"),
        "",
        "python scripts/slices.py {results}/NAME.jsonl --output {results}/slices.json",
    ),
    (
        "Better on what it was trained on?",
        ("gap",),
        "",
        "python scripts/slices.py {results}/NAME.jsonl --trained TRAINED.jsonl"
        " --output {results}/gap.json",
    ),
    (
        "Contamination",
        ("contamination",),
        "",
        "python scripts/contamination.py EVALUATION_SHARDS --training SHARDS"
        " --output {results}/contamination.json",
    ),
    (
        "Are its explanations faithful?",
        ("faithfulness",),
        "",
        "python scripts/explain.py --measure 40 --model {model}"
        " --output {results}/faithfulness.json",
    ),
    (
        "What it makes up",
        ("hallucination",),
        "",
        "python scripts/misuse.py hallucination --model {model}"
        " --output {results}/hallucination.json",
    ),
)


def sections(facts: RunFacts) -> list[Section]:
    """All sections, in order."""
    return [
        what_it_is(facts),
        use(facts),
        limits(facts),
        held_out(facts),
        *(measured(facts, *entry) for entry in MEASURED),
        misuse(facts),
        data(facts),
        training(facts),
        energy(facts),
        reproduce(facts),
        configuration(facts),
    ]


def what_it_is(facts: RunFacts) -> Section:
    """Parts, sizes, languages and the weights' hashes."""
    rows = []
    for part in ("encoder", "projector", "decoder"):
        if entry := facts.model.get(part):
            sizes = entry["config"]
            width = sizes.get("hidden_size", sizes.get("output_size", ""))
            layers = sizes.get("num_hidden_layers", "")
            numbers = f"{facts.parameters.get(part, 0):,}"
            rows.append((part, entry["name"], str(layers), str(width), numbers))
    if not rows:
        return missing("Model", "python scripts/train.py ... (this run has left no model yet)")
    lines = table(("part", "kind", "layers", "width", "parameters"), rows)
    lines += ["", f"Together {sum(facts.parameters.values()):,} parameters.", ""]
    lines += [f"- `{name}`: SHA-256 `{digest}`" for name, digest in facts.weights.items()]
    return Section("Model", tuple(lines))


def use(facts: RunFacts) -> Section:
    """What it was trained and asked to do: nothing else is known of it."""
    kinds = sorted({name.partition(".")[0] for name in _names(facts)})
    lines = [
        f"- Languages of its captions: {_listed(languages(facts))}.",
        f"- Trained on: {_listed(entry.name for entry in facts.data)}.",
        f"- Asked about, here: {_listed(kinds)}.",
        "",
        "For research and teaching on such pictures and questions. Nothing here speaks of other"
        " pictures, questions or languages; where an answer matters to somebody, measure on their"
        " own data first, and keep a person in charge.",
    ]
    return Section("Intended use", tuple(lines))


def limits(facts: RunFacts) -> Section:
    """Where it is worst, and what is not known of it."""
    lines: Lines = []
    worst = [m for m in _all_measures(facts) if m.n >= FEW]
    for measure in sorted(worst, key=lambda m: m.value)[:SHOWN]:
        lines.append(f"- Weak: {measure.name} {measure} (n={measure.n}).")
    small = [m for m in _all_measures(facts) if 0 < m.n < FEW]
    if small:
        lines.append(f"- {len(small)} measures rest on fewer than {FEW} answers: read none alone.")
    for result in facts.of_kind("gap"):
        if flagged := result.plain.get("flagged"):
            lines.append(f"- Better on what it was trained on, {result.name}: {_listed(flagged)}.")
    seeds = max((measure.seeds for measure in _all_measures(facts)), default=0)
    if seeds == 1:
        lines.append("- One seed: the intervals say nothing of what another training would give.")
    if facts.run.get("git_dirty"):
        lines.append("- The code had changes that no commit holds, so it can't be had again.")
    limit = facts.model.get("decoder", {}).get("config", {}).get("max_position_embeddings")
    if limit:
        lines.append(f"- Reads at most {limit:,} tokens, those of its pictures among them.")
    unknown = [entry.name for entry in facts.data if not entry.ledger]
    if unknown:
        lines.append(f"- Not looked into, as they are not at hand: {_listed(unknown)}.")
    for title, kinds, _, _ in MEASURED:
        if not facts.of_kind(*kinds):
            lines.append(f"- Not known: {title[0].lower()}{title[1:]}")
    lines.append("- `confidence` in its answers is not calibrated.")
    return Section("Limits", tuple(lines))


def held_out(facts: RunFacts) -> Section:
    """The measure that training itself logs, with intervals over pictures."""
    if not facts.held_out:
        return missing("Held-out questions", "python scripts/train.py ... data.held_out=...")
    return Section("Held-out questions", tuple(both_languages(facts.held_out)))


def measured(
    facts: RunFacts, title: str, kinds: Sequence[str], start: str, command: str
) -> Section:
    """What some command measured about this model."""
    found = facts.of_kind(*kinds)
    if not found:
        place = facts.folder / "model" if (facts.folder / "model").is_dir() else facts.folder
        return missing(title, command.format(model=place, results=facts.folder / "results"))
    lines: Lines = []
    for result in found:
        kept = [m for m in result.measures if m.name.startswith(start or m.name)]
        kept = [m for m in kept if start or not m.name.startswith(GAIN)]
        lines += [*_head(result), *both_languages(kept), ""]
    return Section(title, tuple(lines[:-1]))


def misuse(facts: RunFacts) -> Section:
    """What scripts refuse with it, and how often the rules are right: measured now."""
    lines = [
        "Scripts refuse to say who somebody in a picture is (`--policy people`). Of questions that"
        " were written when the rules were done:",
        "",
        *table(
            ("language", "of those that ask, refused", "of the refused, those that ask"),
            [
                (language, f"{rates.recall}", f"{rates.precision}")
                for language, rates in refusal_rates("later").items()
            ],
        ),
        "",
        "Refusing is done by words alone, outside of the weights: whoever runs the model can turn"
        " it off. `--json` marks answers as generated. See `docs/misuse.md`.",
    ]
    return Section("Misuse", tuple(lines))


def data(facts: RunFacts) -> Section:
    """The sets it learned from: what is in them, what was removed, under which licences."""
    if not facts.data:
        return missing("Data", "python scripts/train.py ... (run.json names no ledgers)")
    lines: Lines = []
    for entry in facts.data:
        lines += [f"### {entry.name}", "", *describe_set(entry), ""]
    return Section("Data", tuple(lines[:-1]))


def describe_set(entry: DataFacts) -> Lines:
    """A scrubbed set, in lines of a list."""
    lines = [f"- Ledger `{entry.digest}`."]
    if not entry.ledger:
        return [*lines, "- The set is not at hand in this state, so nothing more is known here."]
    counts, policy = entry.ledger["counts"], entry.ledger["policy"]
    audit = entry.ledger["audit"]
    lines += [
        f"- {counts['samples']:,} samples of {counts['images']:,} pictures.",
        f"- Read back and checked: {audit['pictures']:,} pictures, {audit['texts']:,} texts.",
        f"- Policy `{policy['name']}` (`{entry.ledger['policy_hash'][:12]}`).",
    ]
    for name, title in (
        ("metadata", "Removed from files"),
        ("text", "Removed from texts"),
        ("visible", "Covered in pictures"),
        ("quarantined", "Left out"),
    ):
        found = counts.get(name, {})
        words = ", ".join(f"{kind} {number:,}" for kind, number in sorted(found.items()))
        lines.append(f"- {title}: {words or 'nothing was found'}.")
    lines.append(f"- Not looked for: {_listed(entry.kept)}.")
    licences = ", ".join(f"{name} {number:,}" for name, number in entry.licences.items())
    part = "" if entry.counted == entry.samples else f" (of {entry.counted:,} samples)"
    lines.append(f"- Licences{part}: {licences}.")
    for tag, values in entry.tags.items():
        shown = [f"{value or '(empty)'} {number:,}" for value, number in [*values.items()][:12]]
        more = f", {len(values) - len(shown)} more" if len(values) > len(shown) else ""
        lines.append(f"- By {tag}{part}: {', '.join(shown)}{more}.")
    return lines


def training(facts: RunFacts) -> Section:
    """Steps, tokens, loss and what it ran on."""
    if not facts.last:
        return missing("Training", "python scripts/train.py ... (metrics.jsonl is empty)")
    recipe = facts.config.get("recipe", {})
    stated = [
        ("steps", f"{facts.last.get('step', 0):,} of {recipe.get('steps', 0):,}"),
        ("tokens", f"{facts.last['tokens']:,.0f}" if "tokens" in facts.last else ""),
        ("last loss", f"{facts.last['loss']:.4f}" if "loss" in facts.last else ""),
        ("seed", str(facts.run.get("seed", ""))),
        ("started from", str(facts.run.get("init") or "random weights")),
        ("hardware", f"{facts.run.get('processes', 1)} x {facts.run.get('device', '')}"),
        ("software", f"Python {facts.run.get('python')}, PyTorch {facts.run.get('torch')}"),
        ("commit", str(facts.run.get("git_commit") or "not in a git repository")),
        ("uncommitted changes", "yes" if facts.run.get("git_dirty") else "no"),
    ]
    return Section("Training", tuple(table(("what", "value"), [row for row in stated if row[1]])))


def energy(facts: RunFacts) -> Section:
    """Electricity, estimated."""
    found = estimate(facts.run, facts.status, facts.last)
    if found is None:
        return missing("Energy", "python scripts/train.py ... (status.json notes the time)")
    return Section(
        "Energy",
        (
            f"About {found.kilowatt_hours:.4g} kWh: {found.seconds:,.0f} s x {found.devices} x"
            f" {found.watts:g} W ({found.basis}). Cooling, the making of the hardware and earlier"
            " tries are not counted.",
        ),
    )


def reproduce(facts: RunFacts) -> Section:
    """One command."""
    if not facts.config_text:
        return missing("Reproduce it", "python scripts/train.py ... (there is no config.yaml)")
    commit = facts.run.get("git_commit")
    place = Path("copy-of-this-run")
    lines = [
        f"With the data of the ledgers above{f', at commit `{commit}`' if commit else ''}, and"
        f" this folder as `{place}`:",
        "",
        f"    python scripts/train.py --config-path $PWD/{place} --config-name config"
        " output=runs/again hydra.run.dir=. hydra.output_subdir=null hydra/job_logging=none",
    ]
    if overrides := facts.status.get("overrides"):
        lines += ["", f"It was started as `python scripts/train.py {' '.join(overrides)}`."]
    return Section("Reproduce it", tuple(lines))


def configuration(facts: RunFacts) -> Section:
    """Everything that was configured, as it was resolved."""
    if not facts.config_text:
        return missing("Configuration", "python scripts/train.py ... (there is no config.yaml)")
    head = ("<details><summary>As it was resolved</summary>", "", "```yaml")
    return Section(
        "Configuration", (*head, *facts.config_text.rstrip().splitlines(), "```", "", "</details>")
    )


# --- Lines ---------------------------------------------------------------------------------------


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Lines:
    """A Markdown table."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return lines + [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows]


def both_languages(measures: Sequence[Measure]) -> Lines:
    """A table of measures; what is there in English and in Korean shares a row."""

    def cell(measure: Measure) -> str:
        return f"{measure} n={measure.n}" if measure.n else str(measure)

    by_name = {measure.name: measure for measure in measures}
    pairs, single = [], []
    for name, measure in by_name.items():
        other = by_name.get(_in_korean(name)) if _in_korean(name) != name else None
        if other is not None:
            pairs.append((_neutral(name), cell(measure), cell(other)))
        elif not (_in_english(name) != name and _in_english(name) in by_name):
            single.append((name, cell(measure)))
    lines = table(("what", "English", "Korean"), pairs) if pairs else []
    if single:
        lines += [*([""] if lines else []), *table(("what", "value"), single)]
    return lines or ["No measures."]


def languages(facts: RunFacts) -> list[str]:
    """Languages that the model captions in."""
    return list(facts.model.get("task_prompts", {}).get("caption", {}))


def _all_measures(facts: RunFacts) -> list[Measure]:
    """Scores, by which a model is strong or weak, without rates such as that of declining."""
    scores = [
        measure
        for result in facts.of_kind("task", "controls")
        for measure in result.measures
        if measure.name.startswith("score/") or "score" not in result.plain.get("measures", {})
        if not measure.name.startswith(GAIN)
    ]
    return [*facts.held_out, *scores]


def _names(facts: RunFacts) -> list[str]:
    names = [measure.name.rpartition("/")[2] for measure in _all_measures(facts)]
    return [name for name in names if "=" not in name and name != "all"]


def _head(result: Result) -> Lines:
    version = f", version {result.plain['version']}" if "version" in result.plain else ""
    command = f", by `{result.command}`" if result.command else ""
    return [f"**{result.name}**{version}{command}", ""]


def _listed(words: Iterable[str]) -> str:
    return ", ".join(words) or "nothing that is known"


def _swapped(name: str, old: str, new: str) -> str:
    words = name.split("/")
    return "/".join(
        ".".join(new if word == old else word for word in part.split("."))
        if part not in (f"language={old}",)
        else f"language={new}"
        for part in words
    )


def _in_korean(name: str) -> str:
    return _swapped(name, "en", "ko")


def _in_english(name: str) -> str:
    return _swapped(name, "ko", "en")


def _neutral(name: str) -> str:
    parts = [part for part in name.split("/") if part not in ("en", "language=en")]
    return "/".join(
        ".".join(w for i, w in enumerate(p.split(".")) if i == 0 or w != "en") for p in parts
    )
