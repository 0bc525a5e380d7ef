"""`scripts/scrub.py`: exit status, one line per problem, nothing personal on any stream."""

import json
import re
from pathlib import Path

import pytest

from mm.data.shards import ShardReader
from scripts import scrub
from tests.privacy import planted as plant


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    with open(tmp_path / "data.jsonl", "w") as file:
        for kind in plant.FORMATS:
            name = f"PLANTED-Jane-Roe.{kind}"
            (tmp_path / name).write_bytes(plant.planted(kind))
            turns = [["user", "<image>Whose?"], ["assistant", "jane@example.com, 010-1234-5678"]]
            file.write(json.dumps({"images": [name], "turns": turns}) + "\n")
    return tmp_path / "data.jsonl"


def test_scrub_whole(lines: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["source=jsonl", f"source.path={lines}", f"output={tmp_path / 'out'}"]
    assert scrub.main(arguments) == 0
    out, err = capsys.readouterr()
    assert "6 samples" in out and "6 email, 6 phone" in out and "quarantined: none" in out
    reader = ShardReader(tmp_path / "out")
    assert [sample.turns[1][1] for sample in reader] == ["[EMAIL], [PHONE]"] * 6
    assert b"PLANTED" not in (tmp_path / "out" / "000000.tar").read_bytes()
    assert "PLANTED" not in out + err and "example.com" not in out + err


def test_scrub_names_bad_records_by_number_and_goes_on(
    lines: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "PLANTED-Jane-Roe.gif").write_bytes(b"Jane Roe, jane@example.com")
    (tmp_path / "PLANTED-Jane-Roe.webp").unlink()
    arguments = ["source=jsonl", f"source.path={lines}", f"output={tmp_path / 'out'}"]
    assert scrub.main(arguments) == 1
    out, err = capsys.readouterr()
    assert "4 samples" in out and "quarantined: 1 missing, 1 not-an-image" in out
    first, second, last = err.splitlines()
    assert first == "sample 2: missing: the source could not read this record"
    assert second.startswith("sample 3: not-an-image: picture 0: ")
    assert last.startswith("scrubbed 4, quarantined 2")
    assert "Jane" not in out + err and "PLANTED" not in out + err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["source=jsonl", "source.path=none.jsonl", "output=x"], "source.path=none.jsonl is no"),
        (["source=jsnl", "source.path=x", "output=x"], "Could not find 'source/jsnl'.*jsonl"),
        (["source=jsonl", "output=x"], "say what source.path is: source.path=..."),
        (["source=jsonl", "source.path=x"], "say what output is: output=..."),
        (["output=x"], "source"),
        (
            ["source=jsonl", "source.path=x", "output=x", "policy=none"],
            "Could not find 'privacy/none",
        ),
        (["source=jsonl", "source.path=x", "output=x", "policy.encodng=png"], "encodng"),
        (["source=jsonl", "source.path=LINES", "output=x", "policy.encoding=gif"], "encoding is"),
        (["source=jsonl", "source.path=LINES", "output=FULL"], "is not empty: name a new"),
        (["--nonsense"], "nonsense"),
    ],
)
def test_scrub_wrong_usage_is_one_line_and_status_2(
    lines: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"LINES": str(lines), "FULL": str(lines.parent)}
    for name, place in places.items():
        arguments = [argument.replace(name, place) for argument in arguments]
    assert scrub.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("scrub: ")
    assert re.search(message, err)
    assert not Path("x").exists()


def test_help_names_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert scrub.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert out.count("python scripts/scrub.py source=") == 4  # twice usage and two examples
    sources = "coco, easy_vqa, folder, gqa, jsonl, llava, mmbench, mmstar, parquet, pope, vqav2"
    assert f"source: {sources}, webdataset" in out
    assert "policy: artwork, metadata_only, photos, standard, strict" in out
    assert scrub.main([]) == 2
