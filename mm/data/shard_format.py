"""How a sample lies in a shard: its pictures and one JSON file, as members of a tar.

The members of sample 12 are `000000012.0.png`, `000000012.1.png`, ..., `000000012.json`. Headers
carry no time, user or mode of their own, so that equal samples give equal bytes.
"""

import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mm.data.sample import Sample
from mm.privacy.scrub import Found

EXTENSIONS = {"png": "png", "jpeg": "jpg", "webp": "webp"}
_BLOCK = tarfile.BLOCKSIZE
END = b"\0" * (2 * _BLOCK)


@dataclass(frozen=True)
class Stored:
    """A sample as a shard holds it, with its number and what was removed from it."""

    number: int
    sample: Sample
    audit: Mapping[str, Mapping[str, int]]


def pack(number: int, sample: Sample, kinds: list[str], found: Found) -> bytes:
    """Return the bytes of a sample in a shard.

    Args:
        number: its number in the directory.
        sample: a scrubbed sample.
        kinds: the format of each picture: png, jpeg or webp.
        found: what was removed from it.
    """
    key = f"{number:09d}"
    names = [f"{position}.{EXTENSIONS[kind]}" for position, kind in enumerate(kinds)]
    record = {
        "turns": sample.turns,
        "tags": sample.tags,
        "source_id": sample.source_id,
        "images": names,
        "origins": sample.origins,
        "audit": {"metadata": found.metadata, "text": found.text, "visible": found.visible},
    }
    words = json.dumps(record, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    members = [*zip(names, sample.images, strict=True), ("json", words.encode())]
    return b"".join(_member(f"{key}.{name}", data) for name, data in members)


def unpack(block: bytes) -> Stored:
    """Rebuild a sample from its stretch of a tar file."""
    members: dict[str, bytes] = {}
    position, key = 0, "0"
    while position < len(block):
        info = tarfile.TarInfo.frombuf(
            block[position : position + _BLOCK], "ascii", "surrogateescape"
        )
        start = position + _BLOCK
        key, _, name = info.name.partition(".")
        members[name] = block[start : start + info.size]
        position = start + info.size + -info.size % _BLOCK
    record: dict[str, Any] = json.loads(members["json"])
    sample = Sample(
        images=[members[name] for name in record["images"]],
        turns=[(role, words) for role, words in record["turns"]],
        tags=record["tags"],
        source_id=record["source_id"],
        origins=record.get("origins", []),
    )
    return Stored(int(key), sample, record["audit"])


def _member(name: str, data: bytes) -> bytes:
    """Return one tar member: a header of fixed fields, the data, zeros to a whole block."""
    info = tarfile.TarInfo(name)
    info.size = len(data)  # everything else is TarInfo's constant default: mtime 0, no names
    return info.tobuf(tarfile.USTAR_FORMAT) + data + b"\0" * (-len(data) % _BLOCK)
