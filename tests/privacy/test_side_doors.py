"""What a run leaves anywhere, whether it ends well, badly or is killed, holds nothing personal.

Secrets are planted in every place that a source has. Then everything that the run printed or left
on disk is searched: raw, unpacked, as UTF-16 and as base64.
"""

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mm.data.shard_writer import partial_of
from mm.data.sources import names
from scripts import scrub
from tests.privacy import planted as plant
from tests.privacy.test_scrub import every_byte

ROOT = Path(__file__).resolve().parents[2]
SECRETS = (
    "PLANTED", "jane.roe@example.com", "janeroe", "010-1234-5678", "01012345678",
    "4111 1111 1111 1111", "4111111111111111", "GPSLatitude",
)  # fmt: skip
WORDS = "Jane: jane.roe@example.com, 010-1234-5678, 4111 1111 1111 1111"


def needles() -> Iterator[bytes]:
    for secret in SECRETS:
        yield secret.encode()
        yield secret.encode("utf-16-le")
        for shift in range(3):  # base64 of a secret at any place of a text
            packed = base64.b64encode(b"\0" * shift + secret.encode())
            yield packed[4 if shift else 0 : -4]
    yield from plant.GPS_BYTES


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Whole and broken records with secrets in pictures, names, texts, tags and broken parts."""
    folder = tmp_path / "raw"
    folder.mkdir()
    for kind in plant.FORMATS:
        (folder / f"PLANTED-janeroe.{kind}").write_bytes(plant.planted(kind))
    (folder / "PLANTED-cut.png").write_bytes(plant.planted("png")[:900])
    (folder / "PLANTED-text.jpg").write_bytes(WORDS.encode())
    damaged = bytearray(plant.planted("jpeg"))
    damaged[-500:-300] = WORDS.encode().ljust(200)
    (folder / "PLANTED-damaged.jpg").write_bytes(damaged)
    records: list[object] = []
    for number in range(60):
        name = f"PLANTED-janeroe.{plant.FORMATS[number % 6]}"
        turns = [["user", f"<image>Whose? {WORDS}"], ["assistant", f"{WORDS} {number}"]]
        records.append({"images": [name], "turns": turns, "tags": {"who": WORDS, WORDS: "x"}})
    ask = [["user", "<image>" + WORDS]]
    records[5:5] = [
        {"images": ["PLANTED-cut.png"], "turns": ask},
        {"images": ["PLANTED-text.jpg"], "turns": ask},
        {"images": ["PLANTED-damaged.jpg"], "turns": ask},
        {"images": ["PLANTED-none.jpg"], "turns": ask},
        {"images": ["../PLANTED.jpg"], "turns": ask},
        {"images": ["PLANTED-janeroe.png"], "turns": [["PLANTED-role", WORDS]]},
        {"images": [], "turns": ask},
        {"images": ["PLANTED-janeroe.png"], "turns": [["user", WORDS + "\ud800"]]},
        {"images": [WORDS], "turns": WORDS},
        [WORDS],
        {"images": ["\0PLANTED"], "turns": ask},
    ]
    lines = [json.dumps(record) for record in records]
    lines.insert(9, '{"images": ["PLANTED", ' + WORDS)
    (folder / "data.jsonl").write_text("\n".join(lines))
    return folder


def run(tmp_path: Path, *arguments: str, kill_when: Path | None = None) -> tuple[int, str]:
    """Run the script with its own home, temporary folder and working directory."""
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "HOME": str(home), "TMPDIR": str(home),
        "XDG_CACHE_HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONFAULTHANDLER": "1",
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "scripts" / "scrub.py"), *arguments],
        cwd=home,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while kill_when is not None and process.poll() is None:
        if kill_when.exists() and kill_when.read_bytes().count(b"\n") > 2:
            process.send_signal(signal.SIGKILL)
            break
    said = process.communicate(timeout=120)[0]
    return process.returncode, said


def assert_clean(tmp_path: Path, said: str) -> None:
    """Search the output and everything on disk but the source itself."""
    shutil.rmtree(tmp_path / "raw")
    blobs = [said.encode(), *every_byte(tmp_path)]
    for blob in list(blobs):
        try:
            blobs.append(zlib.decompress(blob))
        except zlib.error:
            pass
    assert said.strip()
    for needle in needles():
        for blob in blobs:
            assert needle not in blob


def test_a_search_finds_what_is_planted(raw: Path, tmp_path: Path) -> None:
    """The check can fail: in the source itself each secret is found."""
    data = b"".join(path.read_bytes() for path in raw.iterdir())
    for secret in ("PLANTED", "jane.roe@example.com", "010-1234-5678", "4111 1111 1111 1111"):
        assert secret.encode() in data
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "leak").write_bytes(base64.b64encode(b"x 010-1234-5678 y"))
    with pytest.raises(AssertionError):
        assert_clean(tmp_path, "said")


def test_a_whole_run_leaves_nothing(raw: Path, tmp_path: Path) -> None:
    status, said = run(
        tmp_path,
        "source=jsonl",
        f"source.path={raw / 'data.jsonl'}",
        f"output={tmp_path / 'out'}",
        "workers=2",
    )
    assert status == 1, said
    assert "quarantined: " in said and "missing" in said and "bad-record" in said
    assert said.count("sample ") >= 11
    assert list((tmp_path / "home").iterdir()) == []
    assert_clean(tmp_path, said)


def test_a_killed_run_leaves_nothing_but_what_is_scrubbed(raw: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    status, said = run(
        tmp_path,
        "source=jsonl",
        f"source.path={raw / 'data.jsonl'}",
        f"output={output}",
        "max_shard_bytes=20000",
        kill_when=partial_of(output) / "journal.jsonl",
    )
    assert status == -signal.SIGKILL
    shards = sorted(partial_of(output).glob("*.tar"))
    assert shards
    with open(shards[-1], "ab") as file:  # the last one has no end, which a reader of tars wants
        file.write(bytes(-shards[-1].stat().st_size % 512 + 1024))
    assert_clean(tmp_path, said + "killed")


@pytest.fixture
def here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Run the script in this process, in a working directory of its own."""
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "home")

    def act(*arguments: str) -> tuple[int, str]:
        return scrub.main(list(arguments)), "".join(capfd.readouterr())

    return act


def test_a_stopped_run_leaves_nothing(
    raw: Path, tmp_path: Path, here: Callable[..., tuple[int, str]]
) -> None:
    status, said = here(
        "source=jsonl",
        f"source.path={raw / 'data.jsonl'}",
        f"output={tmp_path / 'out'}",
        "policy.on_failure=stop",
        "workers=0",
    )
    assert status == 2 and "on_failure is stop" in said
    assert not (tmp_path / "out").exists()
    assert_clean(tmp_path, said)


def test_preview_verify_and_forget_say_nothing(
    raw: Path, tmp_path: Path, here: Callable[..., tuple[int, str]]
) -> None:
    source = ["source=jsonl", f"source.path={raw / 'data.jsonl'}", "workers=0"]
    said = here(*source, "preview=30")[1]
    assert "records before and after" in said and Path("preview.png").exists()
    said += here(*source, f"output={tmp_path / 'out'}")[1]
    said += here(f"verify={tmp_path / 'out'}", "workers=0")[1]
    shutil.copy(raw / "PLANTED-janeroe.jpeg", tmp_path / "photo.jpg")
    status, more = here(f"forget={tmp_path / 'photo.jpg'}", f"output={tmp_path / 'out'}")
    assert status == 0 and "10 samples removed" in more
    (tmp_path / "photo.jpg").unlink()
    assert_clean(tmp_path, said + more)


@pytest.mark.parametrize("name", names())
def test_a_broken_source_file_is_named_without_its_content(
    name: str, tmp_path: Path, raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each format, given a file that is none: at most its path is named, which the user typed."""
    if name == "easy_vqa":
        pytest.skip("its data come with a package")
    folder = tmp_path / "given"
    folder.mkdir()
    path = folder / ("x.tar" if name == "webdataset" else "x.parquet" if name == "parquet" else "x")
    path.write_text('{"images": [{"id": 1, "file_name": "PLANTED"}], ' + WORDS)
    (folder / "captions.txt").write_text(WORDS)
    given = folder if name == "folder" else path
    arguments = [f"source={name}", f"source.path={given}", f"output={tmp_path / 'out'}"]
    arguments += ["source.caption=text"] if name == "parquet" else []
    status = scrub.main([*arguments, "workers=0"])
    said = "".join(capsys.readouterr())
    assert status in (1, 2), said
    shutil.rmtree(folder)
    assert_clean(tmp_path, said)
