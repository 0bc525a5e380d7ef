"""VQAv2: a questions file, an annotations file and a folder of COCO pictures.

Questions and their agreed answers are indexed in memory (about 200 MB for the training split: a
picture's questions are not promised to stand together); both files and the pictures stream.

Ref: visualqa.org/download.html, version 2.0
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mm.data.sample import Record, question_details
from mm.data.sources import files
from mm.errors import UsageError


class Source(files.Reader):
    """Read one sample per picture, with all its questions as independent pairs.

    Args:
        path: the questions file, such as v2_OpenEnded_mscoco_train2014_questions.json.
        annotations: the annotations file; null for a split whose answers are not public, whose
            samples then hold questions only.
        root: folder of the pictures; the questions file's own by default.
        picture: name of a picture; {image_id} stands for its number.
        people: for evaluation, also what each of the ten annotators answered, with the question's
            number and types (see `question_details`).
    """

    def __init__(
        self,
        path: str,
        annotations: str | None = None,
        root: str | None = None,
        picture: str = "COCO_train2014_{image_id:012d}.jpg",
        people: bool = False,
    ) -> None:
        self.path = files.need_file(path, "vqav2", "a v2_OpenEnded_*_questions.json file")
        self.annotations = None
        if annotations is not None:
            what = "a v2_*_annotations.json file (source.annotations)"
            self.annotations = files.need_file(annotations, "vqav2", what)
        self.root = self.path.parent
        if root is not None:
            self.root = files.need_directory(root, "vqav2", "pictures (source.root)")
        try:
            if picture.format(image_id=1) == picture.format(image_id=2):
                raise ValueError
        except (ValueError, LookupError, AttributeError):
            raise UsageError(
                f"source.picture is {picture!r}; it must name a picture by its number, such as"
                " COCO_val2014_{image_id:012d}.jpg"
            ) from None
        self.picture, self.people = picture, people

    def records(self) -> Iterator[Record]:
        answers = self._answers()
        turns: dict[int, list[tuple[str, str]]] = {}
        more: dict[int, list[dict[str, Any]]] = {}
        try:
            for item in _items(self.path, "questions"):
                number, asked = int(item["image_id"]), int(item["question_id"])
                pair = turns.setdefault(number, [])
                pair.append(("user", ("" if pair else "<image>") + _text(item["question"])))
                if self.annotations is not None:
                    answer, details = answers.pop(asked)
                    pair.append(("assistant", answer))
                    more.setdefault(number, []).append(details)
        except KeyError as error:
            if error.args and isinstance(error.args[0], int):
                raise UsageError(
                    f"{self.annotations} lacks the answer of a question in {self.path.name}: give"
                    " the annotations of the same split"
                ) from None
            raise _malformed(self.path, "questions (image_id, question_id, question)") from None
        except (ValueError, TypeError, RecursionError):
            raise _malformed(self.path, "questions (image_id, question_id, question)") from None
        del answers
        for index, number in enumerate(sorted(turns)):
            name = self.picture.format(image_id=number)
            tags = question_details(more.pop(number)) if self.people and more else {}
            yield files.with_pictures(self.root, [name], turns.pop(number), tags, index)

    def count(self) -> int:
        try:
            return len({item["image_id"] for item in _items(self.path, "questions")})
        except (ValueError, KeyError, TypeError, RecursionError):
            return 0  # reading says what is wrong

    def _answers(self) -> dict[int, tuple[str, dict[str, Any]]]:
        """Map a question to the answer that most of the annotators gave, and to its details."""
        if self.annotations is None:
            return {}
        try:
            return {
                int(item["question_id"]): (
                    _text(item["multiple_choice_answer"]),
                    _details(item) if self.people else {},
                )
                for item in _items(self.annotations, "annotations")
            }
        except (ValueError, KeyError, TypeError, RecursionError):
            what = "annotations (question_id, multiple_choice_answer, answers)"
            raise _malformed(self.annotations, what) from None


def _details(item: dict[str, Any]) -> dict[str, Any]:  # parsed JSON
    return {
        "id": str(item["question_id"]),
        "answers": [_text(one["answer"]) for one in item["answers"]],
        "tags": {name: _text(item[name]) for name in ("answer_type", "question_type")},
    }


def _items(path: Path, key: str) -> Iterator[dict[str, Any]]:  # parsed JSON
    with files.open_json(path) as file:
        for name, item in files.stream_json_lists(file):
            if name == key:
                if not isinstance(item, dict):
                    raise ValueError
                yield item


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError
    return value


def _malformed(path: Path, what: str) -> UsageError:
    return UsageError(f"{path} is malformed: source=vqav2 reads a JSON object with the list {what}")
