"""Parquet files, as data sets on hubs have them: a column of pictures and columns of text.

A picture is the column's bytes, a struct with `bytes` or `path`, a path, or a list of these. Rows
are read a few at a time. Needs `pip install 'mm[parquet]'`.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mm.data.sample import Record, Sample, make_source_id
from mm.data.sources import files
from mm.errors import UsageError

_ROWS = 16
_ROLES = {"human": "user", "gpt": "assistant"}


class Source(files.Reader):
    """Read one sample per row.

    Args:
        path: a Parquet file, or a folder of them.
        picture: the column of pictures.
        caption: a column with a caption or a list of captions; or give
        turns: a column with a conversation: a list of {role or from, content or value} or of
            [role, text] pairs, or such a list as JSON; or
        question, answer: two columns of text (lists for several independent questions).
        tags: columns whose values become tags.
        root: folder that paths in the picture column start from; the file's own by default.
        prompt: what the user asks in front of each caption.
    """

    def __init__(
        self,
        path: str,
        picture: str = "image",
        caption: str | None = None,
        turns: str | None = None,
        question: str | None = None,
        answer: str | None = None,
        tags: list[str] | tuple[str, ...] = (),
        root: str | None = None,
        prompt: str = "Describe this picture.",
    ) -> None:
        place = Path(path)
        if place.is_dir():
            self.paths = sorted(place.glob("**/*.parquet"))
        else:
            self.paths = [files.need_file(path, "parquet", "a Parquet file or a folder of them")]
        if not self.paths:
            raise UsageError(f"source.path={path} holds no .parquet file; source=parquet needs one")
        ways = [caption is not None, turns is not None, question is not None and answer is not None]
        if sum(ways) != 1:
            raise UsageError(
                "say where the words are: source.caption=COLUMN, source.turns=COLUMN, or both"
                f" source.question=COLUMN and source.answer=COLUMN; {self.paths[0].name} has the"
                f" columns {', '.join(self._names(self.paths[0]))}"
            )
        self.picture, self.caption, self.turns = picture, caption, turns
        self.question, self.answer = question, answer
        self.tags, self.prompt = tuple(tags), prompt
        self.root = None if root is None else files.need_directory(root, "parquet", "pictures")
        words = (caption, turns, question, answer)
        self.columns = [picture, *(name for name in words if name is not None), *self.tags]
        for file in self.paths:
            names = self._names(file)
            for name in self.columns:
                if name not in names:
                    raise UsageError(
                        f"{file} has no column {name!r}; it has {', '.join(names)}: name the"
                        " columns with source.picture=, source.caption=, ..."
                    )

    def records(self) -> Iterator[Record]:
        index = 0
        for path in self.paths:
            try:
                batches = _open(path).iter_batches(_ROWS, columns=self.columns, use_threads=False)
                for batch in batches:
                    for row in batch.to_pylist():
                        yield self._record(path, row, index)
                        index += 1
            except (OSError, ValueError, MemoryError):  # Arrow's errors derive from these
                yield files.broken("truncated", path.name, index)
                index += 1

    def count(self) -> int:
        try:
            return sum(int(_open(path).metadata.num_rows) for path in self.paths)
        except (OSError, ValueError):
            return 0  # reading says what is wrong

    def _names(self, path: Path) -> list[str]:
        try:
            return [str(name) for name in _open(path).schema_arrow.names]
        except UsageError:
            raise
        except (OSError, ValueError):
            raise UsageError(f"{path} is no whole Parquet file: download it again") from None

    def _record(self, path: Path, row: dict[str, Any], index: int) -> Record:
        try:
            pictures = row[self.picture]
            pictures = pictures if isinstance(pictures, list) else [pictures]
            turns = self._turns(row, len(pictures))
            tags = files.text_tags({name: row[name] for name in self.tags})
            data = [_bytes(item) for item in pictures]
        except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
            return files.broken("bad-record", path.name, index)
        if all(isinstance(item, bytes) for item in data):
            found = [item for item in data if isinstance(item, bytes)]
            return Sample(found, turns, tags, make_source_id(path.name, index))
        if any(isinstance(item, bytes) for item in data):
            return files.broken("bad-record", path.name, index)
        names = [os.fspath(item) for item in data if isinstance(item, str)]
        return files.with_pictures(self.root or path.parent, names, turns, tags, index)

    def _turns(self, row: dict[str, Any], num_pictures: int) -> list[tuple[str, str]]:
        if self.caption is not None:
            captions = row[self.caption]
            turns = files.caption_turns(
                self.prompt, [captions] if isinstance(captions, str) else captions or []
            )
        elif self.question is not None and self.answer is not None:
            asked, said = row[self.question], row[self.answer]
            asked, said = (x if isinstance(x, list) else [x] for x in (asked, said))
            turns = []
            for question, answer in zip(asked, said, strict=True):
                if not (isinstance(question, str) and isinstance(answer, str)):
                    raise ValueError
                turns += [("user", question), ("assistant", answer)]
        else:
            value = row[str(self.turns)]
            turns = [
                _turn(item) for item in (json.loads(value) if isinstance(value, str) else value)
            ]
        if turns and not any("<image>" in words for _, words in turns):
            role, words = turns[0]
            turns[0] = (role, "<image>" * num_pictures + words.removeprefix("<image>"))
        return turns


def _open(path: Path) -> Any:  # pyarrow.parquet.ParquetFile
    try:
        from pyarrow import parquet
    except ImportError:
        raise UsageError("source=parquet needs pyarrow: `pip install 'mm[parquet]'`") from None
    return parquet.ParquetFile(path, memory_map=True)


def _bytes(item: Any) -> bytes | str:  # a cell, or an item of one
    """Return a picture's bytes, or its path where the column holds paths."""
    if isinstance(item, dict):
        item = item.get("bytes") or item.get("path")
    if not isinstance(item, bytes | str):
        raise ValueError
    return item


def _turn(item: Any) -> tuple[str, str]:  # an item of a conversation
    if isinstance(item, dict):
        role = item["role"] if "role" in item else item["from"]
        words = item["content"] if "content" in item else item["value"]
    else:
        role, words = item
    if not (isinstance(role, str) and isinstance(words, str)):
        raise ValueError
    return _ROLES.get(role, role), words
