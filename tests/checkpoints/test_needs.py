"""What a folder's model takes of the memory: counted, told, and refused only where it can't."""

import json

import pytest
import torch

import mm
from mm.checkpoints import needs, store
from mm.checkpoints.needs import Needs, free_memory, needs_of
from mm.errors import CheckpointError, UsageError
from scripts import ask, caption
from tests import tiny_model
from tests.scripts.pictures import encoded

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_model.save(tmp_path_factory.mktemp("model") / "mm")


@pytest.mark.parametrize(
    ("dtype", "width"), [(torch.float32, 4), (torch.bfloat16, 2), (None, 4)], ids=str
)
def test_weights_and_cache_are_those_of_the_loaded_model(folder, dtype, width):
    found = needs_of(folder, CPU, dtype)
    stored = store.load_tensors(folder)
    assert {tensor.dtype for tensor in stored.values()} == {torch.float32}
    count = sum(tensor.numel() for tensor in stored.values())
    assert found.weights == count * width
    assert found.mapped == (found.weights if width == 4 else 0)
    if dtype is not None:
        cache = mm.decoder.cache.KVCache(
            tiny_model.model().decoder.config, 1, 10, device=CPU, dtype=dtype
        )
        kept = [tensor for tensor in vars(cache).values() if isinstance(tensor, torch.Tensor)]
        kept += [t for v in vars(cache).values() if isinstance(v, list) for t in v]
        assert 10 * found.per_token == sum(tensor.nbytes for tensor in kept)


@pytest.mark.parametrize("nested", ["text_config", "llm_config", None])
def test_published_configs_name_the_decoder(folder, tmp_path, nested):
    sizes = {"num_hidden_layers": 36, "num_key_value_heads": 8, "head_dim": 128}
    copied = tmp_path / "model.safetensors"
    copied.write_bytes((folder / "model.safetensors").read_bytes())
    text = json.dumps({nested: sizes} if nested else sizes)
    (tmp_path / "config.json").write_text(text)
    assert needs_of(tmp_path, CPU, torch.bfloat16).per_token == 147_456  # as published for Qwen3-8B
    (tmp_path / "config.json").write_text("{}")
    assert needs_of(tmp_path, CPU, torch.bfloat16).per_token == 0


def test_what_is_told():
    assert str(Needs(4_437_000_000, 0, 147_456, 20_000_000_000)) == (
        "4.4 GB of weights; 20.0 GB of memory free; 148 MB more for each 1,000 tokens at a time"
    )
    tight = Needs(16_000_000_000, 0, 147_456, 16_100_000_000)
    assert tight.fits and tight.tokens == 678
    assert str(tight).endswith(
        "room for 678 only: lower --batch-size and --max-new-tokens, or take a smaller model"
    )
    mapped = Needs(16_000_000_000, 15_000_000_000, 0, 2_000_000_000)
    assert mapped.fits and mapped.tokens is None
    assert "15.0 GB of them read from their files when needed; 2.0 GB of memory" in str(mapped)
    unknown = Needs(16_000_000_000, 0, 147_456, None)
    assert unknown.fits and "free" not in str(unknown)
    assert not Needs(16_000_000_000, 0, 147_456, 15_999_999_999).fits


def test_free_memory_is_a_number_or_unknown():
    found = free_memory(CPU)
    assert found is None or 10_000_000 < found < 10**14
    assert free_memory(torch.device("meta")) is None


@pytest.mark.gpu
def test_free_memory_of_a_gpu():
    before = free_memory(torch.device("cuda"))
    held = torch.empty(2**28, dtype=torch.uint8, device="cuda")
    assert before - free_memory(torch.device("cuda")) >= 2**27
    del held


def test_what_cannot_fit_is_refused_before_it_is_loaded(folder, monkeypatch):
    monkeypatch.setattr(needs, "free_memory", lambda device: 1000)
    mm.load(folder, "cpu", "float32")  # mapped
    monkeypatch.setattr("mm.checkpoints.native.load", lambda *_: pytest.fail("loaded"))
    with pytest.raises(UsageError, match=r"does not fit on cpu: 1 MB of weights; 1 MB of memory"):
        mm.load(folder, "cpu", "bfloat16")


def test_scripts_tell_of_large_models_on_stderr_alone(folder, monkeypatch, capsys, tmp_path):
    picture = tmp_path / "a.png"
    picture.write_bytes(encoded())
    for script, words in ((caption, []), (ask, ["What is this?"])):
        given = [str(picture), *words, "--model", str(folder), "--max-new-tokens", "1"]
        assert script.main(given) == 0
        quiet = capsys.readouterr()
        assert quiet.err == ""
        monkeypatch.setattr("mm.cli.options.TOLD_FROM", 1000)
        assert script.main(given) == 0
        told = capsys.readouterr()
        monkeypatch.undo()
        assert told.out == quiet.out
        assert told.err.startswith(f"{script.PROG}: {folder}: 1 MB of weights, 1 MB of them read")
        assert told.err.count("\n") == 1


def test_folder_without_weights_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="has no weights"):
        needs_of(tmp_path, CPU, None)
