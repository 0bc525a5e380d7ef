"""JSON lines: {"images": [paths], "turns": [["user", "<image>..."], ...], "tags": {}} a line."""

import json
from collections.abc import Iterator

from mm.data.sample import Record
from mm.data.sources import files


class Source(files.Reader):
    """Read one record a line; paths are relative to the file's folder or to `root`.

    Args:
        path: the JSON lines file.
        root: folder of the pictures.
    """

    def __init__(self, path: str, root: str | None = None) -> None:
        self.path = files.need_file(path, "jsonl", "a file with one JSON object a line")
        self.root = (
            self.path.parent if root is None else files.need_directory(root, "jsonl", "root")
        )

    def records(self) -> Iterator[Record]:
        with open(self.path, "rb") as file:
            for index, line in enumerate(file):
                if line.strip():
                    yield self._sample(index, line)

    def count(self) -> int:
        with open(self.path, "rb") as file:
            return sum(1 for line in file if line.strip())

    def _sample(self, index: int, line: bytes) -> Record:
        try:
            record = json.loads(line.decode("utf-8-sig"))
            names = record.get("images", [])
            if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
                raise ValueError
            turns = files.text_pairs(record.get("turns", []))
            tags = files.text_tags(record.get("tags", {}))
        except (ValueError, AttributeError, RecursionError):
            return files.broken("bad-record", index)
        return files.with_pictures(self.root, names, turns, tags, index)
