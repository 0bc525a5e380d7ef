import random
from pathlib import Path

import pytest
import torch

from mm.checkpoints import native
from mm.data.scenes.language import corpus
from mm.errors import CheckpointError
from mm.evaluate.running import checkpoint_of, read_running
from mm.evaluate.subject import read_subject
from mm.text.tokenizer import train_tokenizer
from tests.data.scenes.test_layout import sampler
from tests.tiny_artwork import write_artwork
from tests.train import tiny_run

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("running")
    write_artwork(folder / "artwork")
    rng = random.Random(0)
    texts = corpus((sampler().draw(rng) for _ in range(200)), rng)
    train_tokenizer(texts, 600).save(folder / "tokenizer.json")
    more = ("recipe.steps=4", "recipe.log_every=4", "++recipe.lora.decoder={rank: 2}")
    tiny_run.train(folder, *more)
    return folder / "run"


def test_the_last_checkpoint_is_the_finished_model(run: Path) -> None:
    checkpoint = checkpoint_of(run)
    assert checkpoint is not None and checkpoint == checkpoint_of(checkpoint)
    model, tokenizer, step = read_running(checkpoint, CPU)
    assert step == 4 and tokenizer.vocab_size <= 600
    finished = native.load(run / "model", device=CPU, dtype=torch.float32).model
    own, wanted = model.state_dict(), finished.state_dict()
    assert own.keys() == wanted.keys()
    assert all(own[name].equal(wanted[name]) for name in own)


def test_a_run_is_asked_at_its_newest_checkpoint_until_it_has_a_model(run: Path) -> None:
    (run / "model").rename(run / "finished")
    try:
        early = read_subject(str(run), CPU)
    finally:
        (run / "finished").rename(run / "model")
    late = read_subject(str(run), CPU)
    assert early.chat == late.chat and early.num_beams == late.num_beams
    for ours, theirs in zip(early.model.parameters(), late.model.parameters(), strict=True):
        assert ours.equal(theirs)


def test_a_checkpoint_of_another_model_is_named(run: Path, tmp_path: Path) -> None:
    assert checkpoint_of(tmp_path) is None
    checkpoint = tmp_path / "checkpoints" / "step-00000004"
    (checkpoint / "weights").mkdir(parents=True)
    with pytest.raises(CheckpointError, match=r"no whole config\.yaml"):
        read_running(checkpoint, CPU)
