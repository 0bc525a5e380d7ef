"""What readers share: finding their input, naming picture files, streaming JSON."""

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from mm.data.sample import Pending, Record, Sample, make_source_id
from mm.errors import UsageError

# By name only to tell pictures from side files; the door goes by content. Formats it refuses are
# listed too, so that such files are counted and not overlooked.
PICTURE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .apng .webp .gif .tif .tiff .bmp .dib".split()
    + ".heic .heif .hif .avif .jp2 .j2k .jxl".split()
)
_CHUNK = 1 << 16


class Reader(ABC):
    """Base of the readers. Iterating gives samples; `records` gives them before they are read."""

    @abstractmethod
    def records(self) -> Iterator[Record]:
        """Yield every record in a fixed order, with picture files named and not yet read."""

    def count(self) -> int | None:
        """Count the records without reading pictures; None where that would take too long."""
        return None

    def __iter__(self) -> Iterator[Sample]:
        return (record.load() for record in self.records())


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
) -> Record:
    """Make a record out of picture files, or one with a problem if a name leads outside.

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
    return Pending(str(root), names, turns, tags, identity)


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


def question_turns(exchanges: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Make the turns of a picture with independent questions and their answers."""
    turns: list[tuple[str, str]] = []
    for question, answer in exchanges:
        turns.append(("user", question if turns else "<image>" + question))
        turns.append(("assistant", answer))
    return turns


def text(value: Any) -> str:  # parsed JSON
    """Check that parsed JSON is a text.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(value, str):
        raise ValueError("not a text")
    return value


def open_json(path: Path) -> TextIO:
    """Open a JSON file; bytes that are no UTF-8 become half characters, which scrubbing refuses.

    So one damaged text costs its record and not the whole file.
    """
    return open(path, encoding="utf-8-sig", errors="surrogateescape")


def stream_json_array(file: TextIO) -> Iterator[Any]:  # parsed JSON values
    """Yield the items of a JSON array one by one, holding no more than one and a chunk of text.

    Raises:
        ValueError: the text is no JSON array, or ends early.
    """
    text = _Text(file)
    if text.next() != "[":
        raise ValueError("not a JSON array")
    text.take()
    yield from text.items()


def stream_json_lists(file: TextIO) -> Iterator[tuple[str, Any]]:  # parsed JSON values
    """Yield (key, item) for each item of each list in a JSON object, one by one.

    Values that are no lists are left out.

    Raises:
        ValueError: the text is no JSON object, or ends early.
    """
    text = _Text(file)
    if text.next() != "{":
        raise ValueError("not a JSON object")
    text.take()
    if text.next() == "}":
        return
    while True:
        key = text.value()
        if not isinstance(key, str) or text.next() != ":":
            raise ValueError("malformed JSON object")
        text.take()
        if text.next() == "[":
            text.take()
            for item in text.items():
                yield key, item
        else:
            text.value()
        if (after := text.next()) == "}":
            return
        if after != ",":
            raise ValueError("malformed JSON object")
        text.take()


class _Text:
    """JSON text read in chunks."""

    def __init__(self, file: TextIO) -> None:
        self.file, self.buffer = file, ""
        self.decoder = json.JSONDecoder()

    def next(self) -> str:
        """Return the next character that is no space, without taking it; '' at the end."""
        while not (stripped := self.buffer.lstrip("\ufeff \t\r\n")):
            if not (more := self.file.read(_CHUNK)):
                return ""
            self.buffer = more
        self.buffer = stripped
        return stripped[0]

    def take(self) -> None:
        """Take the next character."""
        self.buffer = self.buffer[1:]

    def value(self) -> Any:  # a parsed JSON value
        """Take one whole value."""
        self.next()
        while True:
            try:
                item, end = self.decoder.raw_decode(self.buffer)
                rest = self.buffer[end:].lstrip()
                if rest:  # else a number could go on
                    self.buffer = rest
                    return item
            except ValueError:
                pass
            more = self.file.read(max(_CHUNK, len(self.buffer)))
            if not more:
                raise ValueError("the JSON array ends early or is malformed")
            self.buffer += more

    def items(self) -> Iterator[Any]:  # parsed JSON values
        """Take the rest of an array, after its opening bracket."""
        if self.next() == "]":
            self.take()
            return
        while True:
            yield self.value()
            after = self.next()
            if after not in (",", "]"):
                raise ValueError("malformed JSON array")
            self.take()
            if after == "]":
                return
