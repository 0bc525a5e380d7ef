"""Every reader yields the one record type, streams, and reports what it cannot read."""

import io
import json
import os
import sys
import tarfile
import tracemalloc
from collections.abc import Iterable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from mm.data import sample as sample_module
from mm.data import sources
from mm.data.sample import Pending, Sample, make_source_id
from mm.data.shards import write_shards
from mm.data.sources import files
from mm.errors import UsageError
from mm.privacy import door
from mm.privacy.policy import Policy
from mm.registry import UnknownNameError
from tests.privacy import planted as plant

PNG, JPEG = plant.planted("png"), plant.planted("jpeg")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.png").write_bytes(PNG)
    (tmp_path / "b.jpg").write_bytes(JPEG)
    (tmp_path / "sub" / "c.PNG").write_bytes(PNG)
    return tmp_path


def listed(name: str, path: Path | str, **options: object) -> list[Sample]:
    samples = list(sources.build(name, str(path), **options))
    assert all(len(sample.source_id) == 32 for sample in samples)
    assert len({sample.source_id for sample in samples}) == len(samples)
    return samples


def test_registry_knows_the_readers() -> None:
    known = [
        "coco", "easy_vqa", "folder", "gqa", "jsonl", "llava", "mmbench", "mmstar", "parquet",
        "pope", "vqav2", "webdataset",
    ]  # fmt: skip
    assert sources.names() == known
    with pytest.raises(UnknownNameError, match="unknown source 'josnl'.*did you mean 'jsonl'"):
        sources.get("josnl")


def test_source_id_holds_no_path() -> None:
    assert make_source_id("photos/jane.jpg", 1) != make_source_id("photos/jane.jpg", 2)
    assert make_source_id("a", "b") != make_source_id("ab")
    assert "jane" not in make_source_id("jane")


# --- jsonl ----------------------------------------------------------------------------------------


def test_jsonl(pictures: Path) -> None:
    turns = [["user", "<image><image>차이는?"], ["assistant", "색"]]
    records = [
        {"images": ["a.png", "sub/c.PNG"], "turns": turns, "tags": {"n": 3, "s": "x"}},
        {"images": ["none.png"], "turns": []},
        {"images": []},
    ]
    lines = [json.dumps(record, ensure_ascii=False) for record in records]
    lines[1:1] = ["", "{broken", "[]", '{"images": [3]}', '{"images": [], "turns": [["user"]]}']
    (pictures / "data.jsonl").write_text("\ufeff" + "\n".join(lines))
    first, *bad, missing, bare = listed("jsonl", pictures / "data.jsonl")
    assert first.images == [PNG, PNG]
    assert first.turns == [("user", "<image><image>차이는?"), ("assistant", "색")]
    assert first.tags == {"n": "3", "s": "x"}
    assert [sample.problem for sample in bad] == ["bad-record"] * 4
    assert missing.problem == "missing" and missing.images == []
    assert bare.problem == "" and bare.images == []


def test_jsonl_root(pictures: Path) -> None:
    (pictures / "sub" / "data.jsonl").write_text('{"images": ["a.png"], "turns": []}')
    assert listed("jsonl", pictures / "sub" / "data.jsonl")[0].problem == "missing"
    sample = listed("jsonl", pictures / "sub" / "data.jsonl", root=str(pictures))[0]
    assert sample.images == [PNG]


@pytest.mark.parametrize("name", ["../a.png", "/etc/hostname", "x/../../a.png"])
def test_a_record_cannot_name_files_outside_its_root(pictures: Path, name: str) -> None:
    (pictures / "sub" / "data.jsonl").write_text(json.dumps({"images": [name]}))
    sample = listed("jsonl", pictures / "sub" / "data.jsonl")[0]
    assert (sample.problem, sample.images) == ("outside-root", [])


# --- folder ---------------------------------------------------------------------------------------


def test_folder_with_side_files(pictures: Path) -> None:
    (pictures / "a.txt").write_text("a dog\n")
    record = {"turns": [["user", "<image>Q"], ["assistant", "A"]], "tags": {"k": "v"}}
    (pictures / "b.json").write_text(json.dumps(record))
    (pictures / "captions.txt").write_text('sub/c.PNG\ta, "cat"\nsub/c.PNG\tone cat\n')
    (pictures / "notes.md").write_text("left out")
    a, b, c = listed("folder", pictures, prompt="Q?")
    assert a.turns == [("user", "<image>Q?"), ("assistant", "a dog")]
    assert (b.turns, b.tags) == ([("user", "<image>Q"), ("assistant", "A")], {"k": "v"})
    assert c.turns == [
        ("user", "<image>Q?"),
        ("assistant", 'a, "cat"'),
        ("user", "Q?"),
        ("assistant", "one cat"),
    ]
    assert (a.images, b.images) == ([PNG], [JPEG])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("captions.txt", 'image,caption\na.png,"a dog, asleep"\n'),
        ("captions.txt", "a.png\ta dog, asleep\n"),
        ("captions.json", '{"a.png": "a dog, asleep"}'),
        ("captions.json", '{"a.png": ["a dog, asleep"]}'),
    ],
)
def test_folder_caption_files(pictures: Path, name: str, content: str) -> None:
    (pictures / name).write_text(content)
    a, b, _ = listed("folder", pictures)
    assert a.turns[1] == ("assistant", "a dog, asleep")
    assert b.turns == [("user", "<image>Describe this picture.")]


@pytest.mark.parametrize(
    ("name", "content"),
    [("captions.txt", "no tab here\n"), ("captions.json", "[1]"), ("captions.json", '{"a": [1]}')],
)
def test_folder_malformed_caption_file(pictures: Path, name: str, content: str) -> None:
    (pictures / name).write_text(content)
    with pytest.raises(UsageError, match=f"{name} is malformed"):
        listed("folder", pictures)


def test_folder_malformed_side_file_is_one_bad_record(pictures: Path) -> None:
    (pictures / "a.json").write_text("{broken")
    (pictures / "b.txt").write_bytes(b"\xff\xfe")
    assert [s.problem for s in listed("folder", pictures)] == ["bad-record", "bad-record", ""]


def test_folder_counts_formats_that_the_door_refuses(pictures: Path, tmp_path: Path) -> None:
    (pictures / "d.heic").write_bytes(b"8BPS\0\1")  # a Photoshop file, whatever its name
    report = write_shards(sources.build("folder", str(pictures)), tmp_path / "out", Policy())
    assert (report.samples, dict(report.quarantined)) == (3, {"unsupported": 1})


# --- llava, coco ----------------------------------------------------------------------------------


def test_llava(pictures: Path) -> None:
    talk = [{"from": "human", "value": "<image>\nQ"}, {"from": "gpt", "value": "A"}]
    records = [
        {"id": "1", "image": "a.png", "conversations": talk},
        {"image": ["a.png", "b.jpg"], "conversations": talk},
        {"conversations": [{"from": "human", "value": "text only"}]},
        {"image": "a.png", "conversations": [{"from": "robot", "value": "x"}]},
        {"image": "a.png"},
        {"image": 3, "conversations": []},
        "nonsense",
    ]
    (pictures / "data.json").write_text(json.dumps(records, indent=1))
    samples = listed("llava", pictures / "data.json")
    assert samples[0].turns == [("user", "<image>\nQ"), ("assistant", "A")]
    assert samples[1].images == [PNG, JPEG]
    assert samples[2].images == []
    assert [s.problem for s in samples] == [""] * 3 + ["bad-record"] * 4


def test_llava_cut_short_is_an_error(pictures: Path) -> None:
    (pictures / "data.json").write_text('[{"conversations": []}, {"conv')
    with pytest.raises(UsageError, match="is not a whole JSON list"):
        listed("llava", pictures / "data.json")


def test_coco(pictures: Path) -> None:
    content = {
        "images": [{"id": 7, "file_name": "a.png"}, {"id": 8, "file_name": "b.jpg"}],
        "annotations": [
            {"image_id": 7, "caption": "one "},
            {"image_id": 8, "caption": "other"},
            {"image_id": 7, "caption": "two"},
        ],
    }
    (pictures / "captions.json").write_text(json.dumps(content))
    first, second = listed("coco", pictures / "captions.json", prompt="P")
    assert [text for _, text in first.turns] == ["<image>P", "one", "P", "two"]
    assert (second.images, second.turns[1]) == ([JPEG], ("assistant", "other"))
    (pictures / "bad.json").write_text("{}")
    with pytest.raises(UsageError, match="is no COCO caption file"):
        listed("coco", pictures / "bad.json")


def test_texts_that_are_no_utf8_cost_their_record_only(pictures: Path, tmp_path: Path) -> None:
    """In each format the damaged text is refused by scrubbing, and the others are done."""
    bad = b'{"image": "a.png", "conversations": [{"from": "human", "value": "<image>\xff\xfe"}]}'
    good = b'{"image": "a.png", "conversations": [{"from": "human", "value": "<image>fine"}]}'
    (pictures / "llava.json").write_bytes(b"[" + bad + b"," + good + b"]")
    (pictures / "lines.jsonl").write_bytes(
        b'{"images": ["a.png"], "turns": [["user", "<image>\xff"]]}\n{"images": []}\n'
    )
    (pictures / "coco.json").write_bytes(
        b'{"images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.jpg"}],'
        b'"annotations": [{"image_id": 1, "caption": "\xe9"}, {"image_id": 2, "caption": "b"}]}'
    )
    (pictures / "captions.txt").write_bytes(b"a.png\t\xff\nb.jpg\tfine\n")
    for name, file in {
        "llava": "llava.json",
        "jsonl": "lines.jsonl",
        "coco": "coco.json",
        "folder": ".",
    }.items():
        source = sources.build(name, str(pictures / file))
        report = write_shards(source, tmp_path / "out" / name, Policy())
        assert sum(report.quarantined.values()) == 1, name
        assert set(report.quarantined) <= {"bad-text", "bad-record"} and report.samples >= 1


def test_a_folder_that_cannot_be_listed_is_counted(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faked, as the tests may run as a user whom no permission stops."""
    real = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("sub"):
            raise PermissionError("PLANTED")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert [s.problem for s in listed("folder", pictures)] == ["", "", "unreadable"]


def test_a_folder_named_like_a_picture_and_a_closed_file_are_counted(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (pictures / "d.png").mkdir()
    (pictures / "e.png").symlink_to("d.png")
    (pictures / "f.png").symlink_to("nowhere.png")
    (pictures / "g.png").write_bytes(b"")
    (pictures / "h.png").write_bytes(PNG)

    def opened(path: object, *arguments: object) -> object:
        if str(path).endswith("h.png"):
            raise PermissionError("PLANTED")
        return open(path, *arguments)  # type: ignore[call-overload]

    monkeypatch.setattr(door, "open", opened, raising=False)
    problems = [sample.problem for sample in listed("folder", pictures)]
    # links come with the files; a real folder is walked into and holds nothing
    assert problems == ["", "", "missing", "empty", "unreadable", ""]


# --- vqav2 ----------------------------------------------------------------------------------------


@pytest.fixture
def vqav2(pictures: Path) -> Path:
    for number in (42, 7):
        (pictures / f"COCO_train2014_{number:012d}.jpg").write_bytes(JPEG)
    questions = [
        {"image_id": 42, "question": "How many?", "question_id": 420},
        {"image_id": 7, "question": "Colour?", "question_id": 70},
        {"image_id": 42, "question": "Where?", "question_id": 421},
        {"image_id": 9, "question": "Gone?", "question_id": 90},
    ]
    answers = [
        {
            "question_id": item["question_id"],
            "image_id": item["image_id"],
            "question_type": "none of the above",
            "multiple_choice_answer": f"answer {item['question_id']}",
            "answers": [{"answer": "x", "answer_confidence": "yes", "answer_id": 1}] * 10,
            "answer_type": "other",
        }
        for item in reversed(questions)
    ]
    head = {"info": {"year": 2017}, "task_type": "Open-Ended", "license": {"name": "CC"}}
    (pictures / "q.json").write_text(json.dumps({**head, "questions": questions}))
    (pictures / "a.json").write_text(json.dumps({**head, "annotations": answers}))
    return pictures


def test_vqav2(vqav2: Path) -> None:
    options = {"annotations": str(vqav2 / "a.json"), "root": str(vqav2)}
    seven, nine, forty_two = listed("vqav2", vqav2 / "q.json", **options)
    assert seven.images == [JPEG]
    assert seven.turns == [("user", "<image>Colour?"), ("assistant", "answer 70")]
    assert nine.problem == "missing"
    assert forty_two.turns == [
        ("user", "<image>How many?"),
        ("assistant", "answer 420"),
        ("user", "Where?"),
        ("assistant", "answer 421"),
    ]
    assert sources.build("vqav2", str(vqav2 / "q.json"), **options).count() == 3  # type: ignore[attr-defined]


def test_vqav2_without_public_answers_has_questions_only(vqav2: Path) -> None:
    assert listed("vqav2", vqav2 / "q.json")[0].turns == [("user", "<image>Colour?")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"annotations": "half.json"}, "half.json lacks the answer of a question in q.json"),
        ({"annotations": "q.json"}, "lacks the answer"),
        ({"annotations": "none.json"}, "source=vqav2 reads a v2_.*annotations.json"),
        ({"annotations": "bad.json"}, "bad.json is malformed: .*multiple_choice_answer"),
        ({"root": "none"}, "source.path=.*none is no directory"),
        ({"picture": "one.jpg"}, "source.picture is 'one.jpg'; it must name a picture by its"),
        ({"picture": "{other}.jpg"}, "source.picture is"),
    ],
)
def test_vqav2_wrong_files_are_named(vqav2: Path, options: dict[str, str], message: str) -> None:
    (vqav2 / "half.json").write_text('{"annotations": []}')
    (vqav2 / "bad.json").write_text('{"annotations": [{"question_id": 420}]}')
    for key in ("annotations", "root"):
        if key in options:
            options = {**options, key: str(vqav2 / options[key])}
    with pytest.raises(UsageError, match=message):
        listed("vqav2", vqav2 / "q.json", **options)


def test_vqav2_cut_short_is_an_error(vqav2: Path) -> None:
    text = (vqav2 / "q.json").read_text()
    (vqav2 / "q.json").write_text(text[: len(text) // 2])
    with pytest.raises(UsageError, match="q.json is malformed"):
        listed("vqav2", vqav2 / "q.json")


# --- parquet --------------------------------------------------------------------------------------


def write_parquet(path: Path, **columns: list[object]) -> Path:
    pyarrow.parquet.write_table(pyarrow.table(columns), path, row_group_size=7)
    return path


def test_parquet_with_bytes_and_captions(pictures: Path) -> None:
    cells = [{"bytes": PNG, "path": "secret.png"}, {"bytes": None, "path": "b.jpg"}, None]
    path = write_parquet(
        pictures / "x.parquet", image=cells, caption=["a dog", "a cat", "x"], split=["t", "t", "t"]
    )
    a, b, c = listed("parquet", path, caption="caption", tags=["split"], prompt="P")
    assert (a.images, a.tags) == ([PNG], {"split": "t"})
    assert a.turns == [("user", "<image>P"), ("assistant", "a dog")]
    assert b.images == [JPEG] and c.problem == "bad-record"


@pytest.mark.parametrize(
    "cell",
    [
        [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}],
        [{"from": "human", "value": "<image>Q"}, {"from": "gpt", "value": "A"}],
        [["user", "Q"], ["assistant", "A"]],
        '[["user", "<image>Q"], ["assistant", "A"]]',
    ],
)
def test_parquet_with_turns(tmp_path: Path, cell: object) -> None:
    path = write_parquet(tmp_path / "x.parquet", image=[PNG], talk=[cell])
    (sample,) = listed("parquet", path, turns="talk")
    assert sample.turns == [("user", "<image>Q"), ("assistant", "A")] and sample.images == [PNG]


def test_parquet_with_questions_and_several_pictures(tmp_path: Path) -> None:
    path = write_parquet(
        tmp_path / "x.parquet", pictures=[[PNG, JPEG]], q=[["Which?", "Why?"]], a=[["left", "so"]]
    )
    (sample,) = listed("parquet", tmp_path, picture="pictures", question="q", answer="a")
    assert sample.images == [PNG, JPEG]
    assert sample.turns[0] == ("user", "<image><image>Which?")
    assert sample.turns[2:] == [("user", "Why?"), ("assistant", "so")]
    assert path.exists()


def test_parquet_streams(tmp_path: Path) -> None:
    count, size = 300, 40_000
    rows: list[object] = [bytes([n % 256]) * size for n in range(count)]
    for part in range(3):
        write_parquet(tmp_path / f"{part}.parquet", image=rows[part::3], text=["x"] * 100)
    source = sources.build("parquet", str(tmp_path), caption="text")
    assert source.count() == count  # type: ignore[attr-defined]
    start = pyarrow.total_allocated_bytes()
    peak, seen = 0, 0
    for sample in source:
        seen += len(sample.images[0]) == size
        peak = max(peak, pyarrow.total_allocated_bytes() - start)
    assert seen == count and peak < count * size / 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "say where the words are: source.caption=COLUMN.*has the columns image, text"),
        ({"caption": "text", "turns": "text"}, "say where the words are"),
        ({"question": "text"}, "say where the words are"),
        ({"caption": "words"}, "has no column 'words'; it has image, text: name the columns"),
        ({"caption": "text", "picture": "png"}, "has no column 'png'"),
    ],
)
def test_parquet_columns_are_named_never_guessed(
    tmp_path: Path, options: dict[str, str], message: str
) -> None:
    write_parquet(tmp_path / "x.parquet", image=[PNG], text=["x"])
    with pytest.raises(UsageError, match=message):
        sources.build("parquet", str(tmp_path), **options)


def test_parquet_damaged_files(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "x.parquet", image=[PNG] * 50, text=["x"] * 50)
    data = bytearray(path.read_bytes())
    data[4 : len(data) // 2] = b"\xff" * (len(data) // 2 - 4)
    path.write_bytes(data)
    problems = [s.problem for s in sources.build("parquet", str(path), caption="text")]
    assert problems[-1] == "truncated"
    path.write_bytes(data[:100])
    with pytest.raises(UsageError, match="x.parquet is no whole Parquet file"):
        sources.build("parquet", str(path), caption="text")


def test_parquet_without_pyarrow_names_the_install_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_parquet(tmp_path / "x.parquet", image=[PNG], text=["x"])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"pip install 'mm\[parquet\]'"):
        sources.build("parquet", str(tmp_path), caption="text")


# --- easy_vqa -------------------------------------------------------------------------------------


def test_easy_vqa_official_split() -> None:
    pytest.importorskip("easy_vqa", reason="pip install easy-vqa")
    train, test = (listed("easy_vqa", "", split=split) for split in ("train", "test"))
    assert (len(train), len(test)) == (4000, 1000)
    assert sum(len(s.turns) // 2 for s in train) == 38575
    assert sum(len(s.turns) // 2 for s in test) == 9673
    assert not {s.source_id for s in train} & {s.source_id for s in test}
    assert test[0].tags == {"task": "easy-vqa", "split": "test"}
    for sample in test:
        assert [role for role, _ in sample.turns] == ["user", "assistant"] * (
            len(sample.turns) // 2
        )
        assert "".join(text for _, text in sample.turns).count("<image>") == 1
        assert sample.turns[0][1].startswith("<image>")
    answers = {text for s in test for role, text in s.turns if role == "assistant"}
    assert len(answers) == 13 and answers == {answer.lower() for answer in answers}


def test_easy_vqa_bad_split() -> None:
    with pytest.raises(UsageError, match="source.split is 'val'; easy-VQA has train and test"):
        sources.build("easy_vqa", "", split="val")


# --- webdataset -----------------------------------------------------------------------------------


def tar(members: Iterable[tuple[str, bytes]], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as file:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


MEMBERS = [
    ("0001.json", b'{"turns": [["user", "<image><image>Q"]], "tags": {"a": 1}}'),
    ("0001.10.jpg", JPEG),
    ("0001.2.png", PNG),
    ("0001.cls", b"3"),
    ("0002.png", PNG),
    ("0002.txt", b"a dog"),
    ("d/0003.png", PNG),
    ("d/0003.json", b'{"caption": "a cat"}'),
    ("0004.json", b"{broken"),
    ("0005.png", PNG),
]


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_webdataset(tmp_path: Path, mode: str) -> None:
    (tmp_path / "x.tar.gz").write_bytes(tar(MEMBERS, mode))
    one, two, three, four, five = listed("webdataset", tmp_path, prompt="P")
    assert (one.images, one.tags) == ([PNG, JPEG], {"a": "1"})
    assert one.turns == [("user", "<image><image>Q")]
    assert two.turns == [("user", "<image>P"), ("assistant", "a dog")]
    assert three.turns == [("user", "<image>P"), ("assistant", "a cat")]
    assert four.problem == "bad-record"
    assert (five.images, five.turns) == ([PNG], [("user", "<image>P")])


def test_webdataset_cut_short_is_counted(tmp_path: Path) -> None:
    data = tar([("1.png", PNG), ("2.png", PNG), ("3.png", PNG)])
    (tmp_path / "x.tar").write_bytes(data[: 512 + 512 * -(-len(PNG) // 512) * 2])
    problems = [sample.problem for sample in listed("webdataset", tmp_path / "x.tar")]
    assert problems[-1] == "truncated" and len(problems) < 3


def test_webdataset_reads_our_own_shards(pictures: Path, tmp_path: Path) -> None:
    write_shards(sources.build("folder", str(pictures)), tmp_path / "one", Policy())
    write_shards(sources.build("webdataset", str(tmp_path / "one")), tmp_path / "two", Policy())
    once, twice = (listed("webdataset", tmp_path / name) for name in ("one", "two"))
    assert once == twice and len(once) == 3


# --- all ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sources.names())
def test_a_path_that_is_not_there_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="source.path=.*none is no (file|directory); source="):
        sources.build(name, str(tmp_path / "none"))


def test_json_array_streams(tmp_path: Path) -> None:
    path = tmp_path / "big.json"
    path.write_text(json.dumps([{"a": "x" * 1000, "n": number} for number in range(4000)]))
    with open(path, encoding="utf-8") as file:
        tracemalloc.start()
        numbers = sum(item["n"] for item in files.stream_json_array(file))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert numbers == 4000 * 3999 // 2
    assert peak < path.stat().st_size / 4


@pytest.mark.parametrize("name", ["coco", "easy_vqa", "folder", "jsonl", "llava", "vqav2"])
def test_records_are_skipped_unread(
    name: str, vqav2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was scrubbed before a restart costs no reading of pictures."""
    (vqav2 / "data.jsonl").write_text('{"images": ["a.png"]}\n')
    (vqav2 / "data.json").write_text('[{"image": "a.png", "conversations": []}]')
    coco = {"images": [{"id": 7, "file_name": "a.png"}], "annotations": []}
    (vqav2 / "coco.json").write_text(json.dumps(coco))
    paths = {"coco": "coco.json", "jsonl": "data.jsonl", "llava": "data.json", "vqav2": "q.json"}
    path = str(vqav2 / paths.get(name, "."))
    if name == "easy_vqa":
        pytest.importorskip("easy_vqa", reason="pip install easy-vqa")
        path = ""
    source = sources.build(name, path)
    monkeypatch.setattr(sample_module, "read_bytes", None)
    records = list(source.records())  # type: ignore[attr-defined]
    assert records and all(isinstance(record, Pending) for record in records)
    assert len({record.source_id for record in records}) == len(records)
    assert source.count() in (None, len(records))  # type: ignore[attr-defined]


@pytest.mark.parametrize("text", ["[]", " [ ] ", "[1]", '[1, 2.5, "a, b", {"x": [1]}, null]'])
def test_json_array_equals_json(text: str) -> None:
    assert list(files.stream_json_array(io.StringIO(text))) == json.loads(text)


@pytest.mark.parametrize(
    "text", ["{}", " { } ", '{"a": [1, {"b": []}], "c": 3, "d": {"e": [5]}, "a": []}', '{"a": []}']
)
def test_json_lists_equal_json(text: str) -> None:
    content = json.loads(text, object_pairs_hook=list)
    expected = [(key, item) for key, value in content if isinstance(value, list) for item in value]
    found = [
        (key, list(item.items()) if isinstance(item, dict) else item)
        for key, item in files.stream_json_lists(io.StringIO(text))
    ]
    assert found == [pair for pair in expected if pair[0] != "d"]


@pytest.mark.parametrize("text", ["", "[]", '{"a"', '{"a": [1', '{"a": 1', "{1: 2}", '{"a" 1}'])
def test_json_lists_malformed(text: str) -> None:
    with pytest.raises(ValueError, match="JSON"):
        list(files.stream_json_lists(io.StringIO(text)))


@pytest.mark.parametrize("text", ["", "{}", "[1", "[1 2]", "[1,", "[1,]", "[,]", "[1;2]"])
def test_json_array_malformed(text: str) -> None:
    with pytest.raises(ValueError, match="JSON array"):
        list(files.stream_json_array(io.StringIO(text)))
