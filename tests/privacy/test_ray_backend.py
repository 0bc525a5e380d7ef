"""Ray Data gives the bytes of a local run, loses one record to a crash and leaves nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mm.data.shards import ShardReader, write_shards
from mm.data.sources import build
from mm.privacy import ray_backend
from mm.privacy.errors import ScrubError
from mm.privacy.policy import Policy
from tests.privacy import planted as plant

ROOT = Path(__file__).resolve().parents[2]
# In a process of its own: Ray leaves threads behind, and warns where warnings are errors here.
CODE = """
import os, signal, sys
from functools import partial
from mm.data.shard_writer import write_shards
from mm.data.sources import build
from mm.privacy import scrub
from mm.privacy.policy import Policy

def dying(item, **options):
    if item[0] == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return numbered(item, **options)

numbered = scrub.scrub_numbered
if __name__ == "__main__":
    if sys.argv[3] == "dying":
        scrub.scrub_numbered = dying
    report = write_shards(build("jsonl", sys.argv[1]), sys.argv[2], Policy(), workers=2,
                          backend="ray", max_shard_bytes=20_000)
    print(dict(report.quarantined))
"""


def test_windows_hold_a_bounded_number_of_items_and_bytes() -> None:
    class Heavy:
        images = (b"",)

    items = [(number, Heavy()) for number in range(10)]
    assert [len(window) for window in ray_backend._windows(items, 4)] == [4, 4, 2]
    old, ray_backend._WINDOW_BYTES = ray_backend._WINDOW_BYTES, 5
    Heavy.images = (b"abc",)
    try:
        assert [len(window) for window in ray_backend._windows(items, 4)] == [2] * 5
    finally:
        ray_backend._WINDOW_BYTES = old
    assert list(ray_backend._windows([], 4)) == []


def test_without_ray_the_error_names_the_install_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ScrubError, match=r"pip install 'mm\[ray\]'"):
        list(ray_backend.run_ordered(str, [(0, 1)], rescue=iter))


@pytest.mark.slow
def test_ray_gives_the_ledger_of_a_local_run_and_leaves_nothing(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="pip install 'mm[ray]'")
    raw = tmp_path / "raw"
    raw.mkdir()
    for kind in plant.FORMATS:
        (raw / f"PLANTED-Jane-Roe.{kind}").write_bytes(plant.planted(kind))
    with open(raw / "data.jsonl", "w") as file:
        for number in range(60):
            name = "none.png" if number == 17 else f"PLANTED-Jane-Roe.{plant.FORMATS[number % 6]}"
            turns = [["user", "<image>Whose?"], ["assistant", f"jane{number}@example.com"]]
            file.write(json.dumps({"images": [name], "turns": turns}) + "\n")
    source = build("jsonl", str(raw / "data.jsonl"))
    local = write_shards(source, tmp_path / "local", Policy(), workers=2, max_shard_bytes=20_000)
    assert dict(local.quarantined) == {"missing": 1}

    script, left = tmp_path / "on_ray.py", tmp_path / "tmp"
    script.write_text(CODE)
    left.mkdir()
    said = {}
    # A socket's path has to be short, so Ray's folder cannot lie deep in pytest's.
    before = set(Path("/tmp").glob("mm-ray-*"))
    for name in ("ray", "dying"):
        command = [sys.executable, str(script), str(raw / "data.jsonl"), str(tmp_path / name), name]
        done = subprocess.run(
            command,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": "/tmp"},
        )
        assert done.returncode == 0, done.stderr
        said[name] = done.stdout + done.stderr
    assert set(Path("/tmp").glob("mm-ray-*")) == before
    ledgers = {name: ShardReader(tmp_path / name).ledger for name in ("local", "ray", "dying")}
    assert ledgers["ray"] == ledgers["local"]
    assert ledgers["dying"]["counts"]["quarantined"] == {"missing": 1, "crashed": 1}
    assert ledgers["dying"]["counts"]["samples"] == 58
    for words in said.values():
        assert "Jane" not in words and "example.com" not in words
