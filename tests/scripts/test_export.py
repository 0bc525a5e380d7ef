"""scripts/export.py: folders that transformers loads, words and chat frame included."""

import json
from pathlib import Path

import pytest
import torch

from mm.checkpoints.qwen3 import load_text, save_qwen3
from mm.generate import GenerationConfig, generate
from mm.text.chat import render
from scripts import export
from tests import tiny_model

EXACT = {"atol": 2e-5, "rtol": 1e-4}
TURNS = [
    ("system", "Be short."),
    ("user", "What is this?"),
    ("assistant", "a red cup"),
    ("user", "빨간 컵이 몇 개 있어요?"),
]


@pytest.fixture
def own(tmp_path) -> Path:
    return tiny_model.save(tmp_path / "own", tiny_model.model(1), chat={"thinking": "off"})


@pytest.fixture
def published(tmp_path) -> Path:
    words = tiny_model.tokenizer()
    files = {
        "tokenizer.json": words.to_json(),
        "tokenizer_config.json": '{"chat_template": "{{ 1 }}"}',
        "generation_config.json": json.dumps({"do_sample": True, "eos_token_id": 3, "top_k": 5}),
        "vocab.json": "{}",
        "LICENSE": "be kind",
        "README.md": "stays where it is",
    }
    encoded = {name: text.encode() for name, text in files.items()}
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 20}
    decoder = tiny_model.model(2, **experts).decoder
    save_qwen3(decoder, tmp_path / "published", files=encoded, token_ids={"eos_token_id": 9})
    return tmp_path / "published"


def test_published_folder_is_written_again_with_what_belongs_to_it(published, tmp_path, capsys):
    out = tmp_path / "out"
    options = ["--dtype", "float16", "--experts", "fused", "--max-shard-gb", "0.00003"]
    assert export.main([str(published), str(out), *options]) == 0
    assert capsys.readouterr() == (f"{out}\n", "")
    names = {path.name for path in out.iterdir()}
    assert len([name for name in names if name.endswith(".safetensors")]) > 1
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json", "LICENSE"):
        assert (out / name).read_bytes() == (published / name).read_bytes()
    assert "README.md" not in names  # it is about the files as they were
    assert json.loads((out / "config.json").read_text())["eos_token_id"] == 9
    before, after = load_text(published), load_text(out)
    assert after.generation == before.generation and after.decoder.config == before.decoder.config
    for name, tensor in before.decoder.state_dict().items():
        assert torch.equal(after.decoder.state_dict()[name], tensor.half()), name


def test_written_as_it_was_it_is_the_same_bytes(published, tmp_path):
    for out in ("a", "b"):  # the second time it is there already
        assert export.main([str(published), str(tmp_path / "out")]) == 0
        for path in (tmp_path / "out").iterdir():
            assert path.read_bytes() == (published / path.name).read_bytes(), (out, path.name)


def test_own_model_becomes_one_that_transformers_loads(own, tmp_path, capsys):
    transformers = pytest.importorskip("transformers", reason="the reference is not installed")
    pytest.importorskip("jinja2", reason="renders the reference's chat template")
    out = tmp_path / "out"
    assert export.main([str(own), str(out), "--text-only"]) == 0
    assert capsys.readouterr().err == "export.py: text only, without its encoder and projector\n"

    theirs = transformers.AutoTokenizer.from_pretrained(out)
    messages = [{"role": role, "content": text} for role, text in TURNS]
    prompt = theirs.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    pieces = render(TURNS, thinking="off", add_generation_prompt=True)
    assert prompt == "".join(piece.text for piece in pieces)
    ids = tiny_model.tokenizer().encode(prompt, allow_special=True)
    assert theirs(prompt).input_ids == ids

    reference = transformers.AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    model = tiny_model.model(1)
    with torch.no_grad():
        logits = model.decoder(torch.tensor([ids]))
        torch.testing.assert_close(reference(torch.tensor([ids])).logits, logits, **EXACT)
    said = reference.generate(torch.tensor([ids]))[0, len(ids) :].tolist()
    stops = tuple(reference.generation_config.eos_token_id)
    config = GenerationConfig(max_new_tokens=12, stop_token_ids=stops)
    ours = generate(model, [ids], None, config)[0].ids
    assert len(ours) > 3 and said[: len(ours)] == ours


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{tmp}/nowhere", "{tmp}/out"], "nowhere does not exist: check the path"),
        (["{tmp}", "{tmp}/out"], "has no config.json"),
        (["{own}", "{tmp}"], "holds other files (own), and saving replaces the folder"),
        (["{own}", "{own}/config.json"], "config.json is a file: name a folder"),
        (["{own}", "{own}/config.json/below"], "cannot write"),
        (
            ["{own}", "{tmp}/out", "--max-shard-gb", "0"],
            "--max-shard-gb is 0.0; it must be above 0",
        ),
        (["{own}", "{tmp}/out", "--max-shard-gb", "nan"], "--max-shard-gb is nan"),
    ],
)
def test_what_cannot_be_done_is_one_line(own, tmp_path, capsys, arguments, message):
    filled = [argument.format(tmp=tmp_path, own=own) for argument in arguments]
    assert export.main([*filled, "--text-only"]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and message in captured.err and captured.err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["own"]
