"""POPE: questions whether a thing is in a picture, with absent things picked in three ways.

Ref: Li et al. 2023, github.com/AoiDragon/POPE: coco_pope_random.json, coco_pope_popular.json and
coco_pope_adversarial.json, a JSON object a line, about pictures of COCO's val2014.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mm.data.sample import Record, question_details
from mm.data.sources import files
from mm.errors import UsageError

SAMPLINGS = ("random", "popular", "adversarial")


class Source(files.Reader):
    """Read one sample per picture, with its questions of all samplings as independent pairs.

    Args:
        path: one of the files, or the folder of them. Where a file's name holds its sampling, this
            becomes a tag of its questions.
        root: folder of the pictures; the files' own by default.
    """

    def __init__(self, path: str, root: str | None = None) -> None:
        place = Path(path)
        if place.is_dir():
            found = [(name, sorted(place.glob(f"*{name}*.json*"))) for name in SAMPLINGS]
            self.files = [(name, path) for name, paths in found for path in paths]
            if not self.files:
                raise UsageError(
                    f"source.path={path} holds no POPE file such as coco_pope_random.json"
                )
        else:
            one = files.need_file(path, "pope", "a coco_pope_*.json file or a folder of them")
            names = [name for name in SAMPLINGS if name in one.name]
            self.files = [(names[0] if names else "", one)]
        self.root = self.files[0][1].parent
        if root is not None:
            self.root = files.need_directory(root, "pope", "pictures (source.root)")

    def records(self) -> Iterator[Record]:
        pictures: dict[str, list[tuple[tuple[str, str], dict[str, Any]]]] = {}
        for sampling, path in self.files:
            try:
                with files.open_json(path) as file:
                    for line in filter(str.strip, file):
                        item = json.loads(line)
                        label = files.text(item["label"])
                        if label not in ("yes", "no"):
                            raise ValueError
                        number = f"{sampling}/{item['question_id']}".lstrip("/")
                        tags = {"present": label, **({"sampling": sampling} if sampling else {})}
                        pictures.setdefault(files.text(item["image"]), []).append(
                            ((files.text(item["text"]), label), {"id": number, "tags": tags})
                        )
            except (ValueError, KeyError, TypeError, RecursionError):
                raise UsageError(
                    f"{path} is no POPE file: every line is an object with question_id, image, text"
                    " and label (yes or no)"
                ) from None
        for index, (name, asked) in enumerate(pictures.items()):
            turns = files.question_turns([exchange for exchange, _ in asked])
            tags = question_details([details for _, details in asked])
            yield files.with_pictures(self.root, [name], turns, tags, index)
