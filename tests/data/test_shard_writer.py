"""A run that is stopped, killed or out of space goes on to the same bytes, or leaves nothing."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mm.data import shard_writer
from mm.data.sample import Pending
from mm.data.shard_writer import ShardWriter, partial_of, write_shards
from mm.data.shards import ShardReader
from mm.data.sources import build
from mm.privacy import ledger as ledgers
from mm.privacy.errors import OutputError, ScrubError
from mm.privacy.policy import Policy
from mm.privacy.scrub import KEY_VARIABLE
from tests.privacy import planted as plant

ROOT = Path(__file__).resolve().parents[2]
SMALL = 20_000  # bytes a shard, so that there are several


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    """30 records, of which every seventh cannot be read."""
    folder = tmp_path / "raw"
    folder.mkdir()
    for kind in plant.FORMATS:
        (folder / f"a.{kind}").write_bytes(plant.planted(kind))
    (folder / "a.bad").write_bytes(b"no picture")
    with open(folder / "data.jsonl", "w") as file:
        for number in range(30):
            name = "a.bad" if number % 7 == 3 else f"a.{plant.FORMATS[number % 6]}"
            turns = [["user", "<image>Whose?"], ["assistant", f"jane{number}@example.com"]]
            file.write(json.dumps({"images": [name], "turns": turns}) + "\n")
    return folder / "data.jsonl"


def finish(lines: Path, output: Path, **options: object) -> str:
    write_shards(build("jsonl", str(lines)), output, Policy(), max_shard_bytes=SMALL, **options)  # type: ignore[arg-type]
    return str(ShardReader(output).ledger["self_hash"])


class Stopped(Exception):
    pass


def stop_after(number: int) -> Callable[..., None]:
    def refusing(self: ShardWriter, *arguments: object) -> None:
        if self.records == number:
            raise Stopped
        original(self, *arguments)  # type: ignore[arg-type]

    original = ShardWriter.write
    return refusing


@pytest.mark.parametrize("number", [1, 8, 23])
def test_a_stopped_run_goes_on_to_the_same_ledger(
    lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    whole = finish(lines, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(ShardWriter, "write", stop_after(number))
        with pytest.raises(Stopped):
            finish(lines, tmp_path / "out")
    assert not (tmp_path / "out").exists() and partial_of(tmp_path / "out").is_dir()
    loaded = []
    with monkeypatch.context() as patch:
        patch.setattr(Pending, "load", counting(loaded))
        report = write_shards(
            build("jsonl", str(lines)), tmp_path / "out", Policy(), max_shard_bytes=SMALL
        )
    assert len(loaded) == 30 - number  # what was done is skipped unread
    assert report.samples + sum(report.quarantined.values()) == 30  # all of it is reported
    assert ShardReader(tmp_path / "out").ledger["self_hash"] == whole
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "raw", "whole"]


def counting(loaded: list[Pending]) -> Callable[..., object]:
    original = Pending.load

    def load(self: Pending, *arguments: int) -> object:
        loaded.append(self)
        return original(self, *arguments)

    return load


def test_kill_9_at_several_places_changes_nothing(lines: Path, tmp_path: Path) -> None:
    """Killed right after it has noted what is done, again and again, it ends with its ledger."""
    whole = finish(lines, tmp_path / "whole")
    code = f"""
import os, signal
from mm.data import shard_writer
from mm.data.sources import build
from mm.privacy.policy import Policy
from mm.data.shard_writer import ShardWriter, write_shards
commit, count = ShardWriter._commit, 0
def dying(self):
    global count
    commit(self)
    count += 1
    if count == 2:
        os.kill(os.getpid(), signal.SIGKILL)
ShardWriter._commit = dying
out = {str(tmp_path / "out")!r}
write_shards(build("jsonl", {str(lines)!r}), out, Policy(), max_shard_bytes={SMALL})
"""
    deaths = 0
    while (
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode
        == -signal.SIGKILL
    ):
        deaths += 1
        assert deaths < 20 and not (tmp_path / "out").exists()
    assert deaths >= 2
    assert ShardReader(tmp_path / "out").ledger["self_hash"] == whole


@pytest.mark.slow
def test_kill_9_of_the_script_at_a_random_time(tmp_path: Path) -> None:
    """The command line, all processors, killed while it works; the same command goes on."""
    pytest.importorskip("easy_vqa", reason="pip install easy-vqa")
    ledger = {}
    for name in ("whole", "killed"):
        command = [sys.executable, "scripts/scrub.py", "source=easy_vqa", "source.split=train"]
        command += [f"output={tmp_path / name}", "max_shard_bytes=300000"]
        if name == "killed":
            run = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
            journal = partial_of(tmp_path / name) / "journal.jsonl"
            while not (journal.exists() and journal.read_bytes().count(b"\n") > 5):
                assert run.poll() is None
                time.sleep(0.01)
            run.send_signal(signal.SIGKILL)
            run.wait()
            assert not (tmp_path / name).exists()
        assert subprocess.run(command, cwd=ROOT, stderr=subprocess.DEVNULL).returncode == 0
        ledger[name] = ShardReader(tmp_path / name).ledger["self_hash"]
    assert ledger["whole"] == ledger["killed"]


def test_a_torn_journal_counts_up_to_its_last_whole_line(
    lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = finish(lines, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(ShardWriter, "write", stop_after(23))
        with pytest.raises(Stopped):
            finish(lines, tmp_path / "out")
    journal = partial_of(tmp_path / "out") / "journal.jsonl"
    data = journal.read_bytes()
    assert data.count(b"\n") > 3
    journal.write_bytes(data[:-20])
    with open(sorted(journal.parent.glob("*.tar"))[-1], "ab") as file:
        file.write(b"half a sample")
    assert finish(lines, tmp_path / "out") == whole


def test_other_settings_do_not_go_on(
    lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(ShardWriter, "write", stop_after(8))
        with pytest.raises(Stopped):
            finish(lines, tmp_path / "out")
    source, out = build("jsonl", str(lines)), tmp_path / "out"
    with pytest.raises(ScrubError, match="with another policy and max_shard_bytes .*fresh=true"):
        write_shards(source, out, Policy(name="other"))
    monkeypatch.setenv(KEY_VARIABLE, "0" * 16)
    with pytest.raises(ScrubError, match="with another source was stopped .*fresh=true"):
        other = build("jsonl", str(lines), root=str(tmp_path))
        write_shards(other, out, Policy(), max_shard_bytes=SMALL)
    whole = lines.read_text()
    for changed in ("{}\n" + whole, "\n".join(whole.split("\n")[:5])):  # longer, and shorter
        lines.write_text(changed)
        with pytest.raises(OutputError, match="the source has changed since .*fresh=true"):
            finish(lines, out)
    assert partial_of(out).exists()
    finish(lines, out, fresh=True)
    assert not partial_of(out).exists()


def test_two_runs_do_not_write_to_one_directory(lines: Path, tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "out", Policy()):
        with pytest.raises(ScrubError, match="another run is writing"):
            finish(lines, tmp_path / "out")


def test_a_full_disk_is_reported_and_what_is_done_is_kept(
    lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = finish(lines, tmp_path / "whole")
    original = ShardWriter._shard

    def full(self: ShardWriter, size: int) -> object:
        if self.records == 12:
            raise OSError(errno.ENOSPC, "PLANTED")
        return original(self, size)

    with monkeypatch.context() as patch:
        patch.setattr(ShardWriter, "_shard", full)
        with pytest.raises(OutputError) as caught:
            finish(lines, tmp_path / "out")
    assert "No space left on device" in str(caught.value) and "PLANTED" not in str(caught.value)
    assert "run the same command again" in str(caught.value)
    assert not (tmp_path / "out").exists()
    assert finish(lines, tmp_path / "out") == whole


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_fills_up_while_writing(
    lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real error of the system, in buffered writes and when the file is closed."""
    original = ShardWriter._shard

    def full(self: ShardWriter, size: int) -> object:
        if self.records == 12:
            os.dup2(os.open("/dev/full", os.O_WRONLY), original(self, 0).fileno())
        return original(self, size)

    with monkeypatch.context() as patch:
        patch.setattr(ShardWriter, "_shard", full)
        with pytest.raises(OutputError, match="cannot be written"):
            finish(lines, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    finish(lines, tmp_path / "out")


def test_a_disk_that_is_full_for_the_ledger_costs_no_work(
    lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "PLANTED")

    with monkeypatch.context() as patch:
        patch.setattr(ledgers, "write", full)
        with pytest.raises(OutputError, match="No space left"):
            finish(lines, tmp_path / "out")
    loaded: list[Pending] = []
    monkeypatch.setattr(Pending, "load", counting(loaded))
    finish(lines, tmp_path / "out")
    assert loaded == []


def test_an_output_that_cannot_be_made_is_named(lines: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file/out cannot be written \(Not a directory\)"):
        finish(lines, tmp_path / "file" / "out")


def test_commits_come_every_few_seconds(
    lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_writer, "_COMMIT_SECONDS", -1.0)
    seen: list[int] = []
    commit = ShardWriter._commit

    def noted(self: ShardWriter) -> None:
        commit(self)
        seen.append(self.records)

    monkeypatch.setattr(ShardWriter, "_commit", noted)
    write_shards(build("jsonl", str(lines)), tmp_path / "out", Policy())
    assert set(range(1, 31)) <= set(seen)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["000000.tar", ledgers.NAME]
