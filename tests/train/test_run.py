import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from mm.checkpoints import native
from mm.checkpoints.store import load_tensors
from mm.data.sample import Sample
from mm.data.scenes.artwork import load_artwork
from mm.data.scenes.files import (
    PLANTED_EXIF,
    PLANTED_TEXTS,
    FileConfig,
    write_scenes,
)
from mm.data.scenes.language import corpus
from mm.data.scenes.layout import SceneConfig
from mm.data.scenes.stream import Batch
from mm.data.shards import ShardReader, write_shards
from mm.data.sources.jsonl import Source
from mm.errors import CheckpointError, ConfigError, MMError, NotFiniteError
from mm.privacy.door import encode_png
from mm.privacy.errors import LedgerError
from mm.privacy.metadata import check_pixels_only
from mm.privacy.policy import Policy
from mm.text.tokenizer import train_tokenizer
from mm.train import loop, optimizer, step
from mm.train.build import run
from mm.train.distributed import World
from mm.train.recipe import RecipeConfig
from mm.train.run import Keep, RunFolder
from tests.data.scenes.test_layout import sampler
from tests.tiny_artwork import write_artwork
from tests.train import tiny_run

TIMED = ("tokens_per_s", "data_wait", "seconds_left")  # what differs from run to run
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with artwork and a tokenizer."""
    folder = tmp_path_factory.mktemp("ready")
    write_artwork(folder / "artwork")
    rng = random.Random(0)
    texts = corpus((sampler().draw(rng) for _ in range(200)), rng)
    train_tokenizer(texts, 600).save(folder / "tokenizer.json")
    return folder


@pytest.fixture
def folder(ready: Path, tmp_path: Path) -> Iterator[Path]:
    for name in ("artwork", "tokenizer.json"):
        (tmp_path / name).symlink_to(ready / name)
    yield tmp_path


def weights(folder: Path, step: int) -> dict[str, Any]:
    return load_tensors(folder / f"run/checkpoints/step-{step:08d}/weights")


def metrics(folder: Path) -> list[dict[str, float]]:
    lines = (folder / "run/metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMED} for line in lines]


@pytest.fixture(scope="module")
def uninterrupted(ready: Path) -> tuple[dict[str, Any], list[dict[str, float]]]:
    tiny_run.train(ready)
    return weights(ready, 12), metrics(ready)


def test_a_run_leaves_its_record_and_a_model(
    ready: Path, uninterrupted: tuple[dict[str, Any], list[dict[str, float]]]
) -> None:
    run = json.loads((ready / "run/run.json").read_text())
    assert run["ledgers"]["artwork"] == ShardReader(ready / "artwork").ledger["self_hash"]
    assert run["seed"] == 0
    assert "steps: 12" in (ready / "run/config.yaml").read_text()
    steps = [line["step"] for line in uninterrupted[1]]
    assert steps == [2, 4, 6, 8, 10, 12]
    assert uninterrupted[1][-1]["loss"] < uninterrupted[1][0]["loss"]
    kept = sorted(p.name for p in (ready / "run/checkpoints").iterdir())
    assert kept == ["step-00000008", "step-00000012"]
    loaded = native.load(ready / "run/model")
    assert loaded.config["decline"]["en"] == "I can't tell"


def test_the_smoke_experiment_learns_as_it_always_did(
    uninterrupted: tuple[dict[str, Any], list[dict[str, float]]],
) -> None:
    """A change of these numbers is a change of training: say why where it is made."""
    golden = {2: (6.400766, 8.781338), 6: (6.317832, 8.752060), 12: (6.179107, 8.475194)}
    found = {line["step"]: (line["loss"], line["patch_loss"]) for line in uninterrupted[1]}
    for number, losses in golden.items():  # other builds of torch add in another order
        assert found[int(number)] == pytest.approx(losses, rel=2e-4)


def test_killed_and_resumed_equals_never_stopped(
    folder: Path, uninterrupted: tuple[dict[str, Any], list[dict[str, float]]]
) -> None:
    """kill -9 after the first checkpoint, wherever the process then is; go on; same bits."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(os.environ.get("OMP_NUM_THREADS", "2"))}
    command = [sys.executable, "-m", "tests.train.tiny_run", str(folder)]
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    first = folder / "run/checkpoints/step-00000004"
    deadline = time.monotonic() + 120
    while not first.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    assert first.exists()
    process.kill()
    assert process.wait() == -signal.SIGKILL, "the run was over before it could be killed"
    with (folder / "run/metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')  # as a kill may tear it
    tiny_run.train(folder)
    wanted, logged = uninterrupted
    found = weights(folder, 12)
    assert found.keys() == wanted.keys()
    assert all((found[name] == wanted[name]).all() for name in wanted)
    assert metrics(folder) == logged


def test_sigterm_to_all_processes_saves_before_it_ends(folder: Path) -> None:
    command = [sys.executable, "-m", "tests.train.tiny_run", str(folder)]
    command += ["recipe.steps=100000", "recipe.checkpoint_every=100000", "recipe.num_workers=1"]
    process = subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stderr
    for line in process.stderr:
        if line.startswith("step "):
            break
    os.killpg(process.pid, signal.SIGTERM)
    rest = process.communicate(timeout=60)[1]
    assert process.returncode != 0 and "goes on from there" in rest
    assert list((folder / "run/checkpoints").glob("step-*/state.json"))


def test_training_gives_the_signals_back(folder: Path) -> None:
    before = [signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)]
    tiny_run.train(folder, "recipe.steps=1")
    assert [signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)] == before


def test_rows_that_hold_no_question_are_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="data.stream.row_length is 20, which holds no question"):
        tiny_run.train(folder, "data.stream.row_length=20")


def test_a_checkpoint_of_another_model_is_refused(folder: Path) -> None:
    tiny_run.train(folder, "recipe.steps=2", "recipe.checkpoint_every=2")
    with pytest.raises(CheckpointError, match="another model"):
        tiny_run.train(folder, "recipe.steps=4", "decoder.config.num_hidden_layers=1")


def test_a_torn_checkpoint_is_not_resumed_from(folder: Path) -> None:
    torn = folder / "run/checkpoints/.step-00000006.1"
    torn.mkdir(parents=True)
    (torn / "state.json").write_bytes(b"{")
    tiny_run.train(folder, "recipe.steps=2")
    assert not torn.exists()


def test_frozen_parts_keep_their_weights_and_init_is_where_training_starts(folder: Path) -> None:
    tiny_run.train(folder, "recipe.steps=2")
    start = native.load(folder / "run/model").model.state_dict()
    overrides = [f"init={folder}/run/model", f"output={folder}/second", "recipe.steps=3"]
    tiny_run.train(folder, *overrides, "recipe.frozen=[encoder]")
    end = native.load(folder / "second/model").model.state_dict()
    same = {name: bool((start[name] == end[name]).all()) for name in start}
    assert all(same[name] for name in same if name.startswith("encoder."))
    assert not same["projector.linear_1.weight"] and not same["decoder.lm_head.weight"]
    with pytest.raises(ConfigError, match="other sizes"):
        tiny_run.train(folder, *overrides, "decoder.config.num_hidden_layers=1")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+recipe.stepz=3", "did you mean 'steps'"),
        ("recipe.precision=fp8", "known: bf16, bf16_residual, fp32"),
        ("recipe.frozen=[encodr]", "did you mean 'encoder'"),
        ("recipe.frozen=[encoder,projector,decoder]", "nothing would be trained"),
        ("encoder.name=siglp", "did you mean 'siglip'"),
        ("+data.stream.row=3", "did you mean 'rows'"),
        ("data.kind=scene", "did you mean 'scenes'"),
        ("decoder.config.vocab_size=300", "the tokenizer has"),
        ("device=tpu", "known: auto, cpu, cuda"),
    ],
)
def test_mistakes_in_a_configuration_are_named(folder: Path, override: str, message: str) -> None:
    with pytest.raises((MMError, ValueError), match=message):
        tiny_run.train(folder, override)


def test_training_refuses_what_was_not_scrubbed(folder: Path) -> None:
    (folder / "raw").mkdir()
    (folder / "raw/000000.tar").write_bytes(b"\0" * 1024)
    with pytest.raises(LedgerError, match=r"scripts/scrub\.py"):
        tiny_run.train(folder, f"data.artwork=[{folder}/raw]")


def test_planted_secrets_are_nowhere_after_scrubbing_and_training(folder: Path) -> None:
    """Dirty files, through the scrubber and a whole run over shards: no needle is left anywhere."""
    artwork = load_artwork([folder / "artwork"])
    index = write_scenes(folder / "dirty", artwork, SceneConfig(), FileConfig(count=12))
    needles = [text.encode() for text in (*PLANTED_TEXTS.values(), *PLANTED_EXIF.values())]
    needles += [b"jane", b"Jane", b"PLANTED", b"4111", b"555-0143", b"Exif"]
    dirty = b"".join(p.read_bytes() for p in (folder / "dirty").iterdir())
    assert all(needle in dirty for needle in needles)
    report = write_shards(Source(str(index)), folder / "shards", Policy())
    assert report.samples == 12
    tiny_run.train(
        folder,
        "data=shards",
        f"data.shards=[{folder}/shards]",
        "++data.stream={rows: 2, row_length: 320, images_per_row: 1}",
        "recipe.steps=4",
    )
    searched = 0
    for path in [*(folder / "run").rglob("*"), *(folder / "shards").rglob("*")]:
        if path.is_file():
            # Digests hold four given digits now and then, by chance.
            data = re.sub(rb"\b(?:[0-9a-f]{64}|[0-9a-f]{40})\b", b"", path.read_bytes())
            assert not [needle for needle in needles if needle in data], path.name
            searched += 1
    assert searched > 8
    # Compressed parts hold none either: the pictures' own bytes decode to pixels and nothing else.
    for sample in ShardReader(folder / "shards"):
        assert [check_pixels_only(data) for data in sample.images] == ["png"]


def test_run_folder_keeps_the_old_checkpoint_until_the_new_one_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path, keep=Keep(newest=1))
    module = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(module.parameters())
    folder.save(1, module, optimizer)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mm.train.pieces.save_tensors", full)
    with pytest.raises(CheckpointError, match="No space left.*step-00000001 is whole"):
        folder.save(2, module, optimizer)
    assert folder.resume(module, optimizer) == 1


def test_statistics_of_a_part_are_in_the_checkpoint(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    module = torch.nn.BatchNorm1d(2)
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
    wanted = module.state_dict()
    folder.save(1, module, optimizer)
    fresh = torch.nn.BatchNorm1d(2)
    folder.resume(fresh, torch.optim.AdamW(fresh.parameters()))
    assert wanted["running_mean"].tolist() == pytest.approx([0.2, 0.5])
    assert all(torch.equal(fresh.state_dict()[name], wanted[name]) for name in wanted)


def test_stages_resume_in_the_middle_as_if_never_stopped(folder: Path) -> None:
    stages = (
        "recipe.stages=[{name: align, steps: 3, train: [projector]},"
        " {name: rest, train: [projector, decoder]}]"
    )
    more = [stages, "recipe.steps=6", "recipe.checkpoint_every=2", "recipe.warmup_steps=1"]
    tiny_run.train(folder, *more, f"output={folder}/run")
    tiny_run.train(folder, *more, f"output={folder}/again")
    shutil.rmtree(folder / "again/checkpoints/step-00000006")
    tiny_run.train(folder, *more, f"output={folder}/again")
    one = load_tensors(folder / "run/checkpoints/step-00000006/weights")
    other = load_tensors(folder / "again/checkpoints/step-00000006/weights")
    assert all((one[name] == other[name]).all() for name in one)
    lines = (folder / "again/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [2, 4, 6]


def test_shards_go_on_from_the_cursor_as_if_never_stopped(folder: Path, tmp_path: Path) -> None:
    image = encode_png(Image.new("RGB", (40, 30), (40, 90, 20)))
    turns = [("user", "<image>a cup?"), ("assistant", "a red cup"), ("user", "how many?")]
    samples = [
        Sample([image], [*turns, ("assistant", "yes " * n)], {}, f"{n:064x}") for n in range(1, 24)
    ]
    write_shards(samples, tmp_path / "shards", Policy())
    data = {
        "kind": "shards",
        "shards": [str(tmp_path / "shards")],
        "stream": {"rows": 2, "row_length": 512, "images_per_row": 3},
    }
    found = []
    for name in ("through", "stopped"):
        if name == "stopped":
            shutil.copytree(tmp_path / "through", tmp_path / name)
            for step in (8, 12):
                shutil.rmtree(tmp_path / name / f"checkpoints/step-{step:08d}")
            shutil.rmtree(tmp_path / name / "model")
        plain, text = tiny_run.config(
            folder, f"output={tmp_path}/{name}", "recipe.keep_checkpoints=3"
        )
        plain["data"] = data
        run(plain, text, lambda *_: None)
        newest = tmp_path / name / "checkpoints/step-00000012"
        cursor = json.loads((newest / "state.json").read_text())["cursor"]
        assert cursor["step"] == 12 and cursor["epoch"] > 0
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        metrics = [{**json.loads(line), **dict.fromkeys(TIMED, 0)} for line in lines]
        assert 0 < metrics[-1]["fill"] <= 1 and metrics[-1]["left_out"] == 0
        weights = {name: t.tolist() for name, t in load_tensors(newest / "weights").items()}
        found.append((cursor, weights, metrics))
    assert found[0] == found[1]


def test_an_adapted_decoder_is_saved_merged(folder: Path) -> None:
    tiny_run.train(folder, "recipe.steps=1", "recipe.warmup_steps=1")
    start = native.load(folder / "run/model").model.state_dict()
    more = [f"init={folder}/run/model", f"output={folder}/second", "recipe.steps=6"]
    more += ["recipe.learning_rate=0.05", "recipe.frozen=[encoder,projector]"]
    tiny_run.train(folder, *more, "recipe.lora.decoder={rank: 2, targets: [q_proj, down_proj]}")
    end = native.load(folder / "second/model").model.state_dict()
    changed = {name for name in start if not torch.equal(start[name], end[name])}
    assert changed and all(name.split(".")[-2] in ("q_proj", "down_proj") for name in changed)
    assert sum("q_proj" in name for name in changed) == sum(
        n.startswith("decoder.") and "q_proj.w" in n for n in start
    )


EXPERTS = (
    "++decoder.config={num_experts: 4, num_experts_per_tok: 2, moe_intermediate_size: 16,"
    " router_aux_loss_coef: 0.5}"
)


def test_recomputed_activations_and_experts_change_nothing_but_memory(folder: Path) -> None:
    results = []
    for name, recompute in (("plain", "[]"), ("again", "[encoder,projector,decoder]")):
        more = [f"output={folder}/{name}", "recipe.steps=2", f"recipe.recompute={recompute}"]
        logged = tiny_run.train(folder, EXPERTS, *more)
        assert logged["balance_loss"] >= 1.9  # 2 experts to a token, spread evenly
        stored = load_tensors(folder / f"{name}/checkpoints/step-00000002/weights")
        results.append((logged["loss"], stored))
    assert results[0][0] == results[1][0]
    for key, tensor in results[0][1].items():
        torch.testing.assert_close(tensor, results[1][1][key], atol=1e-6, rtol=1e-5)
    unbalanced = [EXPERTS, f"output={folder}/free", "recipe.balance_weight=0.0"]
    assert "balance_loss" not in tiny_run.train(folder, *unbalanced, "recipe.steps=1")


def test_accumulated_steps_resume_and_take_every_batch_once(folder: Path) -> None:
    more = ["recipe.accumulate=3", "recipe.steps=4", "recipe.checkpoint_every=2"]
    tiny_run.train(folder, *more)
    tiny_run.train(folder, *more, f"output={folder}/again")
    shutil.rmtree(folder / "again/checkpoints/step-00000004")
    tiny_run.train(folder, *more, f"output={folder}/again")
    one, other = (
        weights(folder, 4),
        load_tensors(folder / "again/checkpoints/step-00000004/weights"),
    )
    assert all((one[name] == other[name]).all() for name in one)


def test_a_loss_that_is_not_finite_stops_before_the_weights_know(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_run.train(folder, f"output={folder}/good", "recipe.steps=5", "recipe.log_every=1")
    plain = step.losses

    def spoilt(run: Any, feed: Any, batch: Any, recipe: Any) -> Any:
        loss, patch, balance = plain(run, feed, batch, recipe)
        return loss * (float("nan") if batch.step == 5 else 1.0), patch, balance

    monkeypatch.setattr(step, "losses", spoilt)
    monkeypatch.setattr(Batch, "sources", ("0a1b",), raising=False)
    with pytest.raises(NotFiniteError, match=r"loss is nan at step 6.*not_finite\.json"):
        tiny_run.train(folder)
    found = json.loads((folder / "run/not_finite.json").read_text())
    assert found["step"] == 6 and found["samples"] == ["0a1b"] and found["batches"] == [5]
    saved = weights(folder, 5)
    assert all(torch.isfinite(tensor).all() for tensor in saved.values())
    monkeypatch.setattr(step, "losses", plain)
    tiny_run.train(folder)  # goes on from the saved state, with what was wrong put right
    assert metrics(folder)[-1]["step"] == 12


def test_a_bad_step_is_left_out_on_the_device_until_the_host_looks(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, where the optimiser is fused: nothing waits, and the same state is saved."""

    def fused(named: Any, recipe: RecipeConfig) -> torch.optim.AdamW:
        groups = optimizer._groups(named, recipe.weight_decay)
        return torch.optim.AdamW(groups, lr=recipe.learning_rate, fused=True)

    monkeypatch.setattr(optimizer, "_adamw", fused)
    often = ["recipe.checkpoint_every=5", "recipe.keep_checkpoints=3"]
    tiny_run.train(folder, f"output={folder}/good", *often)
    plain = step.losses

    def spoilt(run: Any, feed: Any, batch: Any, recipe: Any) -> Any:
        loss, patch, balance = plain(run, feed, batch, recipe)
        return loss * (float("nan") if batch.step == 5 else 1.0), patch, balance

    monkeypatch.setattr(step, "losses", spoilt)
    with pytest.raises(NotFiniteError, match=r"loss is nan at step 6"):
        tiny_run.train(folder, "recipe.log_every=8", "recipe.checkpoint_every=100")
    assert json.loads((folder / "run/not_finite.json").read_text())["batches"] == [5]
    for kind in ("weights", "optimizer"):
        saved, wanted = (
            load_tensors(folder / f"{name}/checkpoints/step-00000005/{kind}")
            for name in ("run", "good")
        )
        assert saved.keys() == wanted.keys()
        assert all(torch.equal(saved[name], wanted[name]) for name in wanted)


def test_a_profile_is_left_beside_the_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_run.train(folder, "debug=profile", "recipe.steps=6", "recipe.profile_steps=2")
    assert "aten::" in (folder / "run/profile/table.txt").read_text()
    events = json.loads((folder / "run/profile/trace.json").read_text())["traceEvents"]
    assert sum(event["name"].startswith("ProfilerStep") for event in events) >= 2
    assert "table.txt and trace.json" in capsys.readouterr().err


def test_answer_tokens_count_the_same_in_whichever_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of 1 and 5 labels at once: the gradient of the mean over the 6."""
    weight = torch.tensor([1.0], requires_grad=True)
    values = torch.tensor([2.0, 3.0, 5.0, 7.0, 11.0, 13.0])
    batches = [
        SimpleNamespace(packed=SimpleNamespace(label_ids=part), to=lambda *_, p=part, **__: p)
        for part in values.split([1, 5])
    ]

    def losses(run: Any, feed: Any, part: Any, recipe: Any) -> Any:
        return (part * weight).mean(), torch.zeros(()), torch.zeros(())

    monkeypatch.setattr(step, "losses", losses)
    monkeypatch.setattr(step, "balance_weight", lambda *_: 0.0)
    run: Any = SimpleNamespace(balances=False, model=None)
    nothing: Any = None
    device = torch.device("cpu")
    mean = step.backward(run, nothing, batches, RecipeConfig(accumulate=2), device, World())
    assert float(mean[0]) == pytest.approx(float(values.mean()))
    assert weight.grad is not None and weight.grad.item() == pytest.approx(float(values.mean()))


def test_overfitting_takes_the_same_batch_again(folder: Path) -> None:
    first = tiny_run.train(folder, "debug=overfit", "recipe.log_every=1", "recipe.steps=30")
    assert first["loss"] < metrics(folder)[0]["loss"] - 0.3
    steps = loop._Steps(2, 6, 2)
    assert list(steps) == [0, 1, 0, 1] and len(steps) == 4
    assert list(loop._Steps(2, 6, 0)) == [2, 3, 4, 5]


def test_checkpoints_are_kept_by_policy(tmp_path: Path) -> None:
    """The newest, every fourth, and the one of the least loss; a loss that is none is no best."""
    folder = RunFolder(tmp_path, keep=Keep(newest=1, every=4, best="loss", by="min"))
    module = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(module.parameters())
    for done, loss in enumerate((3.0, 1.0, 2.0, 5.0, float("nan"), 6.0, 7.0), 1):
        folder.log({"step": done, "loss": loss})
        folder.save(done, module, optimizer)
    found = sorted(int(p.name[-8:]) for p in folder.checkpoints.iterdir())
    assert found == [2, 4, 7]
    folder.keep = Keep(newest=2, best="held_out/score")
    folder.save(8, module, optimizer)
    folder.log({"step": 8, "held_out/score": 0.5})  # measured after it is saved
    for done in (9, 10, 11):
        folder.log({"step": done, "held_out/score": done / 100})
        folder.save(done, module, optimizer)
    assert sorted(int(p.name[-8:]) for p in folder.checkpoints.iterdir()) == [8, 10, 11]


def test_a_metrics_file_that_cannot_grow_is_an_error(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.metrics_path.mkdir()
    with pytest.raises(CheckpointError, match=r"cannot write .*metrics\.jsonl: Is a directory"):
        folder.log({"step": 1})
