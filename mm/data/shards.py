"""Scrubbed shards: WebDataset tar files with a ledger, written atomically, read at random.

Per sample a shard holds its pictures and one JSON file, named `000000012.0.png`, `000000012.1.png`,
`000000012.json`. Headers carry no time, user or mode of their own, so that equal samples give equal
bytes. The writer checks every picture and text again, the finished shards are read back and
audited, and only then is the directory renamed into place.
"""

import json
import mmap
import os
import shutil
import tarfile
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, TextIO

from mm.data.sample import Sample
from mm.privacy import ledger as ledgers
from mm.privacy.errors import LedgerError, ScrubError
from mm.privacy.metadata import check_pixels_only
from mm.privacy.policy import Policy, from_dict
from mm.privacy.scrub import Found, Refusal, Report, hashed_id, scrub
from mm.privacy.text import find

_EXTENSIONS = {"png": "png", "jpeg": "jpg", "webp": "webp"}
_BLOCK = tarfile.BLOCKSIZE
_END = b"\0" * (2 * _BLOCK)


class ShardWriter:
    """Write scrubbed samples to a new directory of shards.

    Nothing appears at `directory` before `close()` has audited all of it; leaving the `with` block
    by an exception leaves nothing behind.

    Args:
        directory: must not exist, or be empty.
        policy: the policy that the samples went through; goes into the ledger.
        max_shard_bytes: a new tar file is begun beyond this size.

    Raises:
        ScrubError: the directory is not empty.
    """

    def __init__(
        self, directory: str | os.PathLike[str], policy: Policy, max_shard_bytes: int = 256 * 2**20
    ) -> None:
        self.directory, self.policy, self.max_shard_bytes = Path(directory), policy, max_shard_bytes
        check_output(self.directory)
        self.quarantined: Counter[str] = Counter()
        self._metadata: Counter[str] = Counter()
        self._text: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._shards: list[dict[str, Any]] = []
        self._file: BinaryIO | None = None
        self._temporary = self.directory.with_name(f".{self.directory.name}.{os.getpid()}.partial")
        shutil.rmtree(self._temporary, ignore_errors=True)
        self._temporary.mkdir(parents=True)

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
        else:
            self.abort()

    def write(self, sample: Sample, found: Found | None = None) -> None:
        """Append one scrubbed sample.

        Args:
            sample: as `mm.privacy.scrub.scrub_sample` returns it.
            found: counts of what was removed from it.

        Raises:
            ScrubError: it holds something that scrubbing would have removed.
        """
        found = found or Found()
        kinds = check_clean(sample, self.policy)
        key = f"{self._counts['samples']:09d}"
        names = [f"{number}.{_EXTENSIONS[kind]}" for number, kind in enumerate(kinds)]
        record = {
            "turns": sample.turns,
            "tags": sample.tags,
            "source_id": sample.source_id,
            "images": names,
            "audit": {"metadata": found.metadata, "text": found.text},
        }
        words = json.dumps(record, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        members = [*zip(names, sample.images, strict=True), ("json", words.encode())]
        block = b"".join(_member(f"{key}.{name}", data) for name, data in members)
        file = self._shard(len(block))
        self._shards[-1]["offsets"].append(file.tell())
        file.write(block)
        self._counts.update(
            samples=1,
            images=len(names),
            turns=len(sample.turns),
            texts=len(sample.turns) + 2 * len(sample.tags),
        )
        self._metadata.update(found.metadata)
        self._text.update(found.text)

    def close(self) -> dict[str, Any]:
        """Finish, audit what lies on disk, write the ledger and rename the directory into place.

        Returns:
            The ledger.
        """
        try:
            self._end_shard()
            for shard in self._shards:
                path = self._temporary / shard["file"]
                shard["bytes"], shard["sha256"] = path.stat().st_size, ledgers.file_hash(path)
            counts = {name: self._counts[name] for name in ("samples", "images", "turns", "texts")}
            details = {
                "quarantined": dict(self.quarantined),
                "metadata": dict(self._metadata),
                "text": dict(self._text),
            }
            audit = audit_shards(self._temporary, self._shards, self.policy)
            ledger = ledgers.build(self.policy, {**counts, **details}, self._shards, audit)
            ledgers.write(ledger, self._temporary)
            self.directory.parent.mkdir(parents=True, exist_ok=True)
            os.replace(self._temporary, self.directory)
        except BaseException:
            self.abort()
            raise
        return ledger

    def abort(self) -> None:
        """Throw away everything written so far."""
        if self._file is not None:
            self._file.close()
            self._file = None
        shutil.rmtree(self._temporary, ignore_errors=True)

    def _shard(self, size: int) -> BinaryIO:
        if self._file is not None and self._file.tell() + size > self.max_shard_bytes:
            self._end_shard()
        if self._file is None:
            name = f"{len(self._shards):06d}.tar"
            self._file = open(self._temporary / name, "wb")  # noqa: SIM115
            self._shards.append({"file": name, "offsets": []})
        return self._file

    def _end_shard(self) -> None:
        if self._file is not None:
            self._file.write(_END)
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None


class ShardReader:
    """Read scrubbed shards by number; refuse anything else.

    Safe to share with forked or spawned loader processes: files are mapped on first use in each.

    Args:
        directory: written by `ShardWriter`.
        verify: hash every shard once. Pass False only where another process just did.

    Raises:
        LedgerError: not scrubbed, edited or not audited; names the command that helps.
    """

    def __init__(self, directory: str | os.PathLike[str], verify: bool = True) -> None:
        self.directory = Path(directory)
        self.ledger = ledgers.read(self.directory)
        if verify:
            ledgers.verify_shards(self.directory, self.ledger)
        self.policy = from_dict(self.ledger["policy"])
        self._bounds = [
            array("q", [*shard.pop("offsets"), shard["bytes"] - len(_END)])
            for shard in self.ledger["shards"]
        ]
        self._firsts = [0, *accumulate(len(bounds) - 1 for bounds in self._bounds)]
        self._maps: dict[int, mmap.mmap] = {}

    def __len__(self) -> int:
        return self._firsts[-1]

    def __getitem__(self, index: int) -> Sample:
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        index %= len(self)
        number = bisect_right(self._firsts, index) - 1
        place = index - self._firsts[number]
        start, end = self._bounds[number][place], self._bounds[number][place + 1]
        if number not in self._maps:
            path = self.directory / self.ledger["shards"][number]["file"]
            try:
                with open(path, "rb") as file:
                    self._maps[number] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError):
                raise LedgerError(f"{path} cannot be read: {ledgers.fix(self.directory)}") from None
        return _parse(self._maps[number][start:end])

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": {}}


def write_shards(
    samples: Iterable[Sample],
    directory: str | os.PathLike[str],
    policy: Policy,
    *,
    workers: int = 0,
    max_shard_bytes: int = 256 * 2**20,
    progress: TextIO | None = None,
    on_refusal: Callable[[Refusal], None] | None = None,
) -> Report:
    """Scrub a source into a new directory of audited shards.

    Args:
        samples: any source, see `mm.data.sources`.
        directory: must not exist, or be empty.
        policy: what to remove and how to encode.
        workers: processes that scrub; 0 uses this one.
        max_shard_bytes: size of one tar file.
        progress: where a progress line goes, usually stderr.
        on_refusal: called with each `Refusal`.

    Raises:
        ScrubError: the directory is not empty, or nothing could be written.
    """
    with ShardWriter(directory, policy, max_shard_bytes) as writer:

        def refuse(refusal: Refusal) -> None:
            writer.quarantined[refusal.reason] += 1
            if on_refusal is not None:
                on_refusal(refusal)

        return scrub(samples, writer, policy, workers=workers, progress=progress, on_refusal=refuse)


def check_output(directory: Path) -> None:
    """Raise `ScrubError` unless `directory` is new or empty."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ScrubError(f"output {directory} is not empty: name a new directory")


def check_clean(sample: Sample, policy: Policy) -> list[str]:
    """Check independently of the scrubbing that a sample holds nothing that it would remove.

    Returns:
        The format of each picture.

    Raises:
        PrivacyError: a picture with more than pixels, a text in which a rule finds something.
    """
    kinds = [check_pixels_only(data) for data in sample.images]
    texts = [words for _, words in sample.turns]
    texts += [words for pair in sample.tags.items() for words in pair]
    for words in texts:
        for rule in policy.text_rules:
            if find(words, rule, policy.phone_regions):
                raise ScrubError(f"a text still holds what rule {rule!r} finds: scrub it first")
    if hashed_id(sample.source_id) != sample.source_id:
        raise ScrubError("a source_id is not a hash: scrub the sample first")
    return kinds


def audit_shards(directory: Path, shards: list[dict[str, Any]], policy: Policy) -> dict[str, int]:
    """Read finished shards back from disk and check everything in them.

    Returns:
        How many pictures and texts were checked.

    Raises:
        PrivacyError: something is there that scrubbing should have removed.
    """
    checked: Counter[str] = Counter(pictures=0, texts=0)
    for shard in shards:
        data = (directory / shard["file"]).read_bytes()
        bounds = [*shard["offsets"], len(data) - len(_END)]
        if bounds[0] != 0 or data[bounds[-1] :] != _END:
            raise ScrubError(f"{shard['file']} holds bytes outside its samples")
        for start, end in zip(bounds, bounds[1:], strict=False):
            sample = _parse(data[start:end])
            check_clean(sample, policy)
            checked.update(
                pictures=len(sample.images), texts=len(sample.turns) + 2 * len(sample.tags)
            )
    return dict(checked)


def _member(name: str, data: bytes) -> bytes:
    """Return one tar member: a header of fixed fields, the data, zeros to a whole block."""
    info = tarfile.TarInfo(name)
    info.size = len(data)  # everything else is TarInfo's constant default: mtime 0, no names
    return info.tobuf(tarfile.USTAR_FORMAT) + data + b"\0" * (-len(data) % _BLOCK)


def _parse(block: bytes) -> Sample:
    """Rebuild a sample from its stretch of a tar file."""
    members: dict[str, bytes] = {}
    position = 0
    while position < len(block):
        info = tarfile.TarInfo.frombuf(
            block[position : position + _BLOCK], "ascii", "surrogateescape"
        )
        start = position + _BLOCK
        members[info.name.split(".", 1)[1]] = block[start : start + info.size]
        position = start + info.size + -info.size % _BLOCK
    record = json.loads(members["json"])
    return Sample(
        images=[members[name] for name in record["images"]],
        turns=[(role, words) for role, words in record["turns"]],
        tags=record["tags"],
        source_id=record["source_id"],
    )
