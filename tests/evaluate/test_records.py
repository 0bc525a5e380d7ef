import math
from pathlib import Path

import pytest

from mm.errors import UsageError
from mm.evaluate.records import Record, mean_score, read_records, write_records

RECORDS = [
    Record("a1", "0", {"language": "ko"}, "고양이\n둘", ("고양이 둘",), 0.5, {"token_f1": 1.0}),
    Record("a1", "1", {}, "", (), 1.0),
]


def test_records_come_back_as_they_were(tmp_path: Path) -> None:
    write_records(RECORDS, tmp_path / "new" / "records.jsonl")
    assert list(read_records(tmp_path / "new" / "records.jsonl")) == RECORDS


def test_mean_score_of_nothing_is_not_a_number() -> None:
    assert mean_score(RECORDS) == 0.75
    assert math.isnan(mean_score([]))


@pytest.mark.parametrize(
    "line",
    ["{", "[]", "{}", '{"item": "a"}', "null"]
    + [
        '{"item":"a","question":"0","tags":{"x":1},"said":"","wanted":[],"score":0,"extra":{}}',
        '{"item":"a","question":"0","tags":{},"said":"","wanted":"no","score":0,"extra":{}}',
        '{"item":"a","question":"0","tags":{},"said":"","wanted":[],"score":"1","extra":{}}',
    ],
)
def test_a_line_that_is_no_record_is_named(tmp_path: Path, line: str) -> None:
    write_records(RECORDS[:1], tmp_path / "r.jsonl")
    with open(tmp_path / "r.jsonl", "a", encoding="utf-8") as file:
        file.write(line + "\n")
    with pytest.raises(UsageError, match=r"r\.jsonl:2 is no record"):
        list(read_records(tmp_path / "r.jsonl"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        list(read_records(tmp_path / "none.jsonl"))
