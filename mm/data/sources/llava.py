"""LLaVA's JSON: a list of {"id", "image": file or files, "conversations": [{"from", "value"}]}."""

from collections.abc import Iterator
from typing import Any

from mm.data.sample import Record
from mm.data.sources import files
from mm.errors import UsageError

_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}


class Source(files.Reader):
    """Read the records one by one, without loading the list.

    Args:
        path: the JSON file.
        root: folder that picture names start from; the file's own by default.
    """

    def __init__(self, path: str, root: str | None = None) -> None:
        self.path = files.need_file(path, "llava", "a JSON list with conversations")
        self.root = self.path.parent
        if root is not None:
            self.root = files.need_directory(root, "llava", "pictures (source.root)")

    def records(self) -> Iterator[Record]:
        with files.open_json(self.path) as file:
            try:
                for index, record in enumerate(files.stream_json_array(file)):
                    yield self._sample(index, record)
            except (ValueError, RecursionError):
                raise UsageError(
                    f"{self.path} is not a whole JSON list: export it again, or use source=jsonl"
                    " for one record a line"
                ) from None

    def count(self) -> int:
        with files.open_json(self.path) as file:
            try:
                return sum(1 for _ in files.stream_json_array(file))
            except (ValueError, RecursionError):
                return 0  # reading says what is wrong

    def _sample(self, index: int, record: Any) -> Record:  # parsed JSON
        try:
            names = record.get("image", [])
            names = [names] if isinstance(names, str) else names
            if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
                raise ValueError
            turns = []
            for turn in record["conversations"]:
                if not isinstance(turn["value"], str):
                    raise ValueError
                turns.append((_ROLES[turn["from"]], turn["value"]))
        except (KeyError, TypeError, ValueError, AttributeError):
            return files.broken("bad-record", index)
        return files.with_pictures(self.root, names, turns, {}, index)
