"""Write scrubbed shards: checked, audited, renamed into place, and gone on with after a kill.

Everything is written to `.NAME.partial` beside the output. A journal there says every few seconds
what is done; a run that was killed is cut back to its last entry and goes on from that record, to
the same bytes as a run that was not. The partial folder holds scrubbed data only.
"""

import fcntl
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, TextIO

from mm.data.sample import Record, Sample
from mm.data.shard_audit import audit_shards, check_clean
from mm.data.shard_format import END, pack
from mm.data.sources.files import Reader
from mm.privacy import ledger as ledgers
from mm.privacy.errors import OutputError, PrivacyError, ScrubError
from mm.privacy.policy import Policy, digest
from mm.privacy.scrub import Found, Refusal, Report, hashed_id, scrub

_COMMIT_SECONDS = 5.0
_TOTALS = ("samples", "images", "turns", "texts")
_KINDS = ("quarantined", "metadata", "text", "visible")


class ShardWriter:
    """Write scrubbed samples to a new directory of shards.

    Nothing appears at `directory` before `close()` has audited all of it. Leaving the `with` block
    by an exception leaves nothing behind, or, with `settings`, what is done, for the next run.

    Args:
        directory: must not exist, or be empty.
        policy: the policy that the samples went through; goes into the ledger.
        max_shard_bytes: a new tar file is begun beyond this size.
        settings: hashes of whatever decides the output. A run that was stopped goes on if they are
            equal; None starts anew and leaves nothing behind.
        proven: the samples were checked when they were scrubbed; `close` checks them anyway.
        workers: processes that audit.
        forgotten: hashes of what was removed before and stays out; noted in the ledger.

    Raises:
        ScrubError: the directory is not empty, another run writes to it, or a run with other
            settings was stopped half-way.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        policy: Policy,
        max_shard_bytes: int = 256 * 2**20,
        *,
        settings: dict[str, str] | None = None,
        proven: bool = False,
        workers: int = 0,
        forgotten: Sequence[str] = (),
    ) -> None:
        self.directory, self.policy, self.max_shard_bytes = Path(directory), policy, max_shard_bytes
        self.settings, self.proven, self.workers = settings, proven, workers
        self.forgotten = tuple(forgotten)
        check_output(self.directory)
        self.records = 0  # of the source that are done
        self.last: tuple[int, str] | None = None  # number and hash of the last one written
        self.counts: dict[str, Counter[str]] = {name: Counter() for name in ("totals", *_KINDS)}
        self._shards: list[dict[str, Any]] = []
        self._file: BinaryIO | None = None
        self._new_offsets: list[tuple[int, int]] = []
        self._temporary = partial_of(self.directory)
        self._journal: BinaryIO | None = None
        self._committed = time.monotonic()
        with self._disk():
            self._temporary.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self._temporary / "lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise ScrubError(f"another run is writing {self.directory}: wait for it") from None
        try:
            with self._disk():
                self._begin()
        except BaseException:
            os.close(self._lock)
            raise

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        elif isinstance(error, PrivacyError) and not isinstance(error, OutputError):
            self.abort()
        else:
            self.stop()

    def write(self, sample: Sample, found: Found | None = None) -> None:
        """Append one scrubbed sample.

        Args:
            sample: as `mm.privacy.scrub.scrub_sample` returns it.
            found: counts of what was removed from it.

        Raises:
            ScrubError: it holds something that scrubbing would have removed.
            OutputError: the disk is full or gone.
        """
        found = found or Found()
        if self.proven:
            kinds = [self.policy.encoding] * len(sample.images)
        else:
            kinds = check_clean(sample, self.policy)
        block = pack(self.counts["totals"]["samples"], sample, kinds, found)
        with self._disk():
            file = self._shard(len(block))
            offset = file.tell()
            file.write(block)
        self._shards[-1]["offsets"].append(offset)
        self._new_offsets.append((len(self._shards) - 1, offset))
        texts = len(sample.turns) + 2 * len(sample.tags)
        self.counts["totals"].update(
            samples=1, images=len(kinds), turns=len(sample.turns), texts=texts
        )
        for name in ("metadata", "text", "visible"):
            self.counts[name].update(getattr(found, name))
        self.last = (self.records, sample.source_id)
        self._done()

    def refuse(self, refusal: Refusal) -> None:
        """Count a record that is left out."""
        self.counts["quarantined"][refusal.reason] += 1
        self._done()

    def close(self) -> dict[str, Any]:
        """Finish, audit what lies on disk, write the ledger and rename the directory into place.

        Returns:
            The ledger.
        """
        try:
            with self._disk():
                self._end_shard()
                self._commit()
                for shard in self._shards:
                    path = self._temporary / shard["file"]
                    shard["bytes"], shard["sha256"] = path.stat().st_size, ledgers.file_hash(path)
                audit = audit_shards(self._temporary, self._shards, self.policy, self.workers)
                totals = {name: self.counts["totals"][name] for name in _TOTALS}
                kinds = {name: dict(+self.counts[name]) for name in _KINDS}
                ledger = ledgers.build(
                    self.policy.as_dict(),
                    {**totals, **kinds},
                    self._shards,
                    audit,
                    tools=ledgers.tool_versions(self.policy),
                    removed=[{"hash": item, "samples": 0} for item in self.forgotten],
                )
                ledgers.write(ledger, self._temporary)
                self._forget_journal()
                self.directory.parent.mkdir(parents=True, exist_ok=True)
                (self._temporary / "lock").unlink()
                os.replace(self._temporary, self.directory)
                ledgers.sync_directory(self.directory.parent)
        except OutputError:
            self.stop()
            raise
        except PrivacyError:
            self.abort()
            raise
        except BaseException:
            self.stop()
            raise
        os.close(self._lock)
        return ledger

    def stop(self) -> None:
        """End early; what is done stays for the next run, unless this run can't be gone on with."""
        if self.settings is None or self.records == 0:
            self.abort()
            return
        try:
            self._commit()
        except OSError:  # the disk is full: the last entry that fitted counts
            pass
        self._shut()
        os.close(self._lock)

    def abort(self) -> None:
        """Throw away everything written so far."""
        self._shut()
        shutil.rmtree(self._temporary, ignore_errors=True)
        os.close(self._lock)

    # --- The journal ------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Go on where a run of the same settings was stopped, else start anew."""
        path = self._temporary / "journal.jsonl"
        entries, size = _entries(path) if self.settings is not None else ([], 0)
        if len(entries) < 2:
            for old in self._temporary.iterdir():
                if old.name != "lock":
                    old.unlink()
            self._journal = open(path, "wb")  # noqa: SIM115
            self._append({"settings": self.settings})
            return
        settings = self.settings or {}
        other = entries[0].get("settings") or {}
        changed = [name for name in settings if settings[name] != other.get(name)]
        if changed:
            raise ScrubError(
                f"a run with another {' and '.join(changed)} was stopped before it had written"
                f" {self.directory}: repeat its command, or add fresh=true to throw it away"
            )
        self._resume(entries[1:])
        self._journal = open(path, "r+b")  # noqa: SIM115
        self._journal.truncate(size)
        self._journal.seek(size)

    def _resume(self, entries: list[dict[str, Any]]) -> None:
        state = entries[-1]
        self.records, self.last = state["records"], state["last"] and tuple(state["last"])
        self.counts = {name: Counter(values) for name, values in state["counts"].items()}
        self._shards = [{"file": _name(k), "offsets": []} for k in range(state["shards"])]
        for entry in entries:
            for shard, offset in entry["offsets"]:
                self._shards[shard]["offsets"].append(offset)
        known = {shard["file"] for shard in self._shards} | {"lock", "journal.jsonl"}
        for extra in self._temporary.iterdir():
            if extra.name not in known:
                extra.unlink()
        if state["size"] is not None:
            self._file = open(self._temporary / self._shards[-1]["file"], "r+b")  # noqa: SIM115
            self._file.truncate(state["size"])
            self._file.seek(state["size"])

    def _done(self) -> None:
        self.records += 1
        if self.settings is not None and time.monotonic() - self._committed > _COMMIT_SECONDS:
            with self._disk():
                self._commit()

    def _commit(self) -> None:
        """Note what is done; a run that is killed goes on from here."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
        self._append(
            {
                "records": self.records,
                "last": self.last,
                "counts": self.counts,
                "shards": len(self._shards),
                "size": None if self._file is None else self._file.tell(),
                "offsets": self._new_offsets,
            }
        )
        self._new_offsets = []
        self._committed = time.monotonic()

    def _append(self, entry: dict[str, Any]) -> None:
        if self._journal is not None and self.settings is not None:
            line = json.dumps({**entry, "sum": digest(entry)}, separators=(",", ":"))
            self._journal.write(line.encode() + b"\n")
            self._journal.flush()
            os.fsync(self._journal.fileno())

    def _forget_journal(self) -> None:
        if self._journal is not None:
            self._journal.close()
            self._journal = None
        (self._temporary / "journal.jsonl").unlink(missing_ok=True)

    # --- Shards -----------------------------------------------------------------------------------

    def _shard(self, size: int) -> BinaryIO:
        if self._file is not None and self._file.tell() + size > self.max_shard_bytes:
            self._end_shard()
            self._commit()
        if self._file is None:
            name = _name(len(self._shards))
            self._file = open(self._temporary / name, "wb")  # noqa: SIM115
            self._shards.append({"file": name, "offsets": []})
        return self._file

    def _end_shard(self) -> None:
        if self._file is not None:
            self._file.write(END)
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None

    def _shut(self) -> None:
        for file in (self._file, self._journal):
            if file is not None:
                try:
                    file.close()
                except OSError:  # what could not be flushed is cut off by the next run
                    pass
        self._file = self._journal = None

    @contextmanager
    def _disk(self) -> Iterator[None]:
        """Turn errors of the output's disk into one line that says what to do."""
        try:
            yield
        except OSError as error:
            kept = "; what is done is kept: run the same command again" if self.settings else ""
            raise OutputError(
                f"{self.directory} cannot be written ({os.strerror(error.errno or 0)}){kept}"
            ) from None


def _name(number: int) -> str:
    return f"{number:06d}.tar"


def _entries(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Read a journal up to its first torn line; return the entries and how far they reach."""
    entries: list[dict[str, Any]] = []
    size = 0
    try:
        with open(path, "rb") as file:
            for line in file:
                entry = json.loads(line)
                if not line.endswith(b"\n") or entry.pop("sum") != digest(entry):
                    break
                entries.append(entry)
                size += len(line)
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        pass
    return entries, size


def partial_of(directory: Path) -> Path:
    """Name the folder that a directory is prepared in."""
    return directory.absolute().with_name(f".{directory.absolute().name}.partial")


def check_output(directory: Path) -> None:
    """Raise `ScrubError` unless `directory` is new or empty."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ScrubError(f"output {directory} is not empty: name a new directory")


def write_shards(
    records: Iterable[Record],
    directory: str | os.PathLike[str],
    policy: Policy,
    *,
    key: bytes | None = None,
    workers: int = 0,
    backend: str = "local",
    max_shard_bytes: int = 256 * 2**20,
    fresh: bool = False,
    forgotten: Sequence[str] = (),
    progress: TextIO | None = None,
    on_refusal: Callable[[Refusal], None] | None = None,
) -> Report:
    """Scrub a source into a new directory of audited shards; go on if this was begun before.

    Args:
        records: any source, see `mm.data.sources`.
        directory: must not exist, or be empty.
        policy: what to remove and how to encode.
        key: makes pseudonyms, see `mm.privacy.scrub.pseudonym_key`.
        workers: processes that scrub; 0 uses this one.
        backend: local, or ray for Ray Data.
        max_shard_bytes: size of one tar file.
        fresh: throw away what a run that was stopped has left.
        forgotten: hashes of raw pictures or records that are left out, see `mm.data.forget`.
        progress: where a progress line goes, usually stderr.
        on_refusal: called with each `Refusal`.

    Returns:
        Counts of the whole directory, what was done before a restart included.

    Raises:
        ScrubError: the directory is not empty, or nothing could be written.
    """
    reader = records if isinstance(records, Reader) else None
    settings = None  # what is no reader may not be there to be read again
    if reader is not None:
        options = {name: str(value) for name, value in vars(reader).items()}
        settings = {
            "policy": policy.hash(),
            "source": digest([type(reader).__module__, options]),
            "max_shard_bytes": str(max_shard_bytes),
            "version of a tool": digest(ledgers.tool_versions(policy)),
            "key": digest(["mm", (key or b"").hex()])[:8],  # too little to try guesses on
            "forgotten": digest(list(forgotten)),
        }
    if fresh:
        shutil.rmtree(partial_of(Path(directory)), ignore_errors=True)
    with ShardWriter(
        directory,
        policy,
        max_shard_bytes,
        settings=settings,
        proven=True,
        workers=workers,
        forgotten=forgotten,
    ) as writer:
        sink = _Refusing(writer, on_refusal)
        start = writer.records
        report = scrub(
            _after(reader.records() if reader else records, start, writer),
            sink,
            policy,
            key=key,
            workers=workers,
            backend=backend,
            start=start,
            forgotten=frozenset(forgotten),
            total=reader.count() if reader and progress is not None else None,
            progress=progress,
        )
    counts = writer.counts
    found = {name: counts[name] for name in _KINDS}
    return Report(samples=counts["totals"]["samples"], seconds=report.seconds, **found)


class _Refusing:
    """A writer that also tells the caller about refusals."""

    def __init__(self, writer: ShardWriter, on_refusal: Callable[[Refusal], None] | None) -> None:
        self.write, self._refuse, self._tell = writer.write, writer.refuse, on_refusal

    def refuse(self, refusal: Refusal) -> None:
        self._refuse(refusal)
        if self._tell is not None:
            self._tell(refusal)


def _after(records: Iterable[Record], start: int, writer: ShardWriter) -> Iterator[Record]:
    """Skip what is done, unread; refuse to go on in a source that has changed."""
    steps = iter(records)
    skipped, changed = 0, False
    for record in islice(steps, start):
        if writer.last is not None and skipped == writer.last[0]:
            changed = hashed_id(record.source_id) != writer.last[1]
        skipped += 1
    if changed or skipped < start:
        raise OutputError(
            f"the source has changed since {writer.directory} was begun: add fresh=true to start"
            " anew"
        )
    return steps
