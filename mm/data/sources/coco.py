"""COCO captions: an annotation file (`captions_*.json`) and a folder of pictures.

The captions are indexed in memory (about 90 MB of JSON for the 2017 training set); pictures stream.
"""

import json
from collections.abc import Iterator

from mm.data.sample import Sample
from mm.data.sources import files
from mm.errors import UsageError


class Source:
    """Read one sample per picture, with all its captions as independent pairs.

    Args:
        path: the annotation file.
        root: folder of the pictures; the file's own by default.
        prompt: what the user asks in front of each caption.
    """

    def __init__(
        self, path: str, root: str | None = None, prompt: str = "Describe this picture."
    ) -> None:
        self.path = files.need_file(path, "coco", "a captions_*.json annotation file")
        self.root = self.path.parent
        if root is not None:
            self.root = files.need_directory(root, "coco", "pictures (source.root)")
        self.prompt = prompt

    def __iter__(self) -> Iterator[Sample]:
        captions: dict[int, list[str]] = {}
        try:
            with open(self.path, encoding="utf-8-sig") as file:
                content = json.load(file)
            pictures = [(int(item["id"]), str(item["file_name"])) for item in content["images"]]
            for item in content["annotations"]:
                captions.setdefault(int(item["image_id"]), []).append(str(item["caption"]))
        except (ValueError, KeyError, TypeError, RecursionError):
            raise UsageError(
                f"{self.path} is no COCO caption file: it needs the lists images (id, file_name)"
                " and annotations (image_id, caption)"
            ) from None
        del content
        for index, (number, name) in enumerate(pictures):
            turns = files.caption_turns(self.prompt, captions.pop(number, []))
            yield files.with_pictures(self.root, [name], turns, {}, index)
