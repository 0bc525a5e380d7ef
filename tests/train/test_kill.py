"""kill -9 at random instants, again and again, ends with the weights of a run left alone."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mm.data.scenes.language import corpus
from mm.text.tokenizer import train_tokenizer
from tests.data.scenes.test_layout import sampler
from tests.tiny_artwork import write_artwork

ROOT = Path(__file__).resolve().parents[2]
KILLS = 20
MORE = ("recipe.steps=240", "recipe.checkpoint_every=3", "recipe.warmup_steps=5")


def digest(run: Path) -> str:
    """Hash of the last checkpoint's weights and optimiser, and of the finished model."""
    newest = run / "checkpoints/step-00000240"
    files = [*newest.rglob("*.safetensors"), run / "model/model.safetensors"]
    return hashlib.sha256(b"".join(file.read_bytes() for file in sorted(files))).hexdigest()


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_twenty_kills_leave_the_weights_of_an_uninterrupted_run(
    tmp_path: Path, optimizer: str
) -> None:
    write_artwork(tmp_path / "artwork")
    texts_of = random.Random(0)
    texts = corpus((sampler().draw(texts_of) for _ in range(200)), texts_of)
    train_tokenizer(texts, 600).save(tmp_path / "tokenizer.json")
    command = [
        sys.executable,
        "-m",
        "tests.train.tiny_run",
        str(tmp_path),
        *MORE,
        f"optimizer={optimizer}",
    ]

    def begin(output: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*command, f"output={tmp_path}/{output}"],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    assert begin("alone").wait(600) == 0
    rng = random.Random(7)
    run, kills = tmp_path / "killed", 0
    while kills < KILLS:
        log = run / "metrics.jsonl"
        before = log.stat().st_mtime_ns if log.exists() else 0
        process = begin("killed")
        # Steps have begun once a line is logged; then up to a few checkpoints later.
        while process.poll() is None and not (log.exists() and log.stat().st_mtime_ns > before):
            time.sleep(0.002)
        time.sleep(rng.uniform(0.0, 0.25))
        process.kill()
        if process.wait() != -signal.SIGKILL:
            break
        kills += 1
    assert kills == KILLS, f"the run was over after {kills} kills"
    assert begin("killed").wait(600) == 0
    assert digest(run) == digest(tmp_path / "alone")
