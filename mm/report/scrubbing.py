"""What `scripts/scrub.py` does: scrub, preview, verify, forget. Each returns lines and a status.

Status: 0 all is well, 1 some input failed. What is printed counts and never quotes.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mm.data.forget import Removal, forget, forgotten_hashes, trained_on
from mm.data.shard_audit import audit_shards
from mm.data.shard_writer import write_shards
from mm.errors import MMError, UsageError
from mm.privacy import ledger as ledgers
from mm.privacy.errors import LedgerError, OutputError, PrivacyError
from mm.privacy.policy import Policy
from mm.privacy.scrub import Report, print_refusal, pseudonym_key
from mm.privacy.text import KINDS
from mm.report.contact_sheet import draw, preview

Outcome = tuple[list[str], int]


def job(config: Mapping[str, Any], source: Any, policy: Policy) -> Outcome:
    """Scrub a source into shards, or show what that would do.

    Args:
        config: conf/scrub.yaml, composed.
        source: the source that it names.
        policy: the policy that it names.
    """
    no_crash_dumps()
    key = pseudonym_key(policy, config["key_file"])
    if config["preview"] is not None:
        return _preview(config, source, policy, key)
    report = write_shards(
        source,
        config["output"],
        policy,
        key=key,
        workers=workers_of(config["workers"]),
        backend=config["backend"],
        max_shard_bytes=config["max_shard_bytes"],
        fresh=config["fresh"],
        forgotten=[] if config["forgotten"] is None else forgotten_hashes(config["forgotten"]),
        progress=sys.stderr,
        on_refusal=print_refusal,
    )
    head = f"{config['output']}: {report.samples} samples in {report.seconds:.1f} s"
    return [head, *count_lines(report)], 1 if report.quarantined else 0


def _preview(config: Mapping[str, Any], source: Any, policy: Policy, key: bytes | None) -> Outcome:
    number = config["preview"]
    if not isinstance(number, int) or number < 1:
        raise UsageError(f"preview={number} must be a number of records, such as preview=20")
    rows, report = preview(source.records(), policy, number, key)
    path = Path(config["sheet"])
    # The left half shows pictures as they were: for the eyes of who runs this.
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(handle, "wb") as file:
        file.write(draw(rows))
    head = f"{path}: {len(rows)} records before and after; delete it when you have looked"
    return [head, *count_lines(report)], 1 if report.quarantined else 0


def verify(arguments: Sequence[str]) -> Outcome:
    """Check a set: its ledger, every byte of its shards, and everything in them once more.

    Args:
        arguments: verify=DIR, and workers=N if wanted.
    """
    given = _only(arguments, {"verify": None, "workers": ""})
    directory = given["verify"]
    workers = workers_of(int(given["workers"]) if given["workers"].isdecimal() else None)
    try:
        ledger = ledgers.read(directory)
        ledgers.verify_shards(directory, ledger)
        policy = ledgers.policy_of(ledger)
        audit = audit_shards(Path(directory), ledger["shards"], policy, workers)
    except LedgerError as error:
        return [f"{directory}: refused: {error}"], 1
    except PrivacyError as error:
        return [f"{directory}: refused: {error}: {ledgers.fix(Path(directory))}"], 1
    counts = ledger["counts"]
    lines = [
        f"{directory}: {counts['samples']} samples in {len(ledger['shards'])} shards pass",
        f"  checked again: {audit['pictures']} pictures, {audit['texts']} texts",
        f"  ledger: version {ledger['version']}, {ledger['self_hash']}",
        f"  policy: {policy.name}, {ledger['policy_hash']}",
    ]
    lines += [
        f"  {name}: {_listed(counts.get(name, {}))}"
        for name in ("quarantined", "metadata", "text", "visible")
    ]
    lines.append(f"  removed later: {sum(item['samples'] for item in ledger.get('removed', []))}")
    kept = [kind for kind in KINDS if policy.text[kind] == "keep"]
    if kept:
        lines.append(f"  not looked for in texts: {', '.join(kept)}")
    return lines, 0


def forget_and_list(arguments: Sequence[str]) -> Outcome:
    """Remove samples from a set and list what was trained on it before.

    Args:
        arguments: forget=HASH|FILE and output=DIR, and runs=FOLDER if wanted.
    """
    given = _only(arguments, {"forget": None, "output": None, "runs": "runs"})
    directory, runs = given["output"], given["runs"]
    removal: Removal = forget(given["forget"], directory)
    lines = [f"{directory}: {removal.samples} samples removed"]
    lines += [f"  {item}: {number} samples" for item, number in removal.found.items()]
    trained = trained_on(removal.ledgers, runs)
    if removal.samples:
        lines.append(f"trained on it before, under {runs}: {len(trained) or 'nothing'}")
        lines += [f"  {path}" for path in trained]
    return lines, 0 if all(removal.found.values()) else 1


def _only(arguments: Sequence[str], known: Mapping[str, str | None]) -> dict[str, str]:
    """Read KEY=VALUE words: each key at most once, none but the known, those without default."""
    given: dict[str, str] = {}
    for word in arguments:
        name, equals, value = word.partition("=")
        if name not in known or not equals or not value or name in given:
            raise UsageError(f"{word!r} does not go with {next(iter(known))}=: see --help")
        given[name] = value
    for name, default in known.items():
        if default is None and name not in given:
            raise UsageError(f"say what {name} is: {name}=..., see --help")
    return {name: given.get(name, default or "") for name, default in known.items()}


def workers_of(workers: int | None) -> int:
    """Return how many processes to use: as asked, or one a processor that we may run on."""
    if workers is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 0:
        raise UsageError(f"workers={workers} must be a number of processes, or 0 for none but this")
    return workers


def no_crash_dumps() -> None:
    """Forbid core files, which would hold pictures and texts, here and in later processes."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, OSError, ValueError):  # not Unix, or forbidden already
        pass


def count_lines(report: Report) -> list[str]:
    """Say what was left out and what was removed, by kind."""
    return [
        f"  {name}: {_listed(getattr(report, name))}"
        for name in ("quarantined", "metadata", "text", "visible")
    ]


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {kind}" for kind, n in sorted(counts.items())) or "none"


def told(name: str, act: Callable[[], Outcome]) -> int:
    """Run an action, print its lines, and return the exit status of a script.

    An error that nobody foresaw is named by its type and place only: its message could quote what
    is being scrubbed.
    """
    try:
        lines, status = act()
    except OutputError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    except (MMError, PrivacyError) as error:
        print(f"{name}: " + " ".join(str(error).split()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{name}: stopped; the same command goes on where it was", file=sys.stderr)
        return 1
    except Exception as error:
        place = error.__traceback__
        while place is not None and place.tb_next is not None:
            place = place.tb_next
        where = "" if place is None else f" in {Path(place.tb_frame.f_code.co_filename).name}"
        line = "" if place is None else f", line {place.tb_lineno}"
        print(f"{name}: {type(error).__name__}{where}{line}: please report it", file=sys.stderr)
        return 1
    try:
        print("\n".join(lines), flush=True)
    except BrokenPipeError:  # who read has gone, and Python would say so at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status
