"""mm's own checkpoint: saved = loaded, the same bytes again, and damage in one clear line."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mm.checkpoints import native, store
from mm.decoder.qwen3 import Qwen3ForCausalLM, RopeScaling
from mm.encoders import Pictures
from mm.errors import CheckpointError
from mm.text.tokenizer import Tokenizer, train_tokenizer
from mm.vlm import VisionLanguageModel
from tests.conftest import redraw
from tests.tiny_model import squares

EXTRA = {
    "chat": {"thinking": "none"},
    "generation": {"eos_token_id": [5], "max_new_tokens": 64},
    "task_prompts": {"caption": {"en": "Describe the picture.", "ko": "그림을 설명해 주세요."}},
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["a red cup", "빨간 컵"] * 4, 300)


@pytest.fixture
def decoder_config(decoder_config, tokenizer):
    return replace(decoder_config, vocab_size=tokenizer.vocab_size + 3)


@pytest.fixture
def saved(tmp_path, tiny_vlm, tokenizer) -> Path:
    native.save(tiny_vlm, tokenizer, tmp_path / "model", card="# Tiny 작은\n", extra=EXTRA)
    return tmp_path / "model"


@pytest.fixture
def example(tiny_vlm) -> tuple[torch.Tensor, Pictures]:
    pixels = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return torch.tensor([[3, 7, 7, 7, 7, 8, 9]]), squares(pixels)


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@torch.no_grad()
def test_loaded_model_computes_the_same_bits(saved, tiny_vlm, tokenizer, example):
    loaded = native.load(saved)
    assert torch.equal(loaded.model(*example), tiny_vlm(*example))
    assert loaded.config["task_prompts"] == EXTRA["task_prompts"]
    assert loaded.tokenizer.encode("빨간 컵") == tokenizer.encode("빨간 컵")
    decoder = loaded.model.decoder
    assert decoder.lm_head.weight is decoder.model.embed_tokens.weight
    assert not loaded.model.training


@torch.no_grad()
def test_text_model_of_experts_and_yarn_comes_back(tmp_path, decoder_config, tokenizer):
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 20}
    scaling = RopeScaling("yarn", 4.0, original_max_position_embeddings=32)
    config = replace(decoder_config, **experts, mlp_only_layers=(1,), rope_scaling=scaling)
    decoder = Qwen3ForCausalLM(config).eval()
    redraw(decoder)
    model = VisionLanguageModel(None, None, decoder, None)
    native.save(model, tokenizer, tmp_path / "model", card="# Text\n")
    loaded = native.load(tmp_path / "model").model
    assert loaded.decoder.config == config and not loaded.sees
    ids = torch.arange(40)[None]
    assert torch.equal(loaded.decoder(ids), decoder(ids))


@pytest.mark.parametrize("max_shard_bytes", [10**9, 5000])
def test_saving_what_was_loaded_gives_the_same_bytes(
    saved, tmp_path, tiny_vlm, tokenizer, max_shard_bytes
):
    first, second = tmp_path / "first", tmp_path / "second"
    options = {"card": "# Tiny 작은\n", "extra": EXTRA, "max_shard_bytes": max_shard_bytes}
    native.save(tiny_vlm, tokenizer, first, **options)
    loaded = native.load(first)
    native.save(loaded.model, loaded.tokenizer, second, **options)
    assert contents(first) == contents(second)
    assert ("model.safetensors" in contents(first)) == (max_shard_bytes == 10**9)


def test_folder_holds_readable_data_and_nothing_else(saved):
    assert sorted(contents(saved)) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    config = json.loads((saved / "config.json").read_text("utf-8"))
    assert list(config)[:2] == ["format", "version"]
    assert config["encoder"]["name"] == "siglip" and config["image_token_id"] == 7
    assert "그림" in (saved / "config.json").read_text("utf-8")
    assert "decoder.lm_head.weight" not in store.load_tensors(saved)  # tied: stored once
    assert sorted(path.name for path in saved.parent.iterdir()) == ["model"]


def test_untied_head_is_stored_and_read(tmp_path, tiny_vlm, tokenizer, decoder_config, example):
    decoder = type(tiny_vlm.decoder)(replace(decoder_config, tie_word_embeddings=False))
    model = VisionLanguageModel(tiny_vlm.encoder, tiny_vlm.projector, decoder.eval(), 7)
    native.save(model, tokenizer, tmp_path / "untied", card="")
    again = native.load(tmp_path / "untied").model
    assert torch.equal(again.decoder.lm_head.weight, decoder.lm_head.weight)
    assert torch.equal(again(*example), model(*example))


def test_dtype_is_narrowed_on_saving_and_chosen_on_loading(tmp_path, tiny_vlm, tokenizer, example):
    native.save(tiny_vlm, tokenizer, tmp_path / "half", card="", dtype=torch.bfloat16)
    stored = native.load(tmp_path / "half").model
    assert {parameter.dtype for parameter in stored.parameters()} == {torch.bfloat16}
    assert stored.decoder.model.rotary_emb.inv_freq.dtype == torch.float32
    wide = native.load(tmp_path / "half", dtype=torch.float32).model
    assert {parameter.dtype for parameter in wide.parameters()} == {torch.float32}
    with torch.no_grad():
        expected = tiny_vlm.to(torch.bfloat16)(*example)
        assert torch.equal(stored(*example), expected)
    assert tiny_vlm.encoder.config == stored.encoder.config


def test_loaded_model_trains(saved, example):
    model = native.load(saved).model.train()
    model(*example).square().mean().backward()
    before = (saved / "model.safetensors").read_bytes()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert (saved / "model.safetensors").read_bytes() == before  # mapped privately
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_saving_over_a_checkpoint_replaces_it_whole(saved, tiny_vlm, tokenizer):
    native.save(tiny_vlm, tokenizer, saved, card="new", max_shard_bytes=5000)
    native.save(tiny_vlm, tokenizer, saved, card="newer")
    assert sorted(contents(saved)) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    assert (saved / "README.md").read_text() == "newer"


def test_failed_save_leaves_the_old_checkpoint(saved, tiny_vlm, tokenizer, monkeypatch):
    before = contents(saved)
    monkeypatch.setattr(Tokenizer, "to_json", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        native.save(tiny_vlm, tokenizer, saved, card="new")
    assert contents(saved) == before
    assert sorted(path.name for path in saved.parent.iterdir()) == ["model"]


def test_saving_never_removes_other_files(tmp_path, tiny_vlm, tokenizer):
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(CheckpointError, match=r"holds other files \(photo.jpg\)"):
        native.save(tiny_vlm, tokenizer, tmp_path, card="")
    with pytest.raises(CheckpointError, match="is a file: name a folder"):
        native.save(tiny_vlm, tokenizer, tmp_path / "photo.jpg", card="")
    with pytest.raises(ValueError, match="extra sets encoder, which the model itself describes"):
        native.save(tiny_vlm, tokenizer, tmp_path / "m", card="", extra={"encoder": {}})


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_missing_file_is_named(saved, name):
    (saved / name).unlink()
    with pytest.raises(CheckpointError, match=name.split(".")[0]) as error:
        native.load(saved)
    assert "\n" not in str(error.value)


def edit(saved: Path, change) -> None:
    config = json.loads((saved / "config.json").read_text("utf-8"))
    change(config)
    (saved / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(version=2), "is of version 2, this mm reads 1: install a newer mm"),
        (lambda c: c.update(version="1"), "is of version '1', this mm reads 1: save it again"),
        (lambda c: c.pop("version"), "is of version None"),
        (lambda c: c.pop("format"), "is not a checkpoint of mm"),
        (
            lambda c: (c.pop("format"), c.update(model_type="qwen3")),
            "is not a checkpoint of mm .* a published 'qwen3'",
        ),
        (lambda c: c["encoder"].update(name="siglop"), "unknown encoder 'siglop'.*'siglip'"),
        (lambda c: c["encoder"].update(name="os.system"), "unknown encoder 'os.system'"),
        (
            lambda c: c["encoder"].update(_target_="os.system"),
            "unknown field of encoder '_target_'",
        ),
        (lambda c: c["encoder"].update(name=["x"]), r"name of encoder is \['x'\]; it must be text"),
        (lambda c: c["decoder"]["config"].update(hiden_size=1), "unknown field .*'hidden_size'"),
        (lambda c: c["decoder"]["config"].pop("hidden_size"), "needs a value for hidden_size"),
        (lambda c: c["decoder"]["config"].update(num_hidden_layers="3"), "must be a whole number"),
        (lambda c: c.pop("projector"), "the model's config needs projector"),
        (lambda c: c["decoder"]["config"].update(vocab_size=200), "tokens for a decoder of 200"),
        (
            lambda c: c["decoder"]["config"].update(num_hidden_layers=2),
            "11 unexpected: decoder.model.layers.2",
        ),
        (
            lambda c: c["decoder"]["config"].update(num_hidden_layers=4),
            "11 missing: decoder.model.layers.3",
        ),
        (
            lambda c: c["decoder"]["config"].update(intermediate_size=40),
            r"9 of another shape: .*mlp.gate_proj.weight \(\[48, 32\], not \[40, 32\]\)",
        ),
        (
            lambda c: c["decoder"]["config"].update(tie_word_embeddings=False),
            "1 missing: .*lm_head",
        ),
    ],
)
def test_config_that_is_wrong_is_one_clear_line(saved, change, message):
    edit(saved, change)
    with pytest.raises(CheckpointError, match=message) as error:
        native.load(saved)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\udcff"], ids=repr)
def test_config_that_is_no_json_object_is_one_clear_line(saved, text):
    (saved / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(CheckpointError, match="config.json is not"):
        native.load(saved)


def test_weights_of_another_kind_are_refused(saved):
    tensors = store.load_tensors(saved)
    tensors["decoder.model.norm.weight"] = torch.ones(32, dtype=torch.int32)
    store.save_tensors(tensors, saved)
    with pytest.raises(CheckpointError, match="decoder.model.norm.weight of .* is torch.int32"):
        native.load(saved)


def test_truncated_weights_and_missing_folders_are_one_clear_line(saved, tmp_path):
    weights = saved / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="model.safetensors is truncated"):
        native.load(saved)
    with pytest.raises(CheckpointError, match="nowhere does not exist: check the path"):
        native.load(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="is not a folder"):
        native.load(weights)
