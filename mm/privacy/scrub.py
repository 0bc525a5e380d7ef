"""Scrub records: one function per record, and a driver that runs it over many.

A record is anything with `images`, `turns`, `tags`, `source_id` and `problem`, such as
`mm.data.sample.Sample`. The driver writes to a sink, which checks again what it is given.
"""

import dataclasses
import hashlib
import re
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing import get_context
from typing import Any, Protocol, TextIO

from mm.privacy import door, metadata
from mm.privacy.errors import DoorError, ScrubError
from mm.privacy.policy import Policy
from mm.privacy.text import scrub_text

IMAGE_MARKER = "<image>"
ROLES = ("system", "user", "assistant")
_SOURCE_ID = re.compile(r"[0-9a-f]{16,64}")
_BATCH = 32


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


class Sink(Protocol):
    """What takes clean records, `mm.data.shards.ShardWriter` for one."""

    def write(self, sample: Any, found: "Found") -> None: ...


@dataclass(frozen=True)
class Found:
    """Counts by kind of what was removed from one record."""

    metadata: Counter[str] = field(default_factory=Counter)
    text: Counter[str] = field(default_factory=Counter)


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
    seconds: float = 0.0


def scrub_sample(sample: Any, policy: Policy, index: int = 0) -> tuple[Any, Found] | Refusal:
    """Clean one record; never raises for what the record holds.

    Args:
        sample: a `Record` (its own dataclass type is kept).
        policy: what to do.
        index: its number in the source, for the refusal.

    Returns:
        The clean record with counts of what was removed, or why it was refused.
    """
    try:
        return _scrub(sample, policy)
    except DoorError as error:
        return Refusal(index, error.reason, str(error).replace(f"{error.reason}: ", "", 1))
    except _Refused as refused:
        return Refusal(index, *refused.args)
    except Exception as error:  # fail closed; the message could quote the record, its type cannot
        return Refusal(index, "internal", f"{type(error).__name__} while scrubbing")


class _Refused(Exception):
    pass


def _scrub(sample: Any, policy: Policy) -> tuple[Any, Found]:
    if sample.problem:
        raise _Refused(sample.problem, "the source could not read this record")
    found = Found()
    turns = _clean_turns(sample, policy, found.text)
    tags = {}
    for key, value in sample.tags.items():
        tags[_clean_text(key, policy, found.text)] = _clean_text(value, policy, found.text)
    images = []
    for position, data in enumerate(sample.images):
        image = door.open_image(
            data,
            limits=policy.limits,
            background=policy.background,
            audit=found.metadata,
            position=position,
        )
        found.metadata.update(metadata.count_metadata(data))
        try:
            encoded = policy.encode(policy.fit(image))
        except ValueError:
            raise _Refused(
                "too-large", f"picture {position} does not fit in {policy.encoding}"
            ) from None
        images.append(encoded)
    clean = dataclasses.replace(
        sample, images=images, turns=turns, tags=tags, source_id=hashed_id(sample.source_id)
    )
    return clean, found


def _clean_turns(sample: Any, policy: Policy, found: Counter[str]) -> list[tuple[str, str]]:
    turns = []
    for role, words in sample.turns:
        if role not in ROLES:
            raise _Refused("bad-turns", f"a role is not one of {', '.join(ROLES)}")
        turns.append((role, _clean_text(words, policy, found)))
    markers = sum(words.count(IMAGE_MARKER) for _, words in turns)
    if turns and markers != len(sample.images):
        raise _Refused(
            "marker-count", f"{markers} {IMAGE_MARKER} markers for {len(sample.images)} pictures"
        )
    return turns


def _clean_text(words: object, policy: Policy, found: Counter[str]) -> str:
    if not isinstance(words, str):
        raise _Refused("bad-text", "a text is not a string")
    if len(words) > policy.max_text_chars:
        raise _Refused("text-too-long", f"a text is over {policy.max_text_chars} characters")
    try:
        words.encode()
    except UnicodeEncodeError:
        raise _Refused("bad-text", "a text holds half a character") from None
    clean, counts = scrub_text(words, policy.text_rules, policy.phone_regions)
    found.update(counts)
    return clean


def hashed_id(source_id: str) -> str:
    """Return an id that cannot hold a name: hex digests stay, anything else is hashed."""
    if _SOURCE_ID.fullmatch(source_id):
        return source_id
    return hashlib.sha256(source_id.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def scrub(
    samples: Iterable[Any],
    sink: Sink,
    policy: Policy,
    *,
    workers: int = 0,
    progress: TextIO | None = None,
    on_refusal: Callable[[Refusal], None] | None = None,
) -> Report:
    """Clean every record of a source and hand it to the sink, in source order.

    Args:
        samples: the source; read as it is needed.
        sink: takes clean records.
        policy: what to do.
        workers: processes; 0 scrubs in this one. The result is the same.
        progress: where a progress line goes, usually stderr.
        on_refusal: called for each record that is left out.

    Raises:
        ScrubError: a worker died, or a record failed under `on_failure: stop`.
    """
    report, start, shown = Report(), time.monotonic(), 0.0
    for result in _results(samples, policy, workers):
        if isinstance(result, Refusal):
            report.quarantined[result.reason] += 1
            if on_refusal is not None:
                on_refusal(result)
            if policy.on_failure == "stop":
                raise ScrubError(f"{result} (policy.on_failure is stop)")
            continue
        clean, found = result
        sink.write(clean, found)
        report.samples += 1
        report.metadata.update(found.metadata)
        report.text.update(found.text)
        report.seconds = time.monotonic() - start
        if progress is not None and report.seconds - shown > 0.5:
            shown = report.seconds
            _show(progress, report, "\r")
    report.seconds = time.monotonic() - start
    if progress is not None:
        _show(progress, report, "\n")
    return report


def _show(progress: TextIO, report: Report, end: str) -> None:
    rate = report.samples / max(report.seconds, 1e-9)
    left_out = sum(report.quarantined.values())
    start = "\r" if progress.isatty() else ""
    if end == "\r" and not progress.isatty():
        return
    progress.write(f"{start}scrubbed {report.samples}, quarantined {left_out}, {rate:.0f}/s{end}")
    progress.flush()


def _results(
    samples: Iterable[Any], policy: Policy, workers: int
) -> Iterator[tuple[Any, Found] | Refusal]:
    if workers <= 0:
        for index, sample in enumerate(samples):
            yield scrub_sample(sample, policy, index)
        return
    numbered = iter(enumerate(samples))
    window: deque[Future[list[tuple[Any, Found] | Refusal]]] = deque()
    try:
        # spawn: a fork would copy the caller's threads and devices in an unknown state
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            while True:
                while len(window) < 3 * workers and (batch := list(islice(numbered, _BATCH))):
                    window.append(pool.submit(_scrub_batch, batch, policy))
                if not window:
                    return
                yield from window.popleft().result()
    except BrokenExecutor:
        raise ScrubError(
            "a worker process died while scrubbing (out of memory?): run with workers=0 to see"
            " at which sample"
        ) from None


def _scrub_batch(batch: list[tuple[int, Any]], policy: Policy) -> list[tuple[Any, Found] | Refusal]:
    return [scrub_sample(sample, policy, index) for index, sample in batch]


def print_refusal(refusal: Refusal) -> None:
    """Print one line about a record that was left out, to stderr."""
    clear = "\r\x1b[K" if sys.stderr.isatty() else ""  # over the progress line
    print(f"{clear}{refusal}", file=sys.stderr)
