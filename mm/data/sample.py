"""The one record type that every reader yields, and a record whose pictures are still in files."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mm.privacy.door import Limits, read_bytes
from mm.privacy.errors import DoorError


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
        origins: SHA-256 (hex) of the raw file of each picture, so that a person who asks for a
            picture's removal can be helped; scrubbing fills them in.
    """

    images: list[bytes] = field(default_factory=list)
    turns: list[tuple[str, str]] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    source_id: str = ""
    problem: str = ""
    origins: list[str] = field(default_factory=list)

    def load(self, max_bytes: int = Limits.max_bytes) -> "Sample":
        """Return the sample: its pictures are read already."""
        return self


@dataclass(frozen=True)
class Pending:
    """A record that names its picture files; cheap to make, to skip and to send to a worker.

    Args:
        root: folder of the pictures.
        names: picture files in it, in the order of the markers.
        turns, tags, source_id: as in `Sample`.
    """

    root: str
    names: list[str]
    turns: list[tuple[str, str]]
    tags: dict[str, str]
    source_id: str

    def load(self, max_bytes: int = Limits.max_bytes) -> Sample:
        """Read the picture files; a sample with a `problem` if one cannot be read."""
        try:
            images = [read_bytes(os.path.join(self.root, name), max_bytes) for name in self.names]
        except DoorError as error:
            return Sample(source_id=self.source_id, problem=error.reason)
        return Sample(images, self.turns, self.tags, self.source_id)


Record = Sample | Pending
DETAILS = "questions"  # the tag of a sample that `question_details` makes


def make_source_id(*parts: str | int) -> str:
    """Hash where a record comes from (32 hex digits), so that no path enters a shard."""
    name = "\0".join(map(str, parts)).encode("utf-8", "surrogatepass")
    return hashlib.sha256(name).hexdigest()[:32]


def question_details(questions: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Make the tag by which a source says more of its questions, for evaluation.

    Args:
        questions: for each, in order, any of `id`; `answers` (all that are accepted) and `choices`,
            lists of texts; `tags`, a mapping of texts.
    """
    return {DETAILS: json.dumps(list(questions), ensure_ascii=False)}
