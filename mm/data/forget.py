"""Take a picture or a person's samples out of scrubbed shards, and note that by hash.

The directory is rebuilt beside itself, from links to the shards that do not change, and swapped in
at the end; a kill at any instant leaves the old directory or the new one, and the same command
finishes the rest.
"""

import hashlib
import json
import mmap
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mm.data.sample import Sample
from mm.data.shard_audit import audit_shards
from mm.data.shard_format import END, Stored, unpack
from mm.data.sources.files import PICTURE_SUFFIXES
from mm.errors import UsageError
from mm.privacy import containers
from mm.privacy import ledger as ledgers
from mm.privacy.door import read_bytes
from mm.privacy.policy import Policy
from mm.privacy.scrub import Refusal, scrub_sample

_HASH = re.compile(r"[0-9a-f]{16,64}")
_KINDS = ("metadata", "text", "visible")


@dataclass(frozen=True)
class Removal:
    """What was taken out of a directory.

    Args:
        samples: how many.
        found: of each hash asked for, how many samples went for it.
        ledgers: self-hashes of every ledger that the directory had before.
    """

    samples: int
    found: dict[str, int]
    ledgers: list[str] = field(default_factory=list)


def forget(what: str, directory: str | os.PathLike[str]) -> Removal:
    """Remove every sample that `what` names and rewrite the ledger.

    Args:
        what: a hash (of a raw picture file, of a picture in the shards, or a `source_id`); a
            picture file; a folder of picture files; or a text file with one hash a line.
        directory: scrubbed shards.

    Raises:
        LedgerError: the directory does not pass.
        UsageError: `what` is none of these.
    """
    place = Path(directory).absolute()
    _finish(place)
    old = ledgers.read(place)
    ledgers.verify_shards(place, old)
    wanted = dict(_wanted(what, ledgers.policy_of(old)))
    found: Counter[str] = Counter()
    gone = [_matches(place / shard["file"], shard["offsets"], wanted) for shard in old["shards"]]
    for shard in gone:
        for _, named in shard.values():
            found.update(named)
    removed = sum(map(len, gone))
    before = [*old.get("replaces", []), old["self_hash"]]
    asked = {noted: found[noted] for noted in dict.fromkeys(wanted.values())}
    if removed:
        _rebuild(place, old, gone, {noted: n for noted, n in asked.items() if n}, before)
    return Removal(removed, asked, before)


def forgotten_hashes(ledger_or_directory: str | os.PathLike[str]) -> list[str]:
    """Return what was removed from a directory, so that scrubbing its source again leaves it out.

    Raises:
        LedgerError: there is no ledger that passes.
    """
    place = Path(ledger_or_directory)
    ledger = ledgers.read(place.parent if place.name == ledgers.NAME else place)
    return [str(removal["hash"]) for removal in ledger.get("removed", [])]


def _wanted(what: str, policy: Policy) -> Iterator[tuple[str, str]]:
    """Yield (a hash to look for, the hash that the removal is noted under)."""
    path = Path(what)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in PICTURE_SUFFIXES)
        if not files:
            raise UsageError(f"forget={what} is a folder without pictures")
        for file in files:
            yield from _picture(read_bytes(file), policy)
    elif path.is_file():
        data = read_bytes(path)
        if containers.sniff(data) is not None:
            yield from _picture(data, policy)
            return
        lines = data.decode("utf-8", errors="replace").split()
        if not lines or not all(_HASH.fullmatch(line.lower()) for line in lines):
            raise UsageError(f"forget={what} is neither a picture nor a list of hashes, one a line")
        yield from ((line.lower(), line.lower()) for line in lines)
    elif _HASH.fullmatch(what.lower()):
        yield what.lower(), what.lower()
    else:
        raise UsageError(
            f"forget={what} is no file and no hash: give a picture, a folder of pictures, a list of"
            " hashes, or one hash (`sha256sum PICTURE` makes it)"
        )


def _picture(data: bytes, policy: Policy) -> Iterator[tuple[str, str]]:
    raw = hashlib.sha256(data).hexdigest()
    yield raw, raw
    # The same pixels in another file, and shards from before origins were kept.
    clean = scrub_sample(Sample([data], [("user", "<image>")]), policy, key=bytes(32))
    if not isinstance(clean, Refusal):
        yield hashlib.sha256(clean[0].images[0]).hexdigest(), raw


def _matches(
    path: Path, offsets: list[int], wanted: Mapping[str, str]
) -> dict[int, tuple[Stored, set[str]]]:
    """Return the samples of a shard that are wanted, by their place in it."""
    found = {}
    for place, (_, block) in enumerate(_blocks(path, offsets)):
        stored = unpack(block)
        hashes = {stored.sample.source_id, *stored.sample.origins}
        hashes |= {hashlib.sha256(data).hexdigest() for data in stored.sample.images}
        if named := {wanted[item] for item in hashes if item in wanted}:
            found[place] = (stored, named)
    return found


def _blocks(path: Path, offsets: list[int]) -> Iterator[tuple[int, bytes]]:
    with (
        open(path, "rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        bounds = [*offsets, len(data) - len(END)]
        for start, end in zip(bounds, bounds[1:], strict=False):
            yield start, data[start:end]


def _rebuild(
    place: Path,
    old: Mapping[str, Any],
    gone: list[dict[int, tuple[Stored, set[str]]]],
    noted: Mapping[str, int],
    before: list[str],
) -> None:
    new = place.with_name(f".{place.name}.forget")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    totals: Counter[str] = Counter(
        {name: value for name, value in old["counts"].items() if isinstance(value, int)}
    )
    kinds = {
        name: Counter(value) for name, value in old["counts"].items() if isinstance(value, dict)
    }
    shards, changed = [], []
    for shard, matches in zip(old["shards"], gone, strict=True):
        if not matches:
            _link(place / shard["file"], new / shard["file"])
            shards.append(shard)
            continue
        for stored, _ in matches.values():
            sample = stored.sample
            texts = len(sample.turns) + 2 * len(sample.tags)
            gone_now = {"samples": 1, "images": len(sample.images), "turns": len(sample.turns)}
            totals.subtract({**gone_now, "texts": texts})
            for name in _KINDS:
                kinds.setdefault(name, Counter()).subtract(stored.audit.get(name, {}))
        if len(matches) < len(shard["offsets"]):
            shards.append(_without(place, new, shard, set(matches)))
            changed.append(shards[-1])
    audit_shards(new, changed, ledgers.policy_of(old))
    ledger = ledgers.build(
        old["policy"],
        {**totals, **{name: dict(+counts) for name, counts in kinds.items()}},
        shards,
        {"pictures": totals["images"], "texts": totals["texts"]},
        tools=old["tools"],
        removed=[
            *old.get("removed", []),
            *({"hash": item, "samples": number} for item, number in noted.items()),
        ],
        replaces=before,
    )
    ledgers.write(ledger, new)
    place.rename(place.with_name(f".{place.name}.forgotten"))
    _finish(place)


def _without(place: Path, new: Path, shard: Mapping[str, Any], matches: set[int]) -> dict[str, Any]:
    """Write a shard anew without the samples at these places; return its ledger entry."""
    offsets = []
    target = new / shard["file"]
    with open(target, "wb") as file:
        for number, (_, block) in enumerate(_blocks(place / shard["file"], shard["offsets"])):
            if number not in matches:
                offsets.append(file.tell())
                file.write(block)
        file.write(END)
        file.flush()
        os.fsync(file.fileno())
    size, sha256 = target.stat().st_size, ledgers.file_hash(target)
    return {"file": shard["file"], "offsets": offsets, "bytes": size, "sha256": sha256}


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copyfile(source, target)


def _finish(place: Path) -> None:
    """Put the new directory where the old one was, whatever a kill has left undone."""
    new, forgotten = (place.with_name(f".{place.name}.{x}") for x in ("forget", "forgotten"))
    if not place.exists() and forgotten.exists():
        whole = new if (new / ledgers.NAME).exists() else forgotten
        whole.rename(place)
        ledgers.sync_directory(place.parent)
    for left in (new, forgotten):
        shutil.rmtree(left, ignore_errors=True)


def trained_on(hashes: list[str], folder: str | os.PathLike[str]) -> list[str]:
    """List the runs, checkpoints and models under a folder that were trained on these ledgers."""
    found = []
    for name, facts_of in (("run.json", _run_facts), ("config.json", _model_facts)):
        for path in sorted(Path(folder).rglob(name)):
            try:
                used = facts_of(json.loads(path.read_text(encoding="utf-8")))
                if not set(used.values()) & set(hashes):
                    continue
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                continue
            found.append(str(path.parent))
            if name == "run.json":
                found += map(str, sorted(path.parent.glob("checkpoints/step-*")))
    return found


def _run_facts(record: Any) -> dict[str, str]:  # parsed JSON
    return dict(record["ledgers"])


def _model_facts(record: Any) -> dict[str, str]:  # parsed JSON
    return dict(record["training"]["ledgers"])
