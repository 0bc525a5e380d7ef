"""One process and several are one run: the same weights, every sample once, checkpoints whole."""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from mm.checkpoints import native
from mm.data.sample import Sample
from mm.data.scenes.language import corpus
from mm.data.shards import write_shards
from mm.errors import ConfigError
from mm.privacy.door import encode_png
from mm.privacy.policy import Policy
from mm.text.tokenizer import train_tokenizer
from mm.train import build, loop
from mm.train.distributed import World, join, teller
from mm.train.feeds import ShardFeed
from mm.train.pieces import Stored
from mm.train.run import RunFolder
from tests.data.scenes.test_layout import sampler
from tests.tiny_artwork import write_artwork
from tests.train import tiny_run
from tests.train.together import together

ROOT = Path(__file__).resolve().parents[2]
EXPERTS = (
    "++decoder.config={num_experts: 4, num_experts_per_tok: 2, moe_intermediate_size: 16,"
    " router_aux_loss_coef: 0.5}"
)
LORA = ("recipe.lora.decoder={rank: 2}", "recipe.lora.encoder={rank: 2, targets: [q_proj, fc1]}")
STAGES = (
    "recipe.stages=[{name: align, steps: 2, train: [projector]},"
    " {name: rest, train: [encoder, decoder]}]"
)
SHORT = ("recipe.steps=4", "recipe.accumulate=2", "recipe.log_every=1", "recipe.checkpoint_every=4")


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with artwork, a tokenizer and shards of samples of different lengths."""
    folder = tmp_path_factory.mktemp("ready")
    write_artwork(folder / "artwork")
    rng = random.Random(0)
    words = corpus((sampler().draw(rng) for _ in range(200)), rng)
    train_tokenizer(words, 600).save(folder / "tokenizer.json")
    image = encode_png(Image.new("RGB", (40, 30), (40, 90, 20)))
    samples = [
        Sample([image], [("user", "<image>a cup?"), ("assistant", "yes " * n)], {}, f"{n:064x}")
        for n in range(1, 25)
    ]
    asked = [("user", "a cup?"), ("assistant", "yes " * 24)]
    texts = [Sample([], asked, {}, f"{n:064x}") for n in range(100, 112)]
    write_shards(texts, folder / "texts", Policy())
    write_shards(samples, folder / "shards", Policy())
    return folder


@pytest.fixture
def folder(ready: Path, tmp_path: Path) -> Iterator[Path]:
    for name in ("artwork", "tokenizer.json", "shards", "texts"):
        (tmp_path / name).symlink_to(ready / name)
    yield tmp_path


def two(work: Any, folder: Path, *arguments: Any, codes: tuple[int, int] = (0, 0)) -> str:
    """Do it in two processes, which must end with these codes; return what they wrote."""
    found = together(2, work, folder, *arguments, log=folder / "log")
    said = (folder / "log-0").read_text() + (folder / "log-1").read_text()
    assert tuple(found) == codes, said
    return said


def lines(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    "more", [(), (EXPERTS,), (*LORA, STAGES)], ids=["dense", "experts", "adapters-in-stages"]
)
def test_two_processes_train_what_one_does(folder: Path, more: tuple[str, ...]) -> None:
    more = (*SHORT, *more)
    tiny_run.train(folder, *more, f"output={folder}/one")
    two(tiny_run.train, folder, *more, f"output={folder}/two")
    for part in ("weights", "optimizer"):
        one, other = (
            Stored(folder / f"{name}/checkpoints/step-00000004/{part}") for name in ("one", "two")
        )
        assert one.names == other.names
        for name in one.names:
            # All keys' bias adds the same to every score: its gradient is nothing but rounding,
            # which Adam makes as large as any other.
            if not name.endswith("k_proj.bias"):
                torch.testing.assert_close(one.whole(name), other.whole(name), rtol=0, atol=1e-5)
    for ours, theirs in zip(lines(folder / "one"), lines(folder / "two"), strict=True):
        for key in ("loss", "patch_loss", "gradient_norm", "balance_loss", "tokens"):
            assert ours.get(key, 0.0) == pytest.approx(theirs.get(key, 0.0), rel=1e-5)
    saved = [native.load(folder / f"{name}/model").model.state_dict() for name in ("one", "two")]
    assert saved[0].keys() == saved[1].keys()
    files = sorted(p.name for p in (folder / "two/checkpoints/step-00000004/weights").iterdir())
    assert files == [f"piece-0000{n}-of-00002.safetensors" for n in (1, 2)] + ["pieces.json"]


def train_shards(
    folder: Path,
    name: str,
    *overrides: str,
    sets: tuple[str, ...] = ("shards",),
    row_length: int = 256,
) -> None:
    """Train on the shards, noting what each step's process saw."""
    plain, text = tiny_run.config(folder, *overrides, f"output={folder}/{name}")
    stream = {"rows": 1, "row_length": row_length, "images_per_row": 2}
    plain["data"] = {
        "kind": "shards",
        "shards": [f"{folder}/{name}" for name in sets],
        "stream": stream,
    }
    pixels = ShardFeed.pixels

    def noted(self: ShardFeed, batch: Any, generator: torch.Generator) -> Any:
        with (folder / f"{name}-seen").open("a") as file:
            file.write(json.dumps([batch.step, batch.sources]) + "\n")
        return pixels(self, batch, generator)

    ShardFeed.pixels = noted  # type: ignore[method-assign]
    try:
        build.run(plain, text, lambda *_: None)
    finally:
        ShardFeed.pixels = pixels  # type: ignore[method-assign]


def test_one_process_then_two_then_one_see_every_sample_once(folder: Path) -> None:
    train_shards(folder, "alone", "recipe.steps=6", "recipe.accumulate=2")
    changed = ("recipe.accumulate=2", "recipe.decay_share=0", "recipe.checkpoint_every=1")
    train_shards(folder, "changing", *changed, "recipe.steps=2")
    two(train_shards, folder, "changing", *changed, "recipe.steps=4")
    train_shards(folder, "changing", *changed, "recipe.steps=6")
    seen = {}
    for name in ("alone", "changing"):
        found = map(json.loads, (folder / f"{name}-seen").read_text().splitlines())
        seen[name] = sorted((step, tuple(sources)) for step, sources in found)
    assert seen["alone"] == seen["changing"]
    assert [step for step, _ in seen["alone"]] == list(range(12))
    times = Counter(source for _, sources in seen["changing"] for source in sources)
    assert len(times) == 24 and set(times.values()) == {1}


def train_texts(folder: Path, name: str, *overrides: str) -> None:
    """Rows of pictures and rows of text alone, one to a batch."""
    train_shards(folder, name, *overrides, sets=("shards", "texts"), row_length=80)


def test_rows_of_text_alone_are_learned_beside_pictures(folder: Path) -> None:
    more = (*SHORT, "recipe.steps=9", "recipe.checkpoint_every=9")
    train_texts(folder, "one", *more)
    two(train_texts, folder, "two", *more)
    one, other = (lines(folder / name) for name in ("one", "two"))
    assert [x["left_out"] for x in one] == [0] * 9
    for ours, theirs in zip(one, other, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
    found = map(json.loads, (folder / "two-seen").read_text().splitlines())
    alone = {step for step, sources in found if all(int(s, 16) >= 100 for s in sources)}
    assert any(step ^ 1 not in alone for step in alone), "no step is of both kinds"


def evaluated(folder: Path) -> None:
    """A run whose measure is the mean of a weight, taken during the run and after it."""

    def mean(model: Any) -> dict[str, float]:
        assert not model.training
        return {"held_out/mean": float(model.decoder.lm_head.weight.detach().abs().mean())}

    plain, text = tiny_run.config(
        folder, *SHORT, *LORA, "recipe.evaluate_every=2", "++data.held_out.scenes=1"
    )
    build.run(plain, text, lambda *_: mean)


def test_the_first_process_evaluates_the_whole_model(folder: Path) -> None:
    two(evaluated, folder)
    found = [line for line in lines(folder / "run") if "held_out/mean" in line]
    assert [line["step"] for line in found] == [2, 4]
    end = native.load(folder / "run/model").model.decoder.lm_head.weight.detach().abs().mean()
    assert found[-1]["held_out/mean"] == pytest.approx(float(end), rel=1e-2)


def full_disk(folder: Path) -> None:
    """The second process can't write files of more than some kilobytes from the third step on."""
    plain = loop.backward

    def limited(*arguments: Any) -> torch.Tensor:
        (batch, *_) = arguments[2]
        if batch.step >= 2 and os.environ["RANK"] == "1":
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        return plain(*arguments)

    loop.backward = limited  # type: ignore[assignment]
    tiny_run.train(folder, *SHORT, "recipe.checkpoint_every=1")


def test_a_full_disk_is_an_error_that_leaves_whole_checkpoints(folder: Path) -> None:
    said = two(full_disk, folder, codes=(1, 1))
    assert said.count("CheckpointError: cannot write") >= 2 and "File too large" in said
    assert "step-00000001 is whole, and the same command goes on from it" in said
    assert [p.name for p in (folder / "run/checkpoints").iterdir()] == ["step-00000001"]
    two(tiny_run.train, folder, *SHORT)
    assert lines(folder / "run")[-1]["step"] == 4


@pytest.mark.slow
def test_signals_under_torchrun_save_once_and_it_goes_on(folder: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--standalone", "-m", "tests.train.tiny_run", str(folder)]
    command += ["recipe.accumulate=2", "recipe.log_every=1", "recipe.num_workers=1"]
    for name in (signal.SIGTERM, signal.SIGINT):
        process = subprocess.Popen(
            [*command, "recipe.steps=100000", "recipe.checkpoint_every=100000"],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert process.stderr
        seen = ""
        for line in process.stderr:
            seen += line
            if line.startswith("step "):
                break
        assert process.poll() is None, seen
        time.sleep(0.5)
        os.killpg(process.pid, name)
        rest = process.communicate(timeout=60)[1]
        assert process.returncode != 0 and "goes on from there" in rest, rest
        steps = [p.name for p in (folder / "run/checkpoints").iterdir()]
        assert len(steps) == (1 if name == signal.SIGTERM else 2) and steps[0].startswith("step-")


@pytest.mark.slow
def test_the_same_count_gives_the_same_bits(folder: Path) -> None:
    two(tiny_run.train, folder, *SHORT, f"output={folder}/first")
    two(tiny_run.train, folder, *SHORT, "recipe.checkpoint_every=2", f"output={folder}/second")
    shutil.rmtree(folder / "second/checkpoints/step-00000004")
    two(tiny_run.train, folder, *SHORT, f"output={folder}/second")
    for part in ("weights", "optimizer"):
        for rank in (1, 2):
            file = f"checkpoints/step-00000004/{part}/piece-0000{rank}-of-00002.safetensors"
            assert (folder / "first" / file).read_bytes() == (folder / "second" / file).read_bytes()


def test_batches_that_cannot_be_shared_out_are_refused() -> None:
    assert [list(World(rank, 2).part(4)) for rank in (0, 1)] == [[0, 1], [2, 3]]
    with pytest.raises(ConfigError, match=r"recipe\.accumulate is 3.*2 processes.*such as 4"):
        World(0, 2).part(3)


def test_errors_that_all_meet_are_told_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert teller(ValueError()) == "error"
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert teller(ConfigError()) is None
    assert teller(OSError()) == "error in process 2 of 2"


def test_one_process_agrees_with_itself() -> None:
    with join(torch.device("cpu")) as world:
        assert world == World() and world.any(True) and not world.any(False)
        assert world.gather(3) == [3] and world.share("a", -1) == "a"
        assert world.total(torch.tensor(2.0)) == 2
        assert list(world.part(3)) == [0, 1, 2]


def test_the_folder_of_another_process_stays_as_it_is(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, world=World(1, 2))
    folder.log({"step": 1})
    folder.write("note.txt", "nothing")
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoints"]
