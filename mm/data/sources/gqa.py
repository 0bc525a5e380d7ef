"""GQA: a questions file (such as testdev_balanced_questions.json) and a folder of pictures.

The questions are held in memory: the balanced files have up to 943,000.

Ref: Hudson and Manning 2019; cs.stanford.edu/people/dorarad/gqa
"""

import json
from collections.abc import Iterator
from typing import Any

from mm.data.sample import Record, question_details
from mm.data.sources import files
from mm.errors import UsageError

_TYPES = ("structural", "semantic")


class Source(files.Reader):
    """Read one sample per picture, with all its questions as independent pairs.

    Args:
        path: the questions file.
        root: folder of the pictures; `images` beside the file by default.
    """

    def __init__(self, path: str, root: str | None = None) -> None:
        self.path = files.need_file(path, "gqa", "a *_questions.json file")
        folder = str(self.path.parent / "images") if root is None else root
        self.root = files.need_directory(folder, "gqa", "pictures (source.root)")

    def records(self) -> Iterator[Record]:
        try:
            with files.open_json(self.path) as file:
                questions = json.load(file)
            pictures: dict[str, list[tuple[str, dict[str, Any]]]] = {}
            for number, item in questions.items():
                pictures.setdefault(str(item["imageId"]), []).append((number, item))
            records = [
                (picture, [_exchange(item) for _, item in asked], [_details(*one) for one in asked])
                for picture, asked in pictures.items()
            ]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise UsageError(
                f"{self.path} is no GQA questions file: it maps numbers to questions with imageId,"
                " question and answer"
            ) from None
        for index, (picture, exchanges, details) in enumerate(records):
            turns = files.question_turns(exchanges)
            tags = question_details(details)
            yield files.with_pictures(self.root, [f"{picture}.jpg"], turns, tags, index)


def _exchange(item: dict[str, Any]) -> tuple[str, str]:  # parsed JSON
    return files.text(item["question"]), files.text(item["answer"])


def _details(number: str, item: dict[str, Any]) -> dict[str, Any]:
    types = item.get("types") or {}
    return {"id": number, "tags": {name: str(types[name]) for name in _TYPES if types.get(name)}}
