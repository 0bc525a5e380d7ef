"""COCO captions: an annotation file (`captions_*.json`) and a folder of pictures.

The captions are indexed in memory (about 90 MB of JSON for the 2017 training set); pictures stream.
"""

from collections.abc import Iterator

from mm.data.sample import Record
from mm.data.sources import files
from mm.errors import UsageError


class Source(files.Reader):
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

    def records(self) -> Iterator[Record]:
        pictures: list[tuple[int, str]] = []
        captions: dict[int, list[str]] = {}
        try:
            with files.open_json(self.path) as file:
                for key, item in files.stream_json_lists(file):
                    if key == "images":
                        pictures.append((int(item["id"]), str(item["file_name"])))
                    elif key == "annotations":
                        captions.setdefault(int(item["image_id"]), []).append(str(item["caption"]))
            if not pictures:
                raise ValueError
        except (ValueError, KeyError, TypeError, RecursionError):
            raise UsageError(
                f"{self.path} is no COCO caption file: it needs the lists images (id, file_name)"
                " and annotations (image_id, caption)"
            ) from None
        for index, (number, name) in enumerate(pictures):
            turns = files.caption_turns(self.prompt, captions.pop(number, []))
            yield files.with_pictures(self.root, [name], turns, {}, index)

    def count(self) -> int:
        try:
            with files.open_json(self.path) as file:
                return sum(key == "images" for key, _ in files.stream_json_lists(file))
        except (ValueError, RecursionError):
            return 0  # reading says what is wrong
