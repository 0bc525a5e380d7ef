"""Every reader yields the one record type, streams, and reports what it cannot read."""

import io
import json
import tarfile
import tracemalloc
from collections.abc import Iterable
from pathlib import Path

import pytest

from mm.data import sources
from mm.data.sample import Sample, make_source_id
from mm.data.shards import write_shards
from mm.data.sources import files
from mm.errors import UsageError
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
    known = ["coco", "easy_vqa", "folder", "jsonl", "llava", "parquet", "vqav2", "webdataset"]
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


@pytest.mark.parametrize("name", ["coco", "folder", "jsonl", "llava", "webdataset", "easy_vqa"])
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


@pytest.mark.parametrize("text", ["[]", " [ ] ", "[1]", '[1, 2.5, "a, b", {"x": [1]}, null]'])
def test_json_array_equals_json(text: str) -> None:
    assert list(files.stream_json_array(io.StringIO(text))) == json.loads(text)


@pytest.mark.parametrize("text", ["", "{}", "[1", "[1 2]", "[1,", "[1,]", "[,]", "[1;2]"])
def test_json_array_malformed(text: str) -> None:
    with pytest.raises(ValueError, match="JSON array"):
        list(files.stream_json_array(io.StringIO(text)))
