"""MMStar: Parquet rows with a picture, a question with its options in the text, and a letter.

Ref: Chen et al. 2024, "Are We on the Right Way for Evaluating Large Vision-Language Models?".
Needs `pip install 'mm[parquet]'`.
"""

from collections.abc import Iterator
from typing import Any

from mm.data.sample import Record, Sample, make_source_id, question_details
from mm.data.sources import files
from mm.data.sources.parquet import Source as Parquet

LETTERS = ("A", "B", "C", "D")
_TAGS = ("category", "l2_category")


class Source(files.Reader):
    """Read one sample per row; its choices are the letters.

    Args:
        path: mmstar.parquet, or a folder of Parquet files.
    """

    def __init__(self, path: str) -> None:
        self.rows = Parquet(path, question="question", answer="answer", tags=("index", *_TAGS))

    def records(self) -> Iterator[Record]:
        for record in self.rows.records():
            sample = record.load()
            if sample.problem:
                yield sample
                continue
            tags: dict[str, Any] = dict(sample.tags)
            answer = sample.turns[1][1].strip()
            if answer not in LETTERS:
                yield files.broken("bad-record", "mmstar", tags["index"])
                continue
            details = {
                "id": tags["index"],
                "choices": LETTERS,
                "tags": {name: tags[name] for name in _TAGS},
            }
            turns = [sample.turns[0], ("assistant", answer)]
            picture = make_source_id(sample.images[0].hex())
            yield Sample(sample.images, turns, question_details([details]), picture)

    def count(self) -> int:
        return self.rows.count()
