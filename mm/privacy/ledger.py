"""The ledger of a scrubbed directory: what was done, under which policy, to which bytes.

A ledger counts and never quotes: no path, no text and no value of a source is in it. It hashes
every shard and itself, so that a change of either is seen when the shards are opened. It is no
signature: who can rewrite the shards can rewrite the ledger too.
"""

import hashlib
import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mm.privacy import visible
from mm.privacy.errors import LedgerError, PrivacyError
from mm.privacy.policy import Policy, digest, from_dict

NAME = "ledger.json"
FORMAT, VERSION = "mm-shards", 2
READABLE = (1, 2)  # 1 had three text rules, no origins and no removals
_TOOLS = ("mm", "pillow", "phonenumbers", "python-stdnum")


def build(
    policy: Mapping[str, Any],  # as a ledger holds it
    counts: Mapping[str, Any],  # nested counts by kind
    shards: Sequence[Mapping[str, Any]],  # file, bytes, sha256, offsets
    audit: Mapping[str, int],
    *,
    tools: Mapping[str, str],
    removed: Sequence[Mapping[str, Any]] = (),  # removal, samples
    replaces: Sequence[str] = (),
) -> dict[str, Any]:
    """Assemble a ledger with its self-hash.

    Args:
        policy: the policy that every sample went through.
        counts: samples, images, turns, quarantined, metadata, text and visible, by kind.
        shards: per tar file its name, size, SHA-256 and the offset of every sample.
        audit: pictures and texts that were read back from the finished shards and checked.
        tools: versions of what took part, see `tool_versions`.
        removed: what was taken out later, by hash.
        replaces: self-hashes of the ledgers from before each removal, oldest first.
    """
    ledger = {
        "format": FORMAT,
        "version": VERSION,
        "policy": dict(policy),
        "policy_hash": digest(dict(policy)),
        "tools": dict(tools),
        "counts": dict(counts),
        "audit": dict(audit),
        "shards": [dict(shard) for shard in shards],
        "removed": [dict(removal) for removal in removed],
        "replaces": list(replaces),
    }
    return {**ledger, "self_hash": digest(ledger)}


def tool_versions(policy: Policy) -> dict[str, str]:
    """Name the versions of what takes part in scrubbing under a policy."""
    found = {"python": platform.python_version()}
    for name in _TOOLS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found | visible.versions(policy)


def policy_of(ledger: Mapping[str, Any]) -> Policy:
    """Return the policy of a ledger that `read` has checked.

    Kinds of text that were not known when it was written count as kept.

    Raises:
        PrivacyError: it names what this version does not know.
    """
    values = dict(ledger["policy"])
    if "text_rules" in values:  # written by version 1
        values["text"] = dict.fromkeys(values.pop("text_rules"), "mask")
    return from_dict({**values, "text_default": "keep"})


def write(ledger: Mapping[str, Any], directory: Path) -> None:
    """Write the ledger file; the directory is renamed into place afterwards by its writer."""
    with open(directory / NAME, "w", encoding="utf-8") as file:
        file.write(_words(ledger))
        file.flush()
        os.fsync(file.fileno())


def sync_directory(directory: Path) -> None:
    """Make a rename in a directory last through a power failure."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a directory's ledger and check everything but the shards' bytes.

    Raises:
        LedgerError: no ledger, an edited one, or one of an unaudited directory. The message names
            the command that makes a directory which passes.
    """
    place = Path(directory)
    if not place.is_dir():
        raise LedgerError(f"{place} is no directory of shards: {fix(place)}")
    try:
        raw = (place / NAME).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise LedgerError(f"{place} was never scrubbed (no {NAME}): {fix(place)}") from None
    except (OSError, UnicodeDecodeError):
        raise LedgerError(f"{place / NAME} cannot be read: {fix(place)}") from None
    try:
        ledger = json.loads(raw)
    except (ValueError, RecursionError):
        ledger = None
    if not isinstance(ledger, dict) or ledger.get("format") != FORMAT:
        raise LedgerError(f"{place / NAME} is not a ledger of scrubbed shards: {fix(place)}")
    if ledger.get("version") not in READABLE:
        raise LedgerError(
            f"{place / NAME} has version {ledger.get('version')!r}, not {VERSION}: {fix(place)}"
        )
    bare = {key: value for key, value in ledger.items() if key != "self_hash"}
    if ledger.get("self_hash") != digest(bare):
        raise LedgerError(f"{place / NAME} was edited after scrubbing: {fix(place)}")
    try:
        audit, counts, shards = ledger["audit"], ledger["counts"], ledger["shards"]
        known = digest(ledger["policy"]) == ledger["policy_hash"]
        policy = ledger["policy"]
        audited = audit["pictures"] == counts["images"] and audit["texts"] == counts["texts"]
        inside = all(Path(shard["file"]).name == shard["file"] for shard in shards)
        complete = sum(len(shard["offsets"]) for shard in shards) == counts["samples"]
        if not isinstance(policy, dict):
            raise TypeError
    except (KeyError, TypeError):
        raise LedgerError(f"{place / NAME} lacks what a ledger must say: {fix(place)}") from None
    try:
        policy_of(ledger)
    except PrivacyError:
        raise LedgerError(
            f"{place / NAME} names a policy that this version does not know: {fix(place)}"
        ) from None
    if not inside:
        raise LedgerError(f"{place / NAME} names a shard outside its directory: {fix(place)}")
    if not known:
        raise LedgerError(f"{place / NAME} names another policy than it used: {fix(place)}")
    if not audited or not complete:
        raise LedgerError(f"{place} was not audited to the end: {fix(place)}")
    if raw != _words(ledger):  # a byte that means nothing to JSON
        raise LedgerError(f"{place / NAME} was edited after scrubbing: {fix(place)}")
    return ledger


def _words(ledger: Mapping[str, Any]) -> str:
    words = json.dumps(ledger, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return words + "\n"


def verify_shards(directory: str | os.PathLike[str], ledger: Mapping[str, Any]) -> None:
    """Check every shard's bytes against the ledger, and that no other tar lies beside them.

    Raises:
        LedgerError: a shard is missing, changed, or not in the ledger.
    """
    place = Path(directory)
    names = {str(shard["file"]) for shard in ledger["shards"]}
    for extra in sorted(path.name for path in place.glob("*.tar") if path.name not in names):
        raise LedgerError(f"{place / extra} is not in the ledger: {fix(place)}")
    for shard in ledger["shards"]:
        path = place / shard["file"]
        if not path.is_file():
            raise LedgerError(f"{path} is missing: {fix(place)}")
        if path.stat().st_size != shard["bytes"] or file_hash(path) != shard["sha256"]:
            raise LedgerError(f"{path} was changed after scrubbing: {fix(place)}")


def file_hash(path: Path) -> str:
    """Return the SHA-256 (hex) of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fix(place: Path) -> str:
    """Name the command that turns `place` into shards that pass, as far as can be guessed."""
    if not place.exists():
        return (
            f"run `python scripts/scrub.py source=FORMAT source.path=PATH output={place}` first"
            " (--help lists the formats)"
        )
    source, path = "folder", place
    if place.suffix == ".jsonl":
        source = "jsonl"
    elif place.suffix == ".tar" or (place.is_dir() and any(place.glob("*.tar"))):
        source = "webdataset"
    elif place.is_dir() and (lines := sorted(place.glob("*.jsonl"))):
        source, path = "jsonl", lines[0]
    return (
        f"run `python scripts/scrub.py source={source} source.path={path}"
        f" output={place.parent / (place.stem + '-scrubbed')}` and use its output"
    )
