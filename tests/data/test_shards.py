"""Shards come back as they were written, and anything missing, edited or unaudited is refused."""

import json
import pickle
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from mm.data.sample import Sample
from mm.data.shards import ShardReader, ShardWriter, write_shards
from mm.privacy.door import encode_jpeg, encode_png, open_image
from mm.privacy.errors import LedgerError, PrivacyError, ScrubError
from mm.privacy.policy import Policy, digest


def clean_samples(count: int = 7) -> list[Sample]:
    return [
        Sample(
            images=[
                encode_png(Image.new("RGB", (6, 4), (number, side, 0)))
                for side in range(number % 3)
            ],
            turns=[("user", "<image>" * (number % 3) + "무엇?"), ("assistant", f"답 {number}")],
            tags={"split": "test", "번호": str(number)},
            source_id=f"{number:032x}",
        )
        for number in range(count)
    ]


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    with ShardWriter(tmp_path / "shards", Policy(), max_shard_bytes=8000) as writer:
        for sample in clean_samples():
            writer.write(sample)
    return tmp_path / "shards"


def test_samples_come_back_in_any_order(shards: Path) -> None:
    samples, reader = clean_samples(), ShardReader(shards)
    assert len(list(shards.glob("*.tar"))) > 1
    assert list(reader) == samples and len(reader) == 7
    assert [reader[i] for i in (5, 0, 3, -1)] == [samples[i] for i in (5, 0, 3, -1)]
    with pytest.raises(IndexError):
        reader[7]
    assert open_image(reader[4].images[0]).getpixel((0, 0)) == (4, 0, 0)


def test_reader_travels_to_worker_processes(shards: Path) -> None:
    reader = ShardReader(shards)
    assert reader[3] == clean_samples()[3]
    copy = pickle.loads(pickle.dumps(reader))
    assert copy[3] == clean_samples()[3]


def test_anyone_can_look_inside_with_tar(shards: Path) -> None:
    with tarfile.open(shards / "000000.tar") as tar:
        members = tar.getmembers()
        assert [member.name for member in members[:4]] == [
            "000000000.json",
            "000000001.0.png",
            "000000001.json",
            "000000002.0.png",
        ]
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, 0, "", "")}


def test_equal_samples_give_equal_bytes(tmp_path: Path, shards: Path) -> None:
    with ShardWriter(tmp_path / "again", Policy(), max_shard_bytes=8000) as writer:
        for sample in clean_samples():
            writer.write(sample)
    for path in shards.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_empty_source_gives_an_empty_directory_of_shards(tmp_path: Path) -> None:
    write_shards([], tmp_path / "none", Policy())
    assert len(ShardReader(tmp_path / "none")) == 0


@pytest.mark.parametrize(
    "change",
    [
        {"images": [encode_png(Image.new("RGB", (2, 2))) + b"trailer"]},
        {"images": [b"GIF89a"]},
        {"turns": [("assistant", "kim@example.com")]},
        {"tags": {"phone": "010-1234-5678"}},
        {"tags": {"4111 1111 1111 1111": "x"}},
        {"source_id": "/home/kim/photo.jpg"},
    ],
)
def test_writer_refuses_what_scrubbing_would_remove(
    tmp_path: Path, change: dict[str, object]
) -> None:
    sample = Sample(**{"source_id": "0" * 32, **change})  # type: ignore[arg-type]
    with pytest.raises(PrivacyError) as caught, ShardWriter(tmp_path / "out", Policy()) as writer:
        writer.write(sample)
    assert "kim" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_output_must_be_new_or_empty(tmp_path: Path, shards: Path) -> None:
    with pytest.raises(ScrubError, match="is not empty: name a new directory"):
        ShardWriter(shards, Policy())
    (tmp_path / "empty").mkdir()
    write_shards(clean_samples(1), tmp_path / "empty", Policy())
    assert len(ShardReader(tmp_path / "empty")) == 1


# --- Refusals -------------------------------------------------------------------------------------


def edit_ledger(shards: Path, change: Callable[[dict], None], reseal: bool = False) -> None:
    ledger = json.loads((shards / "ledger.json").read_text())
    change(ledger)
    if reseal:
        ledger["self_hash"] = digest({k: v for k, v in ledger.items() if k != "self_hash"})
    (shards / "ledger.json").write_text(json.dumps(ledger))


def flip_byte(shards: Path) -> None:
    data = bytearray((shards / "000001.tar").read_bytes())
    data[700] ^= 1
    (shards / "000001.tar").write_bytes(data)


def swap_shards(shards: Path) -> None:
    shutil.copy(shards / "000000.tar", shards / "000001.tar")


TAMPERED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no ledger": (lambda s: (s / "ledger.json").unlink(), "was never scrubbed"),
    "ledger is no JSON": (lambda s: (s / "ledger.json").write_text("{"), "is not a ledger"),
    "ledger is binary": (lambda s: (s / "ledger.json").write_bytes(b"\xff"), "cannot be read"),
    "other format": (lambda s: (s / "ledger.json").write_text("[]"), "is not a ledger"),
    "other version": (
        lambda s: edit_ledger(s, lambda x: x.update(version=3), reseal=True),
        "has version 3, not 2",
    ),
    "edited count": (lambda s: edit_ledger(s, lambda x: x["counts"].update(turns=1)), "was edited"),
    "weakened policy": (
        lambda s: edit_ledger(s, lambda x: x["policy"]["text"].update(email="keep"), reseal=True),
        "names another policy",
    ),
    "policy of another version": (
        lambda s: edit_ledger(
            s,
            lambda x: (
                x["policy"].update(smells="keep"),
                x.update(policy_hash=digest(x["policy"])),
            ),
            reseal=True,
        ),
        "names a policy that this version does not know",
    ),
    "no audit": (lambda s: edit_ledger(s, lambda x: x.pop("audit"), reseal=True), "lacks what"),
    "unfinished audit": (
        lambda s: edit_ledger(s, lambda x: x["audit"].update(pictures=1), reseal=True),
        "was not audited to the end",
    ),
    "shard outside": (
        lambda s: edit_ledger(s, lambda x: x["shards"][0].update(file="../x.tar"), reseal=True),
        "outside its directory",
    ),
    "edited shard": (flip_byte, "000001.tar was changed after scrubbing"),
    "grown shard": (
        lambda s: (s / "000000.tar").write_bytes((s / "000000.tar").read_bytes() + b"\0" * 512),
        "000000.tar was changed after scrubbing",
    ),
    "swapped shards": (swap_shards, "000001.tar was changed after scrubbing"),
    "missing shard": (lambda s: (s / "000001.tar").unlink(), "000001.tar is missing"),
    "added shard": (lambda s: (s / "999999.tar").write_bytes(b""), "is not in the ledger"),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_reader_refuses_tampered_shards(shards: Path, name: str) -> None:
    tamper, message = TAMPERED[name]
    tamper(shards)
    with pytest.raises(LedgerError, match=message) as caught:
        ShardReader(shards)
    assert "python scripts/scrub.py source=webdataset source.path=" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_reader_names_the_command_for_raw_input(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "lines").mkdir()
    (tmp_path / "lines" / "data.jsonl").write_text("{}\n")
    for name, expected in {
        "photos": "source=folder source.path=.*/photos output=.*/photos-scrubbed",
        "lines": "source=jsonl source.path=.*/lines/data.jsonl output=.*/lines-scrubbed",
        "lines/data.jsonl": "source=jsonl source.path=.*/data.jsonl output=.*data-scrubbed",
        "none": "source=FORMAT source.path=PATH output=.*/none` first",
    }.items():
        with pytest.raises(LedgerError, match=f"python scripts/scrub.py {expected}"):
            ShardReader(tmp_path / name)


def test_verify_false_still_checks_the_ledger(shards: Path) -> None:
    flip_byte(shards)
    assert len(ShardReader(shards, verify=False)) == 7
    edit_ledger(shards, lambda ledger: ledger.update(policy_hash="0"))
    with pytest.raises(LedgerError, match="was edited"):
        ShardReader(shards, verify=False)


def test_audit_looks_at_the_finished_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A leak that the writer's own check missed is caught by reading the files back."""
    from mm.data import shard_writer as module

    writer = ShardWriter(tmp_path / "out", Policy())
    with monkeypatch.context() as patch:
        patch.setattr(module, "check_clean", lambda sample, policy: ["jpeg"])
        writer.write(Sample([encode_jpeg(Image.new("RGB", (8, 8))) + b"leak"], source_id="0" * 32))
    with pytest.raises(PrivacyError, match="bytes after the end of the JPEG"):
        writer.close()
    assert list(tmp_path.iterdir()) == []
