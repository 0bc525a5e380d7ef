"""Published Qwen3 folders, as transformers saves them and as the original files spell them."""

import dataclasses
import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from mm.checkpoints import store
from mm.checkpoints.qwen3 import NAMES, load_qwen3, load_text, save_qwen3
from mm.checkpoints.qwen3_config import published_config
from mm.decoder.qwen3 import Qwen3ForCausalLM
from mm.errors import CheckpointError
from tests import tiny_model
from tests.conftest import redraw

EXACT = {"atol": 2e-5, "rtol": 1e-4}


def their_model(transformers, config, **more):
    """The same model of transformers, every parameter redrawn."""
    published = published_config(config, torch.float32) | more
    their_config = transformers.AutoConfig.for_model(published.pop("model_type"), **published)
    reference = transformers.AutoModelForCausalLM.from_config(their_config).eval()
    redraw(reference)
    return reference


@pytest.fixture
def tensors(tiny_decoder) -> dict[str, torch.Tensor]:
    state = tiny_decoder.state_dict()
    return {name: tensor.clone() for name, tensor in state.items() if name != "lm_head.weight"}


def published(decoder_config, **changes) -> dict[str, object]:
    """A config.json as the original files have it, keys that change nothing included."""
    config = {
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 151643,
        "hidden_act": "silu",
        "max_window_layers": 28,
        "model_type": "qwen3",
        "rope_scaling": None,
        "sliding_window": None,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "use_sliding_window": False,
        **asdict(decoder_config),
        **changes,
    }
    return {key: value for key, value in config.items() if value is not ...}


def write(directory: Path, config: dict, tensors: dict[str, torch.Tensor], **options) -> Path:
    store.save_tensors(tensors, directory, **options)
    (directory / "config.json").write_text(json.dumps(config))
    return directory


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("max_shard_size", ["1GB", "10KB"])
@torch.no_grad()
def test_folder_that_transformers_saved_gives_its_logits(
    tmp_path, decoder_config, tied, max_shard_size
):
    transformers = pytest.importorskip("transformers", reason="the reference is not installed")
    config = dataclasses.replace(decoder_config, tie_word_embeddings=tied)
    reference = their_model(transformers, config)
    reference.save_pretrained(tmp_path, max_shard_size=max_shard_size)
    decoder = load_qwen3(tmp_path)
    assert decoder.config == config
    assert (decoder.lm_head.weight is decoder.model.embed_tokens.weight) == tied
    ids = torch.arange(13)[None] * 7
    torch.testing.assert_close(decoder(ids), reference(ids).logits, **EXACT)


@pytest.mark.parametrize(
    ("tied", "stored", "shared"),
    [
        (True, None, True),
        (True, "equal", True),
        (True, "different", False),
        (False, "equal", False),
        (False, "different", False),
        (False, None, None),
    ],
)
def test_head_that_is_stored_wins_else_it_is_tied_else_missing(
    tmp_path, decoder_config, tensors, tied, stored, shared
):
    embedding = tensors["model.embed_tokens.weight"]
    if stored:
        tensors["lm_head.weight"] = embedding.clone() if stored == "equal" else embedding + 1
    folder = write(tmp_path, published(decoder_config, tie_word_embeddings=tied), tensors)
    if shared is None:
        with pytest.raises(CheckpointError, match="has no lm_head.weight, and its config does not"):
            load_qwen3(folder)
        return
    decoder = load_qwen3(folder)
    assert (decoder.lm_head.weight is decoder.model.embed_tokens.weight) == shared
    assert decoder.config.tie_word_embeddings == shared
    assert torch.equal(decoder.lm_head.weight, tensors.get("lm_head.weight", embedding))


def test_computed_frequencies_in_old_files_are_left_out(tmp_path, decoder_config, tensors):
    tensors["model.rotary_emb.inv_freq"] = torch.ones(8)
    decoder = load_qwen3(write(tmp_path, published(decoder_config), tensors))
    assert decoder.model.rotary_emb.inv_freq[1] != 1


def test_dtype_is_the_stored_one_unless_asked(tmp_path, decoder_config, tensors):
    half = {name: tensor.to(torch.bfloat16) for name, tensor in tensors.items()}
    folder = write(tmp_path, published(decoder_config), half)
    assert load_qwen3(folder).lm_head.weight.dtype == torch.bfloat16
    assert load_qwen3(folder, dtype=torch.float32).lm_head.weight.dtype == torch.float32


def test_decoder_saved_without_its_head_is_read(tmp_path, decoder_config, tensors, tiny_decoder):
    bare = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    bare["rotary_emb.inv_freq"] = torch.ones(8)
    decoder = load_qwen3(write(tmp_path / "bare", published(decoder_config), bare))
    ids = torch.arange(9)[None]
    assert torch.equal(decoder(ids), tiny_decoder(ids))
    untied = published(decoder_config, tie_word_embeddings=False)
    with pytest.raises(CheckpointError, match="has no lm_head.weight, and its config does not"):
        load_qwen3(write(tmp_path / "headless", untied, bare))
    bare["lm_head.weight"] = bare["embed_tokens.weight"] + 1
    decoder = load_qwen3(write(tmp_path / "head", untied, bare))
    assert torch.equal(decoder.lm_head.weight, bare["lm_head.weight"])


def test_tensors_that_are_missing_or_too_many_are_listed(tmp_path, decoder_config, tensors):
    del tensors["model.norm.weight"], tensors["model.embed_tokens.weight"]
    tensors["model.layers.0.self_attn.q_proj.bias"] = torch.zeros(64)
    tensors["model.layers.1.mlp.up_proj.weight"] = torch.zeros(48, 31)
    folder = write(tmp_path, published(decoder_config), tensors)
    with pytest.raises(
        CheckpointError,
        match=r"2 missing: model.embed_tokens.*, model.norm.weight; 1 unexpected: .*q_proj.bias;"
        r" 1 of another shape: model.layers.1.mlp.up_proj.weight \(\[48, 31\], not \[48, 32\]\)",
    ):
        load_qwen3(folder)


def test_long_lists_are_cut_at_twenty_names_and_counted(tmp_path, decoder_config, tensors):
    norm = {"model.norm.weight": tensors["model.norm.weight"]}
    kept = tensors["model.embed_tokens.weight"]
    folder = write(tmp_path, published(decoder_config), {"model.embed_tokens.weight": kept, **norm})
    with pytest.raises(CheckpointError, match="33 missing: .* and 13 more") as error:
        load_qwen3(folder)
    assert str(error.value).count("model.layers") == 20
    odd = {f"odd.{number}": kept for number in range(50)}
    folder = write(tmp_path, published(decoder_config), {"model.embed_tokens.weight": kept, **odd})
    with pytest.raises(CheckpointError, match="34 missing.* and 24 more; 50 unexp.* and 40 more"):
        load_qwen3(folder)


def test_tensor_of_another_kind_is_one_clear_line(tmp_path, decoder_config, tensors):
    name = "model.layers.1.mlp.up_proj.weight"
    tensors[name] = torch.zeros(48, 32, dtype=torch.int8)
    folder = write(tmp_path, published(decoder_config), tensors)
    with pytest.raises(CheckpointError, match=f"{name} of .* is torch.int8, not torch.float32"):
        load_qwen3(folder)


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool])
def test_dtype_of_no_weights_is_one_clear_line(tmp_path, decoder_config, tensors, dtype):
    folder = write(tmp_path, published(decoder_config), tensors)
    with pytest.raises(CheckpointError, match=f"dtype is {dtype}; weights are bfloat16, float16"):
        load_qwen3(folder, dtype=dtype)


def test_folder_of_another_kind_is_one_clear_line(tmp_path, decoder_config, tensors):
    with pytest.raises(CheckpointError, match="nowhere does not exist"):
        load_qwen3(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="has no config.json"):
        load_qwen3(tmp_path)
    folder = write(tmp_path, published(decoder_config, model_type="llama"), tensors)
    with pytest.raises(CheckpointError, match="unknown model_type 'llama'"):
        load_qwen3(folder)


def test_names_read_both_ways(tiny_decoder):
    for name in tiny_decoder.state_dict():
        assert NAMES.ours(NAMES.published(name)) == name and not NAMES.is_ignored(name)


# --- Saving --------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("max_shard_bytes", [10**9, 10**4])
def test_saving_again_gives_the_same_bytes(tmp_path, decoder_config, tied, max_shard_bytes):
    decoder = Qwen3ForCausalLM(dataclasses.replace(decoder_config, tie_word_embeddings=tied))
    redraw(decoder)
    save_qwen3(decoder, tmp_path / "a", max_shard_bytes=max_shard_bytes)
    loaded = load_qwen3(tmp_path / "a")
    assert loaded.config == decoder.config
    assert (loaded.lm_head.weight is loaded.model.embed_tokens.weight) == tied
    save_qwen3(loaded, tmp_path / "b", max_shard_bytes=max_shard_bytes)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    save_qwen3(loaded, tmp_path / "a", max_shard_bytes=max_shard_bytes)  # over its own files
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    for name, tensor in decoder.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_saving_what_transformers_saved_gives_its_bytes(tmp_path, decoder_config):
    transformers = pytest.importorskip("transformers", reason="the reference is not installed")
    reference = their_model(transformers, decoder_config)
    reference.save_pretrained(tmp_path / "theirs")
    save_qwen3(load_qwen3(tmp_path / "theirs"), tmp_path / "ours")
    theirs, ours = (tmp_path / name / store.SINGLE for name in ("theirs", "ours"))
    assert tensors_of(ours) == tensors_of(theirs)


def tensors_of(path: Path) -> bytes:
    """All but the header, whose metadata is in no certain order."""
    data = path.read_bytes()
    return data[8 + int.from_bytes(data[:8], "little") :]


@torch.no_grad()
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("max_shard_bytes", [10**9, 10**4])
def test_transformers_loads_what_we_save(tmp_path, decoder_config, tied, max_shard_bytes):
    transformers = pytest.importorskip("transformers", reason="the reference is not installed")
    decoder = Qwen3ForCausalLM(dataclasses.replace(decoder_config, tie_word_embeddings=tied)).eval()
    redraw(decoder)
    save_qwen3(decoder, tmp_path, max_shard_bytes=max_shard_bytes)
    reference = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    ids = torch.arange(13)[None] * 7
    torch.testing.assert_close(decoder(ids), reference(ids).logits, **EXACT)


def test_saved_dtype_is_the_one_asked_for(tmp_path, tiny_decoder):
    save_qwen3(tiny_decoder, tmp_path, dtype=torch.bfloat16)
    assert json.loads((tmp_path / "config.json").read_text())["torch_dtype"] == "bfloat16"
    loaded = load_qwen3(tmp_path)
    assert loaded.lm_head.weight.dtype == torch.bfloat16
    name = "model.layers.0.mlp.up_proj.weight"
    assert torch.equal(loaded.state_dict()[name], tiny_decoder.state_dict()[name].bfloat16())


def test_interrupted_save_leaves_the_old_folder(tmp_path, tiny_decoder, monkeypatch):
    folder = tmp_path / "model"
    save_qwen3(tiny_decoder, folder)
    before = contents(folder)
    monkeypatch.setattr(store, "write_bytes", lambda path, data: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_qwen3(tiny_decoder, folder, dtype=torch.bfloat16)
    assert contents(folder) == before and list(tmp_path.iterdir()) == [folder]


# --- Mixtures of experts -------------------------------------------------------------------------


@pytest.fixture
def moe_config(decoder_config):
    """Layer 1 is a mixture, layers 0 and 2 are dense."""
    return dataclasses.replace(
        decoder_config,
        num_experts=6,
        num_experts_per_tok=2,
        moe_intermediate_size=20,
        norm_topk_prob=True,
        decoder_sparse_step=2,
        tie_word_embeddings=False,
    )


@pytest.fixture
def tiny_moe(moe_config) -> Qwen3ForCausalLM:
    decoder = Qwen3ForCausalLM(moe_config).eval()
    redraw(decoder)
    return decoder


STACKED = "model.layers.1.mlp.experts"


def assert_same_weights(found: torch.nn.Module, expected: torch.nn.Module) -> None:
    for name, tensor in expected.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor), name


@pytest.mark.parametrize("max_shard_size", ["1GB", "10KB"])
@torch.no_grad()
def test_experts_that_transformers_saved_give_its_logits(tmp_path, moe_config, max_shard_size):
    transformers = pytest.importorskip("transformers", reason="the reference is not installed")
    reference = their_model(transformers, moe_config)
    reference.save_pretrained(tmp_path, max_shard_size=max_shard_size)
    names = store.open_tensors(tmp_path)
    assert f"{STACKED}.5.up_proj.weight" in names and f"{STACKED}.gate_up_proj" not in names
    decoder = load_qwen3(tmp_path)
    assert decoder.config == moe_config
    ids = torch.arange(13)[None] * 7
    torch.testing.assert_close(decoder(ids), reference(ids).logits, **EXACT)


@pytest.mark.parametrize("experts", ["each", "fused"])
@torch.no_grad()
def test_transformers_loads_the_experts_that_we_save(tmp_path, tiny_moe, experts):
    transformers = pytest.importorskip("transformers", reason="the reference is not installed")
    save_qwen3(tiny_moe, tmp_path, experts=experts)
    reference = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    ids = torch.arange(13)[None] * 7
    torch.testing.assert_close(tiny_moe(ids), reference(ids).logits, **EXACT)


@pytest.mark.parametrize("experts", ["each", "fused"])
@pytest.mark.parametrize("max_shard_bytes", [10**9, 10**4])
def test_experts_saved_again_are_the_same_bytes(tmp_path, tiny_moe, experts, max_shard_bytes):
    options = {"experts": experts, "max_shard_bytes": max_shard_bytes}
    save_qwen3(tiny_moe, tmp_path / "a", **options)
    stored = store.open_tensors(tmp_path / "a")
    assert (f"{STACKED}.0.gate_proj.weight" in stored) == (experts == "each")
    assert (f"{STACKED}.gate_up_proj" in stored) == (experts == "fused")
    loaded = load_qwen3(tmp_path / "a")
    assert_same_weights(loaded, tiny_moe)
    save_qwen3(loaded, tmp_path / "b", **options)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.parametrize("F", [20, 32, 16])  # of these, one matrix or the other is square
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_stacked_experts_are_read_either_way_round(tmp_path, moe_config, F, dtype):
    config = dataclasses.replace(moe_config, moe_intermediate_size=F)
    decoder = Qwen3ForCausalLM(config)
    redraw(decoder)
    turned = {
        name: tensor.transpose(-1, -2).contiguous() if STACKED in name else tensor
        for name, tensor in decoder.state_dict().items()
    }
    loaded = load_qwen3(
        write(tmp_path, published_config(config, torch.float32), turned), dtype=dtype
    )
    assert_same_weights(loaded, decoder.to(dtype))


def test_experts_are_cast_one_by_one(tmp_path, tiny_moe):
    save_qwen3(tiny_moe, tmp_path)
    loaded = load_qwen3(tmp_path, dtype=torch.bfloat16)
    assert_same_weights(loaded, tiny_moe.to(torch.bfloat16))


def test_expert_that_is_missing_or_misshaped_is_named_as_published(tmp_path, tiny_moe):
    save_qwen3(tiny_moe, tmp_path)
    stored = store.load_tensors(tmp_path)
    del stored[f"{STACKED}.3.down_proj.weight"]
    stored[f"{STACKED}.4.up_proj.weight"] = torch.zeros(21, 32)
    stored[f"{STACKED}.6.up_proj.weight"] = torch.zeros(20, 32)
    store.save_tensors(stored, tmp_path)
    with pytest.raises(
        CheckpointError,
        match=rf"1 missing: {STACKED}.3.down_proj.weight; 1 unexpected: {STACKED}.6.up_proj.weight;"
        rf" 1 of another shape: {STACKED}.4.up_proj.weight \(\[21, 32\], not \[20, 32\]\)",
    ):
        load_qwen3(tmp_path)


# --- Whole folders -------------------------------------------------------------------------------


@pytest.fixture
def text_folder(tmp_path) -> Path:
    words = tiny_model.tokenizer()
    decoder = tiny_model.model().decoder
    stops = [words.token_id("<|im_end|>"), words.token_id("<|endoftext|>")]
    generation = {"do_sample": True, "eos_token_id": stops, "temperature": 0.6, "top_k": 20}
    template = "return a json object with function name and arguments within"
    files = {
        "tokenizer.json": words.to_json(),
        "generation_config.json": json.dumps(generation),
        "tokenizer_config.json": json.dumps({"chat_template": template}),
    }
    encoded = {name: text.encode() for name, text in files.items()}
    save_qwen3(decoder, tmp_path / "text", files=encoded, token_ids={"eos_token_id": stops[0]})
    return tmp_path / "text"


def test_whole_folder_has_all_that_a_conversation_needs(text_folder):
    loaded = load_text(text_folder, dtype=torch.bfloat16)
    words = tiny_model.tokenizer()
    assert loaded.decoder.lm_head.weight.dtype == torch.bfloat16 and not loaded.decoder.training
    assert loaded.tokenizer.to_json() == words.to_json()
    stops = [words.token_id("<|im_end|>"), words.token_id("<|endoftext|>")]
    assert loaded.generation == {"eos_token_id": stops, "temperature": 0.6, "top_k": 20}
    assert loaded.chat_revision == "instruct-2507"


def test_tokenizer_that_is_missing_or_another_models_is_one_clear_line(text_folder):
    (text_folder / "tokenizer.json").rename(text_folder / "elsewhere")
    with pytest.raises(CheckpointError, match="cannot read the tokenizer .*tokenizer.json"):
        load_text(text_folder)
    (text_folder / "elsewhere").rename(text_folder / "tokenizer.json")
    config = json.loads((text_folder / "config.json").read_text())
    (text_folder / "config.json").write_text(json.dumps(config | {"vocab_size": 300}))
    with pytest.raises(CheckpointError, match="tokens for a decoder of 300: it belongs to another"):
        load_text(text_folder)
