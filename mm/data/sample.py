"""The one record type that every reader yields."""

import hashlib
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Sample:
    """Pictures with a conversation about them.

    Args:
        images: encoded pictures: raw files from a source, pixels only from a shard.
        turns: (role, text) pairs, with one `<image>` marker per picture at its place.
        tags: slice labels for evaluation, such as {"split": "test"}.
        source_id: hash that tells records apart, see `make_source_id`.
        problem: why a source could not read this record (a `DoorError` reason or similar);
            scrubbing counts such a record and leaves it out.
    """

    images: list[bytes] = field(default_factory=list)
    turns: list[tuple[str, str]] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    source_id: str = ""
    problem: str = ""


def make_source_id(*parts: str | int) -> str:
    """Hash where a record comes from (32 hex digits), so that no path enters a shard."""
    name = "\0".join(map(str, parts)).encode("utf-8", "surrogatepass")
    return hashlib.sha256(name).hexdigest()[:32]
