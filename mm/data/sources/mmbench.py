"""MMBench: tab-separated rows with a question, up to five choices, and the picture in base64.

Ref: Liu et al. 2023, "MMBench: Is Your Multi-modal Model an All-around Player?"; files such as
mmbench_dev_en_20231003.tsv.
"""

import base64
import binascii
import csv
import sys
from collections.abc import Iterator
from typing import Any

from mm.data.sample import Record, Sample, make_source_id, question_details
from mm.data.sources import files
from mm.errors import UsageError

LETTERS = "ABCDE"
_TAGS = ("category", "l2-category")


class Source(files.Reader):
    """Read one sample per row: its question, asked once or in every rotation of its choices.

    Args:
        path: the .tsv file, of a split whose answers are public.
        rotations: ask each question as many times as it has choices, each time beginning with
            another; it counts in `circular` if all are right.
    """

    def __init__(self, path: str, rotations: bool = False) -> None:
        self.path = files.need_file(path, "mmbench", "a .tsv file")
        self.rotations = rotations

    def records(self) -> Iterator[Record]:
        # A picture that was there before is given as the number of its row.
        shared = {row["image"] for row in self._rows() if _is_number(row["image"])}
        kept: dict[str, str] = {}
        for row in self._rows():
            index, image = row["index"], row["image"]
            if index in shared:
                kept[index] = image
            try:
                data = base64.b64decode(kept.get(image, image), validate=True)
                yield self._sample(row, data)
            except (binascii.Error, ValueError, KeyError):
                yield files.broken("bad-record", self.path.name, index)

    def _rows(self) -> Iterator[dict[str, str]]:
        csv.field_size_limit(sys.maxsize)  # of the process: a field holds a picture
        with open(self.path, encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file, delimiter="\t")
            needed = {"index", "question", "answer", "image", "A", "B"}
            if missing := needed - set(rows.fieldnames or ()):
                raise UsageError(
                    f"{self.path} is no MMBench file with answers: it lacks the columns"
                    f" {', '.join(sorted(missing))}"
                )
            yield from rows

    def _sample(self, row: dict[str, str], data: bytes) -> Sample:
        offered = {x: row[x] for x in LETTERS if (row.get(x) or "").strip()}
        choices, right = list(offered.values()), offered[row["answer"]]
        hint = (row.get("hint") or "").strip()
        question = f"{hint}\n{row['question']}" if hint and hint != "nan" else row["question"]
        tags = {name: row[name] for name in _TAGS if row.get(name)}
        details: list[dict[str, Any]] = []
        for turn in range(len(choices) if self.rotations else 1):
            turned = choices[turn:] + choices[:turn]
            own = {**tags, **({"rotation": str(turn)} if self.rotations else {})}
            details.append({"id": f"{row['index']}/{turn}", "choices": turned, "tags": own})
        turns = files.question_turns([(question, right)] * len(details))
        # The same picture may come in several rows: its questions are no independent cases.
        return Sample([data], turns, question_details(details), make_source_id(data.hex()))


def _is_number(text: str) -> bool:
    return len(text) < 16 and text.isdigit()
