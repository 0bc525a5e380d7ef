"""Scrub records: one function per record, and a driver that runs it over many.

A record is anything with `images`, `turns`, `tags`, `source_id`, `problem` and `origins`, such as
`mm.data.sample.Sample`, or a promise of one with `load(max_bytes)`. The driver writes to a sink in
the order of the source, whether it works in this process, in several, or on a Ray cluster.
"""

import dataclasses
import hashlib
import re
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TextIO

from mm.privacy import door, metadata, visible
from mm.privacy.errors import DoorError, PrivacyError, ScrubError
from mm.privacy.policy import Policy
from mm.privacy.text import read_key, scrub_text
from mm.privacy.worker import Lost, run_ordered

IMAGE_MARKER = "<image>"
ROLES = ("system", "user", "assistant")
BACKENDS = ("local", "ray")
KEY_VARIABLE = "MM_PSEUDONYM_KEY"
_SHOW_SECONDS = 0.5
_PATIENCE = 4  # times what a picture may take: what a record may
_SOURCE_ID = re.compile(r"[0-9a-f]{16,64}")


class Record(Protocol):
    """What a record must hold; the class must be a dataclass."""

    @property
    def images(self) -> list[bytes]: ...
    @property
    def turns(self) -> list[tuple[str, str]]: ...
    @property
    def tags(self) -> dict[str, str]: ...
    @property
    def source_id(self) -> str: ...
    @property
    def problem(self) -> str: ...
    @property
    def origins(self) -> list[str]: ...


class Sink(Protocol):
    """What takes results in the order of the source, `mm.data.shard_writer.ShardWriter` for one."""

    def write(self, sample: Any, found: "Found") -> None: ...
    def refuse(self, refusal: "Refusal") -> None: ...


@dataclass(frozen=True)
class Found:
    """Counts by kind of what was removed from one record."""

    metadata: Counter[str] = field(default_factory=Counter)
    text: Counter[str] = field(default_factory=Counter)
    visible: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Refusal:
    """A record that was not passed on: its number in the source, and why."""

    index: int
    reason: str
    detail: str

    def __str__(self) -> str:
        return f"sample {self.index}: {self.reason}: {self.detail}"


@dataclass
class Report:
    """What a scrubbing run did, in counts."""

    samples: int = 0
    quarantined: Counter[str] = field(default_factory=Counter)
    metadata: Counter[str] = field(default_factory=Counter)
    text: Counter[str] = field(default_factory=Counter)
    visible: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def add(self, result: "tuple[Any, Found] | Refusal") -> None:
        """Count one result."""
        if isinstance(result, Refusal):
            self.quarantined[result.reason] += 1
            return
        self.samples += 1
        for name in ("metadata", "text", "visible"):
            getattr(self, name).update(getattr(result[1], name))


Result = tuple[Any, Found] | Refusal


def scrub_sample(
    sample: Any,
    policy: Policy,
    index: int = 0,
    key: bytes | None = None,
    forgotten: frozenset[str] = frozenset(),
) -> tuple[Any, Found] | Refusal:
    """Clean one record; never raises for what the record holds.

    Args:
        sample: a `Record` (its own dataclass type is kept), or a promise of one.
        policy: what to do.
        index: its number in the source, for the refusal.
        key: makes pseudonyms, where the policy wants them.
        forgotten: hashes of raw pictures and records that somebody asked to leave out.

    Returns:
        The clean record with counts of what was removed, or why it was refused.
    """
    try:
        return _scrub(sample, policy, key, forgotten)
    except DoorError as error:
        return Refusal(index, error.reason, str(error).replace(f"{error.reason}: ", "", 1))
    except _Refused as refused:
        return Refusal(index, *refused.args)
    except Exception as error:  # fail closed; the message could quote the record, its type cannot
        return Refusal(index, "internal", f"{type(error).__name__} while scrubbing")


class _Refused(Exception):
    pass


def _scrub(
    sample: Any, policy: Policy, key: bytes | None, forgotten: frozenset[str]
) -> tuple[Any, Found]:
    sample = sample.load(policy.limits.max_bytes)
    if sample.problem:
        raise _Refused(sample.problem, "the source could not read this record")
    source_id = hashed_id(sample.source_id)
    origins = sample.origins or [hashlib.sha256(data).hexdigest() for data in sample.images]
    if forgotten and forgotten & {source_id, *origins}:
        raise _Refused("forgotten", "somebody asked for its removal")
    found = Found()
    turns = _clean_turns(sample, policy, key, found.text)
    tags = {}
    for name, value in sample.tags.items():
        clean_name = _clean_text(name, policy, key, found.text)
        tags[clean_name] = _clean_text(value, policy, key, found.text)
    for kind in found.text:
        if policy.text[kind] == "drop":
            raise _Refused("personal-text", f"a text holds what policy.text.{kind} drops")
    images = [
        _clean_picture(data, position, policy, found) for position, data in enumerate(sample.images)
    ]
    clean = dataclasses.replace(
        sample,
        images=images,
        turns=turns,
        tags=tags,
        source_id=source_id,
        origins=origins,
    )
    return clean, found


def _clean_picture(data: bytes, position: int, policy: Policy, found: Found) -> bytes:
    wish: dict[str, Any] = {
        "limits": policy.limits,
        "background": policy.background,
        "longest_side": policy.longest_side,
        "pages": policy.pages,
        "audit": found.metadata,
        "position": position,
    }
    if policy.looks:
        kept, seen = visible.clean(policy.fit(door.open_image(data, **wish)), policy)
        found.visible.update(seen)
        if kept is None:
            raise _Refused("visible", f"picture {position} shows what the policy drops")
        try:
            encoded = policy.encode(kept)
        except ValueError:
            raise _Refused(
                "too-large", f"picture {position} does not fit in {policy.encoding}"
            ) from None
    else:
        encoded = door.recode(data, policy.encoding, policy.quality, **wish)
    found.metadata.update(metadata.count_metadata(data))
    try:  # a second opinion on our own encoder, before anything is passed on
        metadata.check_pixels_only(encoded)
    except PrivacyError:
        raise _Refused("unproven", f"picture {position} came out with more than pixels") from None
    return encoded


def _clean_turns(
    sample: Any, policy: Policy, key: bytes | None, found: Counter[str]
) -> list[tuple[str, str]]:
    turns = []
    for role, words in sample.turns:
        if role not in ROLES:
            raise _Refused("bad-turns", f"a role is not one of {', '.join(ROLES)}")
        turns.append((role, _clean_text(words, policy, key, found)))
    markers = sum(words.count(IMAGE_MARKER) for _, words in turns)
    if turns and markers != len(sample.images):
        raise _Refused(
            "marker-count", f"{markers} {IMAGE_MARKER} markers for {len(sample.images)} pictures"
        )
    return turns


def _clean_text(words: object, policy: Policy, key: bytes | None, found: Counter[str]) -> str:
    if not isinstance(words, str):
        raise _Refused("bad-text", "a text is not a string")
    if len(words) > policy.max_text_chars:
        raise _Refused("text-too-long", f"a text is over {policy.max_text_chars} characters")
    try:
        words.encode()
    except UnicodeEncodeError:
        raise _Refused("bad-text", "a text is not valid UTF-8") from None
    clean, counts = scrub_text(
        words,
        policy.text_rules,
        policy.phone_regions,
        actions=policy.text,
        key=key,
        names=policy.names,
    )
    found.update(counts)
    return clean


def hashed_id(source_id: str) -> str:
    """Return an id that cannot hold a name: hex digests stay, anything else is hashed."""
    if _SOURCE_ID.fullmatch(source_id):
        return source_id
    return hashlib.sha256(source_id.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def pseudonym_key(policy: Policy, file: str | None = None) -> bytes | None:
    """Read the key that pseudonyms are made with, if the policy wants any; it is never stored.

    Args:
        policy: what will be done.
        file: a file that holds the key; else the environment variable `MM_PSEUDONYM_KEY` does.

    Raises:
        ScrubError: there is no key, or one too short to withstand guessing.
    """
    if not policy.needs_key:
        return None
    try:
        return read_key(path=file) if file is not None else read_key(KEY_VARIABLE)
    except ValueError as error:
        raise ScrubError(
            f"policy {policy.name} makes pseudonyms: set {KEY_VARIABLE} or key_file=FILE: {error}"
        ) from None


def scrub(
    records: Iterable[Any],
    sink: Sink,
    policy: Policy,
    *,
    key: bytes | None = None,
    workers: int = 0,
    backend: str = "local",
    start: int = 0,
    forgotten: frozenset[str] = frozenset(),
    total: int | None = None,
    progress: TextIO | None = None,
) -> Report:
    """Clean every record of a source and hand it to the sink, in source order.

    Args:
        records: the source; read as it is needed, no further ahead than a few records a worker.
        sink: takes clean records and refusals.
        policy: what to do.
        key: makes pseudonyms, see `pseudonym_key`.
        workers: processes; 0 scrubs in this one. The result is the same.
        backend: local, or ray for Ray Data on the cluster that `RAY_ADDRESS` names (else here).
        start: number of the first record in its source.
        forgotten: hashes of raw pictures and records that are left out.
        total: how many records there are, for the time left.
        progress: where a progress line goes, usually stderr.

    Raises:
        ScrubError: scrubbing cannot start, or a record failed under `on_failure: stop`.
    """
    visible.check(policy)
    if policy.needs_key and key is None:
        raise ScrubError(f"policy {policy.name} makes pseudonyms and got no key")
    report, line = Report(), _Progress(progress, start, total)
    function = partial(scrub_numbered, policy=policy, key=key, forgotten=forgotten)
    for result in _results(function, enumerate(records, start), policy, workers, backend):
        if isinstance(result, Refusal) and policy.on_failure == "stop":
            raise ScrubError(f"{result} (policy.on_failure is stop)")
        report.add(result)
        if isinstance(result, Refusal):
            sink.refuse(result)
        else:
            sink.write(*result)
        line.show(report)
    report.seconds = line.show(report, last=True)
    return report


def scrub_numbered(
    item: tuple[int, Any], policy: Policy, key: bytes | None, forgotten: frozenset[str]
) -> Result:
    """`scrub_sample` for a record with its number; what workers run."""
    return scrub_sample(item[1], policy, item[0], key, forgotten)


def _results(
    function: Callable[[tuple[int, Any]], Result],
    items: Iterable[tuple[int, Any]],
    policy: Policy,
    workers: int,
    backend: str,
) -> Iterator[Result]:
    if backend not in BACKENDS:
        raise ScrubError(f"backend is {backend!r}; it must be one of {', '.join(BACKENDS)}")
    if backend == "ray":
        from mm.privacy.ray_backend import run_ordered as run_on_ray

        alone = partial(_isolated, function, policy=policy, workers=1)
        return run_on_ray(function, items, workers=workers, rescue=alone)
    if workers <= 0:
        return map(function, items)
    return _isolated(function, items, policy, workers)


def _isolated(
    function: Callable[[tuple[int, Any]], Result],
    items: Iterable[tuple[int, Any]],
    policy: Policy,
    workers: int,
) -> Iterator[Result]:
    """Run in processes that may die or hang: that costs the one record."""
    numbers: deque[int] = deque()

    def noted() -> Iterator[tuple[int, Any]]:
        for item in items:
            numbers.append(item[0])
            yield item

    seconds = _PATIENCE * policy.limits.max_seconds
    for result in run_ordered(function, noted(), workers=workers, seconds=seconds):
        index = numbers.popleft()
        yield Refusal(index, result.reason, result.detail) if isinstance(result, Lost) else result


class _Progress:
    """One line that says how far scrubbing is."""

    def __init__(self, stream: TextIO | None, start: int, total: int | None) -> None:
        self.stream, self.start, self.total = stream, start, total
        self.begun = time.monotonic()
        self.shown = self.begun

    def show(self, report: Report, last: bool = False) -> float:
        now = time.monotonic()
        terminal = self.stream is not None and self.stream.isatty()
        if self.stream is not None and (
            last or now - self.shown > (_SHOW_SECONDS if terminal else 60)
        ):
            self.shown = now
            self.stream.write(self._line(report, now - self.begun, last, terminal))
            self.stream.flush()
        return now - self.begun

    def _line(self, report: Report, seconds: float, last: bool, terminal: bool) -> str:
        left_out = sum(report.quarantined.values())
        here = report.samples + left_out
        rate = here / max(seconds, 1e-9)
        words = f"scrubbed {report.samples}, quarantined {left_out}, {rate:.0f}/s"
        if self.start:
            words += f", after {self.start} done before"
        if self.total and not last:
            left = max(self.total - self.start - here, 0)
            share = 100 * (self.start + here) // self.total
            words += f", {share} % of {self.total}, {_duration(left / max(rate, 1e-9))} left"
        return ("\r\x1b[K" if terminal else "") + words + ("\n" if last or not terminal else "")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def print_refusal(refusal: Refusal) -> None:
    """Print one line about a record that was left out, to stderr."""
    clear = "\r\x1b[K" if sys.stderr.isatty() else ""  # over the progress line
    print(f"{clear}{refusal}", file=sys.stderr)
