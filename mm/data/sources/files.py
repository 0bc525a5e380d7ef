"""What readers share: finding their input and reading picture files as bytes."""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from mm.data.sample import Sample, make_source_id
from mm.errors import UsageError
from mm.privacy import door
from mm.privacy.errors import DoorError

# By name only to tell pictures from side files; the door goes by content. Formats it refuses are
# listed too, so that such files are counted and not overlooked.
PICTURE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .gif .tif .tiff .bmp .dib .heic .heif .avif .jp2 .jxl".split()
)
_CHUNK = 1 << 16


def need_file(path: str, source: str, what: str) -> Path:
    """Return `path` if it is a file; `what` says which."""
    place = Path(path)
    if not place.is_file():
        raise UsageError(f"source.path={path} is no file; source={source} reads {what}")
    return place


def need_directory(path: str, source: str, what: str) -> Path:
    """Return `path` if it is a directory; `what` says of what."""
    place = Path(path)
    if not place.is_dir():
        raise UsageError(f"source.path={path} is no directory; source={source} reads {what}")
    return place


def with_pictures(
    root: Path,
    names: Iterable[str],
    turns: list[tuple[str, str]],
    tags: dict[str, str],
    index: int,
) -> Sample:
    """Make a sample out of picture files, or one with a problem if a file cannot be read.

    Args:
        root: folder that relative names start from.
        names: picture files as the record names them; one outside `root` is a problem.
        turns: the conversation.
        tags: slice labels.
        index: number of the record in its source.
    """
    names = list(names)
    identity = make_source_id(os.path.basename(os.path.abspath(root)), *names, index)
    if not all(_inside(root, name) for name in names):
        return broken("outside-root", identity)  # a stranger's list must not name private files
    try:
        images = [door.read_bytes(root / name) for name in names]
    except DoorError as error:
        return broken(error.reason, identity)
    return Sample(images, turns, tags, identity)


def _inside(root: Path, name: str) -> bool:
    top = os.path.abspath(root)
    return os.path.commonpath([top, os.path.abspath(os.path.join(top, name))]) == top


def broken(reason: str, *identity: str | int) -> Sample:
    """Make the sample that stands for a record which cannot be read."""
    return Sample(source_id=make_source_id(*identity), problem=reason)


def text_pairs(value: Any) -> list[tuple[str, str]]:  # parsed JSON
    """Check that parsed JSON is a list of (role, text) pairs.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(value, list):
        raise ValueError("turns must be a list")
    pairs = []
    for item in value:
        if not (
            isinstance(item, list) and len(item) == 2 and all(isinstance(x, str) for x in item)
        ):
            raise ValueError("a turn must be [role, text]")
        pairs.append((item[0], item[1]))
    return pairs


def text_tags(value: Any) -> dict[str, str]:  # parsed JSON
    """Check that parsed JSON maps strings to plain values, and return these as strings."""
    if not isinstance(value, dict):
        raise ValueError("tags must be a mapping")
    if any(isinstance(item, dict | list) for item in value.values()):
        raise ValueError("a tag must be a plain value")
    return {key: item if isinstance(item, str) else json.dumps(item) for key, item in value.items()}


def caption_turns(prompt: str, captions: Iterable[str]) -> list[tuple[str, str]]:
    """Make the turns of a captioned picture: one independent pair per caption.

    Without a caption there is only the question.
    """
    answers = [words.strip() for words in captions]
    turns = [("user", "<image>" + prompt)]
    for number, words in enumerate(answers):
        if number:
            turns.append(("user", prompt))
        turns.append(("assistant", words))
    return turns


def stream_json_array(file: TextIO) -> Iterator[Any]:  # parsed JSON values
    """Yield the items of a JSON array one by one, holding no more than one and a chunk of text.

    Raises:
        ValueError: the text is no JSON array, or ends early.
    """
    decoder = json.JSONDecoder()
    buffer = file.read(_CHUNK).lstrip("\ufeff \t\r\n")
    if not buffer.startswith("["):
        raise ValueError("not a JSON array")
    buffer = buffer[1:]
    first = True
    while True:
        buffer = buffer.lstrip()
        if buffer.startswith("]") and first:
            return
        try:
            item, end = decoder.raw_decode(buffer)
            rest = buffer[end:].lstrip()
            if not rest:  # a number could go on, and what follows must be seen
                raise ValueError
        except ValueError:
            more = file.read(max(_CHUNK, len(buffer)))
            if not more:
                raise ValueError("the JSON array ends early or is malformed") from None
            buffer += more
            continue
        yield item
        first = False
        if rest[0] not in ",]":
            raise ValueError("malformed JSON array")
        if rest[0] == "]":
            return
        buffer = rest[1:]
