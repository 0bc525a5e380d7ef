"""A folder of pictures, with captions in side files.

Captions are looked for beside each picture (`NAME.txt`; `NAME.json` with `turns` and `tags`), and
in the folder's own `captions.txt` (a line per caption: file name, a tab, the caption; or CSV under
the header `image,caption`) or `captions.json` ({file name: caption or list of captions}).
"""

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path

from mm.data.sample import Record
from mm.data.sources import files
from mm.errors import UsageError

_MAX_SIDE_BYTES = 2**20


class Source(files.Reader):
    """Read every picture under a folder, in the order of names.

    Args:
        path: the folder; the folders in it are read too.
        prompt: what the user asks in front of each caption.
    """

    def __init__(self, path: str, prompt: str = "Describe this picture.") -> None:
        self.root = files.need_directory(path, "folder", "a folder of pictures")
        self.prompt = prompt

    def records(self) -> Iterator[Record]:
        captions = self._captions()
        for index, picture in enumerate(self._pictures()):
            if picture is None:
                yield files.broken("unreadable", "folder", index)
            else:
                yield self._sample(picture, captions, index)

    def count(self) -> int:
        return sum(1 for _ in self._pictures())

    def _pictures(self) -> Iterator[Path | None]:
        """Yield every picture in the order of names; None for a folder that cannot be listed."""
        closed: list[OSError] = []
        for folder, folders, names in os.walk(self.root, onerror=closed.append):
            folders.sort()
            for name in sorted(names):
                picture = Path(folder, name)
                if picture.suffix.lower() in files.PICTURE_SUFFIXES:
                    yield picture
            while closed:
                closed.pop()
                yield None
        yield from (None for _ in closed)

    def _sample(self, picture: Path, captions: dict[str, list[str]], index: int) -> Record:
        name = picture.relative_to(self.root).as_posix()
        tags: dict[str, str] = {}
        try:
            if (side := picture.with_suffix(".json")).is_file() and side.stem != "captions":
                record = json.loads(_text(side))
                turns = files.text_pairs(record.get("turns", []))
                tags = files.text_tags(record.get("tags", {}))
            elif (side := picture.with_suffix(".txt")).is_file() and side.stem != "captions":
                turns = files.caption_turns(self.prompt, [_text(side)])
            else:
                turns = files.caption_turns(self.prompt, captions.get(name, []))
        except (OSError, ValueError, AttributeError, RecursionError):
            return files.broken("bad-record", name, index)
        return files.with_pictures(self.root, [name], turns, tags, index)

    def _captions(self) -> dict[str, list[str]]:
        """Read the folder's own caption files: texts only, small beside the pictures."""
        found: dict[str, list[str]] = {}
        for name, read in (("captions.json", _from_json), ("captions.txt", _from_lines)):
            path = self.root / name
            try:
                if path.is_file():
                    read(path, found)
            except (OSError, ValueError, TypeError, AttributeError, csv.Error):
                raise UsageError(
                    f"{path} is malformed: captions.json maps a file name to a caption or a list,"
                    " captions.txt has a file name, a tab and a caption on each line"
                ) from None
        return found


def _from_json(path: Path, found: dict[str, list[str]]) -> None:
    with files.open_json(path) as file:
        content = json.load(file)
    for name, words in content.items():
        found[name] = [words] if isinstance(words, str) else list(words)
        if not all(isinstance(item, str) for item in found[name]):
            raise ValueError


def _from_lines(path: Path, found: dict[str, list[str]]) -> None:
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        if file.readline().strip().replace(" ", "") == "image,caption":
            rows = csv.reader(file)
        else:
            file.seek(0)
            rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        for row in rows:
            if row:
                name, words = row
                found.setdefault(name.strip(), []).append(words)


def _text(path: Path) -> str:
    with open(path, "rb") as file:
        data = file.read(_MAX_SIDE_BYTES + 1)
    if len(data) > _MAX_SIDE_BYTES:
        raise ValueError("side file too large")
    return data.decode("utf-8-sig")
