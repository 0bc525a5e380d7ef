"""Measure what PRIVACY.md claims of whole runs: `python -m tests.privacy.measure [NAME...]`.

Everything in it is made up. Prints one line per claim. No part of the test run, which holds the
same properties at small n.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from mm.data.forget import forget
from mm.data.sample import Sample
from mm.data.shard_writer import partial_of
from mm.data.shards import ShardReader, write_shards
from mm.data.sources import build
from mm.privacy.encode import encode_jpeg
from mm.privacy.errors import PrivacyError
from mm.privacy.metadata import check_pixels_only
from mm.privacy.policy import Policy
from mm.privacy.text import find_all, scrub_text
from tests.privacy import planted as plant

ROOT = Path(__file__).resolve().parents[2]


def share(name: str, hits: int, n: int) -> None:
    """Print a share with its 95 % Wilson interval."""
    z, p = 1.96, hits / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * ((p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5)
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    print(f"{name}: {hits} of {n} = {p:.4f} [{low:.4f}, {high:.4f}]", flush=True)


def encoders(n: int = 600) -> None:
    """Check pictures of random sizes and noise, as each encoder writes them."""
    rng, passed = random.Random(0), 0
    for index in range(n):
        size = (rng.randrange(1, 200), rng.randrange(1, 200))
        image = Image.frombytes("RGB", size, rng.randbytes(3 * size[0] * size[1]))
        encoding = ("png", "webp", "jpeg")[index % 3]
        policy = Policy(encoding=encoding, quality=rng.choice([40, 75, 92, 100]))
        passed += check_pixels_only(policy.encode(image)) == encoding
    share("own encoders pass the strict check", passed, n)


def tampered(n: int = 20_000) -> None:
    """Change one byte anywhere: of the ledger every one, of the shards random ones."""
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out")
        samples = [Sample([plant.planted(kind)]) for kind in plant.FORMATS]
        write_shards(samples, out, Policy(), max_shard_bytes=20_000)
        for name, paths in {
            "the ledger, every byte": [out / "ledger.json"],
            "the shards": sorted(out.glob("*.tar")),
        }.items():
            refused = tried = 0
            for path in paths:
                good = path.read_bytes()
                places = list(range(len(good)))
                if path.suffix == ".tar":
                    places = rng.sample(places, min(len(places), n // len(paths)))
                for place in places:
                    bad = bytearray(good)
                    bad[place] ^= rng.randrange(1, 256)
                    path.write_bytes(bad)
                    tried += 1
                    try:
                        ShardReader(out)
                    except PrivacyError:
                        refused += 1
                path.write_bytes(good)
            share(f"one changed byte is refused, {name}", refused, tried)
            assert len(ShardReader(out)) == len(samples)


def folder_of_photos(folder: Path, records: int, side: int = 1024) -> Path:
    """Write photo-like JPEGs, and a list that names each of them again and again."""
    for number in range(16):
        noise = Image.effect_noise((side, side * 3 // 4), 30 + number)
        image = Image.merge("RGB", (noise, noise.rotate(180), noise)).resize(noise.size)
        (folder / f"{number}.jpg").write_bytes(encode_jpeg(image, 90))
    with open(folder / "data.jsonl", "w") as file:
        for number in range(records):
            words = f"Photo {number}, write to jane{number}@example.com or 010-1234-{number:04}"
            turns = [["user", "<image>What is this?"], ["assistant", words]]
            file.write(json.dumps({"images": [f"{number % 16}.jpg"], "turns": turns}) + "\n")
    return folder / "data.jsonl"


def same_ledger(records: int = 600) -> None:
    """Scrub one source in this process, in two, killed three times over, and on Ray."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = f"source.path={folder_of_photos(folder, records, side=512)}"
        found: dict[str, str] = {}
        ways = {"workers=0": [], "workers=2": [], "killed": ["workers=2"]}
        ways |= {"backend=ray": ["workers=2"]} if find_spec("ray") else {}
        for way, more in ways.items():
            output = folder / way
            command = [sys.executable, "scripts/scrub.py", "source=jsonl", source, *more]
            command += [f"output='{output}'", "max_shard_bytes=2000000"]
            command += [way] if "=" in way else []
            deaths = 0
            while way == "killed" and deaths < 3:
                run = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
                wait_for_lines(partial_of(output) / "journal.jsonl", 3 * (deaths + 1), run)
                run.send_signal(signal.SIGKILL)
                run.wait()
                assert not output.exists()
                deaths += 1
            start = time.monotonic()
            subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
            found[way] = ShardReader(output).ledger["self_hash"]
            took = time.monotonic() - start
            print(f"ledger, {way}: {found[way]} ({took:.0f} s, {deaths} kills)", flush=True)
        assert len(set(found.values())) == 1


def wait_for_lines(path: Path, number: int, run: "subprocess.Popen[bytes]") -> None:
    """Wait until a journal has so many lines."""
    while not (path.exists() and path.read_bytes().count(b"\n") > number):
        assert run.poll() is None
        time.sleep(0.01)


def memory() -> None:
    """Peak memory of the process that writes and of its largest worker, and the rate."""
    code = """
import resource, sys, time
from mm.data.shards import write_shards
from mm.data.sources import build
from mm.privacy.policy import Policy
if __name__ == "__main__":
    start = time.monotonic()
    write_shards(build("jsonl", sys.argv[1]), sys.argv[2], Policy(encoding="jpeg"),
                 workers=int(sys.argv[3]), max_shard_bytes=32 * 2**20)
    took = time.monotonic() - start
    peaks = [resource.getrusage(who).ru_maxrss / 1024
             for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(f"{peaks[0]:.0f} MiB, largest worker {peaks[1]:.0f} MiB, {took:.0f} s")
"""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "run.py").write_text(code)
        for records, workers in ((500, 1), (500, 2), (4000, 2)):
            lines = folder_of_photos(folder, records)
            command = [sys.executable, str(folder / "run.py"), str(lines)]
            command += [str(folder / f"out-{records}-{workers}"), str(workers)]
            said = subprocess.run(
                command, check=True, capture_output=True, text=True, env=with_path()
            ).stdout.strip()
            print(f"{records} photos of 1024 x 768, {workers} workers: {said}", flush=True)


def with_path() -> dict[str, str]:
    """The environment, with this repository to import from."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def forgotten(n: int = 40) -> None:
    """Remove pictures by their raw files, one after the other, from a set of 100."""
    rng = random.Random(0)
    pictures = [
        encode_jpeg(Image.effect_noise((40, 30), 10 + k).convert("RGB")) for k in range(100)
    ]
    with tempfile.TemporaryDirectory() as folder:
        out, photo = Path(folder, "out"), Path(folder, "photo.jpg")
        write_shards([Sample([data]) for data in pictures], out, Policy(), max_shard_bytes=30_000)
        gone = 0
        for place in rng.sample(range(100), n):
            photo.write_bytes(pictures[place])
            gone += forget(str(photo), out).samples == 1
        assert len(ShardReader(out)) == 100 - n
        share("pictures removed by their raw file, and no other", gone, n)


def clean_texts() -> None:
    """Count the texts of easy-VQA that are changed; none holds anything personal."""
    if not find_spec("easy_vqa"):
        return
    texts = [
        words
        for split in ("train", "test")
        for sample in build("easy_vqa", "", split=split)
        for _, words in sample.turns
    ]
    touched = {text: bool(find_all(text)) for text in set(texts)}
    share("easy-VQA texts changed without need", sum(touched[text] for text in texts), len(texts))


def twice(n: int = 20_000) -> None:
    @settings(max_examples=n, deadline=None, database=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(st.one_of(st.text(max_size=60), st.text("0123456789-. ()+@/a가０\u200b", max_size=60)))
    def holds(text: str) -> None:
        once, _ = scrub_text(text)
        assert scrub_text(once) == (once, {})

    holds()
    print(f"scrubbing twice equals once: {n} random texts, no exception", flush=True)


CLAIMS = (encoders, tampered, forgotten, same_ledger, memory, clean_texts, twice)


def main(names: list[str]) -> None:
    for claim in CLAIMS:
        if claim.__name__ in names or not names:
            claim()


if __name__ == "__main__":
    main(sys.argv[1:])
