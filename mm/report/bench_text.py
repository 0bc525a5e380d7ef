"""Measure the text rules: recall and precision by kind and language, clean lines touched, speed.

A value counts as found when none of its letters and digits is left; a finding counts as right when
it touches a value that was put there. Sentences and values are made up from a seed.
"""

import platform
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mm.privacy.text import DEFAULT_REGIONS, KINDS, Finding, find_all, scrub_text
from mm.report.labelled import Label, Line, held_out_values
from mm.report.labelled.values import MAKERS, Make

SETS = ("development", "held_out", "faker")
_SLOT = re.compile(r"\{(\w+)\}")


@dataclass
class Score:
    """Counts of one kind in one language."""

    values: int = 0
    found: int = 0
    named: int = 0  # found, and called by the right kind
    findings: int = 0
    right: int = 0

    @property
    def recall(self) -> float:
        """Share of values of which nothing is left."""
        return self.found / self.values if self.values else float("nan")

    @property
    def precision(self) -> float:
        """Share of findings that touch a value."""
        return self.right / self.findings if self.findings else float("nan")


def fill(frame: str, language: str, rng: random.Random, makers: Mapping[str, Make]) -> Line:
    """Put made-up values into a sentence."""
    text, labels, at = "", [], 0
    for slot in _SLOT.finditer(frame):
        text += frame[at : slot.start()]
        name = slot.group(1)
        if name in makers:
            value = makers[name](rng, language)
            labels.append((len(text), len(text) + len(value), name))
        else:
            value = _filler(name, rng)
        text += value
        at = slot.end()
    return Line(text + frame[at:], language, tuple(labels))


def _sentences(name: str) -> tuple[dict[str, dict[str, list[str]]], dict[str, list[str]]]:
    import yaml

    path = Path(__file__).parent / "labelled" / f"{name}.yaml"
    read = yaml.safe_load(path.read_text(encoding="utf-8"))
    return read["frames"], read["clean"]


def _filler(name: str, rng: random.Random) -> str:
    if name == "d2":
        return str(rng.randrange(1, 29))
    if name == "m2":
        return f"{rng.randrange(1, 13):02}"
    count = int(name[1:])
    if name[0] == "h":
        return "".join(rng.choice("0123456789abcdef") for _ in range(count))
    return str(rng.randrange(10 ** (count - 1), 10**count))


def lines_of(which: str, per_kind: int, seed: int) -> Iterator[Line]:
    """Make a labelled set: `per_kind` lines of each kind and language, then as many clean ones.

    Raises:
        ValueError: unknown set, or the set `faker` without Faker.
    """
    if which not in SETS:
        raise ValueError(f"unknown set {which!r}; known: {', '.join(SETS)}")
    frames, clean = _sentences("development" if which == "development" else "held_out")
    makers = dict(MAKERS)
    if which != "development":
        makers |= held_out_values.MAKERS
    if which == "faker":
        from mm.report.labelled.with_faker import makers_of

        others = makers_of(seed)
        makers |= others
        frames = {
            language: {kind: lines for kind, lines in kinds.items() if kind in others}
            for language, kinds in frames.items()
        }
    for language, kinds in frames.items():
        for kind, sentences in kinds.items():
            rng = random.Random(f"{which} {language} {kind} {seed}")
            for index in range(per_kind):
                yield fill(sentences[index % len(sentences)], language, rng, makers)
        rng = random.Random(f"{which} {language} clean {seed}")
        for index in range(20 * per_kind if which != "faker" else 0):
            yield fill(clean[language][index % len(clean[language])], language, rng, {})


def score(
    lines: Iterable[Line], names: str = "rules"
) -> tuple[
    dict[tuple[str, str], Score], dict[str, tuple[int, int]], list[tuple[Line, list[Finding]]]
]:
    """Return scores by (language, kind), (touched, all) clean lines, and the failures."""
    scores: dict[tuple[str, str], Score] = {}
    touched: Counter[str] = Counter()
    cleans: Counter[str] = Counter()
    failures = []
    for line in lines:
        findings = find_all(line.text, KINDS, DEFAULT_REGIONS, names=names)
        good = True
        if not line.labels:
            cleans[line.language] += 1
            touched[line.language] += bool(findings)
            good = not findings
        for label in line.labels:
            entry = scores.setdefault((line.language, label[2]), Score())
            entry.values += 1
            found = _covered(line.text, label, findings)
            good = good and found
            entry.found += found
            entry.named += found and any(
                kind == label[2]
                for start, end, kind in findings
                if start < label[1] and end > label[0]
            )
        for finding in findings:
            entry = scores.setdefault((line.language, finding.kind), Score())
            entry.findings += 1
            right = any(
                finding.start < end and finding.end > start for start, end, _ in line.labels
            )
            entry.right += right
            good = good and right
        if not good:
            failures.append((line, findings))
    return scores, {lang: (touched[lang], count) for lang, count in cleans.items()}, failures


def _covered(text: str, label: Label, findings: list[Finding]) -> bool:
    start, end, _ = label
    left = set(range(start, end))
    for finding in findings:
        left -= set(range(finding.start, finding.end))
    return not any(text[place].isalnum() for place in left)


def lines_per_second(
    lines: Iterable[str], work: Callable[[str], object] = scrub_text, repeats: int = 3
) -> float:
    """Return how many lines one core works off in a second: the best of some runs."""
    texts = list(lines)
    for text in texts[:200]:
        work(text)
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        for text in texts:
            work(text)
        best = min(best, time.perf_counter() - start)
    return len(texts) / best


def match_phones(text: str) -> int:
    """Count what libphonenumber's matcher finds for Korea, to compare the time it takes."""
    import phonenumbers

    return sum(1 for _ in phonenumbers.PhoneNumberMatcher(text, "KR"))


def bench_text(
    sets: Iterable[str] = ("development", "held_out"),
    per_kind: int = 200,
    seed: int = 0,
    names: str = "rules",
    clean_file: Path | None = None,
) -> dict[str, Any]:  # plain data, as it goes into a file
    """Measure the rules on made-up sets, and how many lines of a clean file they touch.

    Args:
        per_kind: lines of each kind and language; twenty times as many clean ones by language.
        names: what finds people: rules, presidio or spacy.
        clean_file: a text in which nobody is named; its lines are counted, never shown.

    Returns:
        Plain data: `table` prints it.
    """
    result: dict[str, Any] = {"seed": seed, "per_kind": per_kind, "names": names}
    result["machine"] = platform.processor() or platform.machine()
    for which in sets:
        lines = list(lines_of(which, per_kind, seed))
        scores, touched, _ = score(lines, names)
        result[which] = {
            "kinds": [
                {
                    "language": lang,
                    "kind": kind,
                    "recall": one.recall,
                    "precision": one.precision,
                    **asdict(one),
                }
                for (lang, kind), one in sorted(scores.items())
            ],
            "clean": {
                lang: {"touched": hits, "lines": count} for lang, (hits, count) in touched.items()
            },
        }
        if names == "rules":
            texts = [line.text for line in lines]
            result[which]["lines_per_s"] = {
                "all": lines_per_second(texts),
                "clean": lines_per_second(line.text for line in lines if not line.labels)
                if touched
                else None,
                "phone rules alone": lines_per_second(
                    texts, lambda text: scrub_text(text, ["phone"])
                ),
                "phonenumbers' matcher, KR alone": lines_per_second(texts, match_phones),
            }
    if clean_file is not None:
        texts = [
            text for text in clean_file.read_text("utf-8", "replace").splitlines() if text.strip()
        ]
        kinds = Counter(finding.kind for text in texts for finding in find_all(text, names=names))
        hits = sum(bool(find_all(text, names=names)) for text in texts)
        result["clean_file"] = {"touched": hits, "lines": len(texts), "kinds": dict(kinds)}
        result["clean_file_lines_per_s"] = lines_per_second(texts)
    return result


def table(result: Mapping[str, Any]) -> str:
    """Return what `bench_text` measured as text."""
    lines = []
    for which in SETS:
        if which not in result:
            continue
        one = result[which]
        lines.append(f"{which} (seed {result['seed']}, names by {result['names']})")
        lines.append(f"{'':2}{'kind':18}{'recall':>8}{'n':>6}{'named':>8}{'precision':>11}")
        for row in one["kinds"]:
            if row["values"]:
                lines.append(
                    f"{row['language']:2} {row['kind']:17}{row['recall']:8.3f}{row['values']:6}"
                    f"{row['named'] / row['values']:8.3f}{row['precision']:11.3f}"
                )
        for language, clean in one["clean"].items():
            share = clean["touched"] / clean["lines"]
            touched = f"{clean['touched']} of {clean['lines']} = {share:.4f}"
            lines.append(f"{language} clean lines touched: {touched}")
        for name, rate in one.get("lines_per_s", {}).items():
            if rate is not None:
                lines.append(f"{rate:,.0f} lines a second on one core: {name}")
        lines.append("")
    if "clean_file" in result:
        clean = result["clean_file"]
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(clean["kinds"].items()))
        lines.append(
            f"the file: {clean['touched']} of {clean['lines']} lines touched"
            f" ({kinds or 'nothing'}),"
            f" {result['clean_file_lines_per_s']:,.0f} lines a second"
        )
    return "\n".join(lines).rstrip()
