"""A picture or a person's samples go, by hash or file; the rest stays byte for byte."""

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from mm.data import forget as module
from mm.data.forget import forget, forgotten_hashes, trained_on
from mm.data.sample import Sample
from mm.data.shards import ShardReader, write_shards
from mm.data.sources import build
from mm.errors import UsageError
from mm.privacy import ledger as ledgers
from mm.privacy.errors import LedgerError
from mm.privacy.policy import Policy, digest

ROOT = Path(__file__).resolve().parents[2]


def raw_picture(number: int) -> bytes:
    buffer = io.BytesIO()
    image = Image.new("RGB", (30, 20), (20 * number, 40, 90))
    image.save(buffer, "JPEG", comment=f"PLANTED {number}".encode())
    return buffer.getvalue()


def sample(number: int) -> Sample:
    words = f"a{number}@example.com"
    turns = [("user", "<image>Whose?"), ("assistant", words)]
    return Sample([raw_picture(number)], turns, {"n": str(number)}, f"source {number}")


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    write_shards(map(sample, range(9)), tmp_path / "set", Policy(), max_shard_bytes=8000)
    assert len(list((tmp_path / "set").glob("*.tar"))) == 3
    return tmp_path / "set"


def numbers(directory: Path) -> list[int]:
    return [int(item.tags["n"]) for item in ShardReader(directory)]


def test_a_picture_goes_by_its_raw_file(shards: Path, tmp_path: Path) -> None:
    before = ShardReader(shards).ledger
    untouched = {path.name: path.read_bytes() for path in shards.glob("*.tar")}
    (tmp_path / "photo.jpg").write_bytes(raw_picture(4))
    removal = forget(str(tmp_path / "photo.jpg"), shards)
    raw = hashlib.sha256(raw_picture(4)).hexdigest()
    assert (removal.samples, removal.found) == (1, {raw: 1})
    assert numbers(shards) == [0, 1, 2, 3, 5, 6, 7, 8]
    ledger = ShardReader(shards).ledger
    assert ledger["removed"] == [{"hash": raw, "samples": 1}]
    assert ledger["replaces"] == removal.ledgers == [before["self_hash"]]
    assert ledger["self_hash"] != before["self_hash"]
    assert ledger["counts"]["samples"] == ledger["counts"]["images"] == 8
    assert ledger["counts"]["text"] == {"email": 8}
    assert ledger["counts"]["metadata"] == {"comment": 8}
    changed = [p.name for p in shards.glob("*.tar") if p.read_bytes() != untouched[p.name]]
    assert len(changed) <= 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["photo.jpg", "set"]


def test_the_same_pixels_in_another_file_are_found(shards: Path, tmp_path: Path) -> None:
    """Without its comment the file has another hash, and the picture is the same."""
    stripped = raw_picture(2).replace(b"PLANTED 2", b"planted 2")
    (tmp_path / "other.jpg").write_bytes(stripped)
    assert forget(str(tmp_path / "other.jpg"), shards).samples == 1
    assert 2 not in numbers(shards)


def test_hashes_of_each_kind_are_found(shards: Path, tmp_path: Path) -> None:
    reader = ShardReader(shards)
    wanted = [
        reader[0].source_id,
        hashlib.sha256(reader[3].images[0]).hexdigest(),
        hashlib.sha256(raw_picture(6)).hexdigest().upper(),
    ]
    for item in wanted:
        assert forget(item, shards).samples == 1
    assert numbers(shards) == [1, 2, 4, 5, 7, 8]
    assert len(ShardReader(shards).ledger["replaces"]) == 3
    again = forget(wanted[0], shards)
    assert (again.samples, again.found) == (0, {wanted[0]: 0})
    assert len(ShardReader(shards).ledger["replaces"]) == 3  # nothing to note


def test_a_person_s_samples_go_by_list_or_folder(shards: Path, tmp_path: Path) -> None:
    rows = [hashlib.sha256(raw_picture(number)).hexdigest() for number in (1, 7)]
    (tmp_path / "list.txt").write_text("\n".join(rows) + "\n")
    assert forget(str(tmp_path / "list.txt"), shards).found == dict.fromkeys(rows, 1)
    (tmp_path / "hers").mkdir()
    for number in (0, 5):
        (tmp_path / "hers" / f"{number}.jpg").write_bytes(raw_picture(number))
    assert forget(str(tmp_path / "hers"), shards).samples == 2
    assert numbers(shards) == [2, 3, 4, 6, 8]


def test_all_of_a_set_can_go(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "hers").mkdir()
    for number in range(9):
        (tmp_path / "hers" / f"{number}.jpg").write_bytes(raw_picture(number))
    assert forget(str(tmp_path / "hers"), shards).samples == 9
    assert len(ShardReader(shards)) == 0
    assert list(shards.glob("*.tar")) == []


def test_what_is_forgotten_stays_out_when_the_source_is_scrubbed_again(
    shards: Path, tmp_path: Path
) -> None:
    forget(hashlib.sha256(raw_picture(4)).hexdigest(), shards)
    report = write_shards(
        map(sample, range(9)), tmp_path / "again", Policy(), forgotten=forgotten_hashes(shards)
    )
    assert dict(report.quarantined) == {"forgotten": 1}
    assert 4 not in numbers(tmp_path / "again")
    assert forgotten_hashes(tmp_path / "again" / ledgers.NAME) == forgotten_hashes(shards)


def test_what_is_neither_file_nor_hash_is_named(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("not a hash")
    (tmp_path / "empty").mkdir()
    for what, message in {
        "nobody": "is no file and no hash",
        str(tmp_path / "words.txt"): "neither a picture nor a list of hashes",
        str(tmp_path / "empty"): "a folder without pictures",
    }.items():
        with pytest.raises(UsageError, match=message):
            forget(what, shards)


def test_a_damaged_set_is_refused_and_stays_as_it_is(shards: Path) -> None:
    data = bytearray((shards / "000001.tar").read_bytes())
    data[700] ^= 1
    (shards / "000001.tar").write_bytes(data)
    with pytest.raises(LedgerError, match="was changed after scrubbing"):
        forget("0" * 64, shards)


def test_sets_of_version_1_can_forget_too(shards: Path) -> None:
    ledger = json.loads((shards / ledgers.NAME).read_text())
    ledger["policy"] = {"name": "old", "text_rules": ["email", "card", "phone"]}
    ledger |= {"version": 1, "policy_hash": digest(ledger["policy"])}
    for key in ("removed", "replaces"):
        del ledger[key]
    del ledger["counts"]["visible"]
    ledger["self_hash"] = digest({k: v for k, v in ledger.items() if k != "self_hash"})
    ledgers.write(ledger, shards)
    assert len(ShardReader(shards)) == 9
    assert forget(ShardReader(shards)[3].source_id, shards).samples == 1
    assert ShardReader(shards).ledger["version"] == 2 and len(ShardReader(shards)) == 8


def test_killed_at_any_rename_the_same_command_finishes(shards: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    shutil.copytree(shards, whole)
    wanted = ShardReader(shards)[4].source_id
    forget(wanted, whole)
    for deadly in ("rename", "rmtree"):
        code = f"""
import os, shutil, signal
from pathlib import Path
from mm.data import forget
def die(*arguments, **options):
    if {deadly!r} == "rename" or ".forgotten" in str(arguments[0]):
        os.kill(os.getpid(), signal.SIGKILL)
owner = Path if {deadly!r} == "rename" else shutil
original = getattr(owner, {deadly!r})
def after(*arguments, **options):
    if {deadly!r} == "rmtree":
        die(*arguments)
    original(*arguments, **options)
    if {deadly!r} == "rename":
        die()
setattr(owner, {deadly!r}, after)
forget.forget({wanted!r}, {str(tmp_path / deadly)!r})
"""
        shutil.copytree(shards, tmp_path / deadly)
        (tmp_path / f".{deadly}.forgotten").mkdir()  # what an earlier kill has left
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
        assert done.returncode == -signal.SIGKILL
        forget(wanted, tmp_path / deadly)
        assert numbers(tmp_path / deadly) == [0, 1, 2, 3, 5, 6, 7, 8]
        assert not [path for path in tmp_path.iterdir() if path.name.startswith(f".{deadly}")]


def test_without_hard_links_files_are_copied(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*paths: object) -> None:
        raise OSError

    monkeypatch.setattr(os, "link", refuse)
    assert forget(ShardReader(shards)[4].source_id, shards).samples == 1
    assert len(ShardReader(shards)) == 8


def test_runs_and_checkpoints_trained_before_are_listed(shards: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    used = ShardReader(shards).ledger["self_hash"]
    for name, ledger in {"hers": used, "other": "0" * 64}.items():
        (runs / name / "checkpoints" / "step-00000100").mkdir(parents=True)
        (runs / name / "model").mkdir()
        facts = {"ledgers": {"set": ledger}}
        (runs / name / "run.json").write_text(json.dumps(facts))
        (runs / name / "model" / "config.json").write_text(json.dumps({"training": facts}))
    (runs / "broken").mkdir()
    (runs / "broken" / "run.json").write_text("{")
    removal = forget(ShardReader(shards)[1].source_id, shards)
    removal = forget(ShardReader(shards)[1].source_id, shards)  # the first ledger still counts
    assert trained_on(removal.ledgers, runs) == [
        str(runs / "hers"),
        str(runs / "hers" / "checkpoints" / "step-00000100"),
        str(runs / "hers" / "model"),
    ]
    assert module.trained_on([], runs) == []


def test_origins_survive_a_second_scrubbing(shards: Path, tmp_path: Path) -> None:
    source = build("webdataset", str(shards))
    assert source.count() == 9  # type: ignore[attr-defined]
    write_shards(source, tmp_path / "twice", Policy(encoding="jpeg"))
    assert forget(hashlib.sha256(raw_picture(3)).hexdigest(), tmp_path / "twice").samples == 1
