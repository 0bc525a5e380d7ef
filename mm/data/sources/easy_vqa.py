"""easy-VQA: 5,000 pictures of one coloured shape and 48,248 questions, with its official split.

The data come with the package of that name (MIT licence); only its files are used, not its code.

Ref: github.com/vzhou842/easy-VQA
"""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path

from mm.data.sample import Record
from mm.data.sources import files
from mm.errors import UsageError

SPLITS = ("train", "test")


class Source(files.Reader):
    """Read one sample per picture, with all its questions as independent pairs.

    Args:
        path: the package's data folder; found by itself if empty.
        split: train or test.
    """

    def __init__(self, path: str = "", split: str = "train") -> None:
        if split not in SPLITS:
            raise UsageError(f"source.split is {split!r}; easy-VQA has {' and '.join(SPLITS)}")
        folder = files.need_directory(path, "easy_vqa", "easy-VQA's data") if path else _data()
        self.root = folder / split
        self.split = split
        self.questions = files.need_file(
            str(self.root / "questions.json"), "easy_vqa", "questions.json and images/"
        )

    def records(self) -> Iterator[Record]:
        turns: dict[int, list[tuple[str, str]]] = {}
        try:
            for question, answer, number in json.loads(self.questions.read_text(encoding="utf-8")):
                pair = turns.setdefault(int(number), [])
                marker = "" if pair else "<image>"
                pair += [("user", marker + str(question)), ("assistant", str(answer))]
        except (ValueError, TypeError):
            raise UsageError(
                f"{self.questions} is malformed: `pip install --force-reinstall easy-vqa`"
            ) from None
        tags = {"task": "easy-vqa", "split": self.split}
        for number in sorted(turns):
            name = f"images/{number}.png"
            yield files.with_pictures(self.root, [name], turns[number], dict(tags), number)


def _data() -> Path:
    spec = importlib.util.find_spec("easy_vqa")  # found, not imported
    places = list(spec.submodule_search_locations or ()) if spec else []
    if not places:
        raise UsageError("source=easy_vqa needs its data: `pip install easy-vqa`")
    return Path(places[0]) / "data"
