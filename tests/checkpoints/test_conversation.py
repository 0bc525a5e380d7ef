"""Generation defaults and chat revisions of published folders."""

import json

import pytest

from mm.checkpoints.conversation import read_chat_revision, read_generation
from mm.errors import CheckpointError
from tests import tiny_model

ROWS = 400
HYBRID = {
    "bos_token_id": 11,
    "do_sample": True,
    "eos_token_id": [12, 11],
    "pad_token_id": 11,
    "temperature": 0.6,
    "top_k": 20,
    "top_p": 0.95,
    "transformers_version": "4.51.0",
}
BASE = {"do_sample": False, "eos_token_id": 11, "max_new_tokens": 2048}


def read(folder, generation, config=None):
    (folder / "config.json").write_text(json.dumps(config or {}))
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    return read_generation(folder, tiny_model.tokenizer(), ROWS)


def test_shipped_defaults_are_read(tmp_path):
    wanted = {"eos_token_id": [12, 11], "temperature": 0.6, "top_k": 20, "top_p": 0.95}
    assert read(tmp_path, HYBRID) == wanted


def test_one_stop_id_is_a_list_of_one_and_no_sampling_is_greedy(tmp_path):
    wanted = {"eos_token_id": [11], "temperature": 0.0, "max_new_tokens": 2048}
    assert read(tmp_path, BASE) == wanted
    assert read(tmp_path, BASE | {"temperature": 0.6, "top_k": 20, "top_p": None}) == wanted


def test_sampling_without_a_temperature_is_at_one(tmp_path):
    found = read(tmp_path, {"do_sample": True, "repetition_penalty": 1, "eos_token_id": 3})
    assert found == {"eos_token_id": [3], "temperature": 1.0, "repetition_penalty": 1.0}


def test_without_the_file_both_usual_tokens_end_an_answer(tmp_path):
    words = tiny_model.tokenizer()
    usual = [words.token_id("<|im_end|>"), words.token_id("<|endoftext|>")]
    assert read(tmp_path, None) == {"eos_token_id": usual}
    assert read(tmp_path, None, {"eos_token_id": usual[1]}) == {"eos_token_id": usual[::-1]}
    assert read(tmp_path, None, {"eos_token_id": 5}) == {"eos_token_id": [5, *usual]}
    assert read(tmp_path, {"do_sample": False}, {"eos_token_id": [5]})["eos_token_id"][0] == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": -1}, "temperature is -1; it must be a number of 0 or more"),
        ({"temperature": float("inf")}, "temperature is inf"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": "0.6"}, "temperature is 0.6; it must be a number"),
        ({"top_k": 20.5}, "top_k is 20.5; it must be a whole number"),
        ({"top_k": True}, "top_k is True"),
        ({"top_p": 0}, "top_p is 0; it must be a number above 0"),
        ({"min_p": 2}, "min_p is 2"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0.0"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"eos_token_id": [12, ROWS]}, "eos_token_id has 400; .* below vocab_size 400"),
        ({"eos_token_id": -1}, "eos_token_id has -1"),
        ({"eos_token_id": ["<|im_end|>"]}, "eos_token_id has <|im_end|>"),
        ({"eos_token_id": [[12]]}, r"eos_token_id has \[12\]"),
    ],
)
def test_value_out_of_range_is_one_clear_line(tmp_path, changes, message):
    with pytest.raises(CheckpointError, match=message) as error:
        read(tmp_path, HYBRID | changes)
    assert "generation_config.json" in str(error.value)


# What sets the published templates apart; `mm.text.chat` has the tests against the whole of them.
ASKS = "For each function call, return a json object with function name and arguments within"
REASONS = "{%- set ns = namespace(last_query_index=0) %}{{- message.reasoning_content }}"
TEMPLATES = {
    "qwen3": ASKS + REASONS + "{%- if enable_thinking is defined %}",
    "instruct-2507": ASKS,
    "thinking-2507": ASKS + REASONS + "{{- '<|im_start|>assistant\\n<think>\\n' }}",
    "coder": "<tools>{{- '<function=' + tool_call.name + '>' }}<parameter=",
}


@pytest.mark.parametrize("revision", TEMPLATES)
def test_template_is_recognised(tmp_path, revision):
    (tmp_path / "chat_template.jinja").write_text(TEMPLATES[revision])
    assert read_chat_revision(tmp_path) == revision


def test_template_of_another_family_is_not_taken_for_ours(tmp_path):
    (tmp_path / "chat_template.jinja").write_text("{{- '[INST] ' + message.content }}")
    assert read_chat_revision(tmp_path) is None


def test_template_is_found_where_it_stands(tmp_path):
    assert read_chat_revision(tmp_path) == "qwen3"
    inside = tmp_path / "tokenizer_config.json"
    inside.write_text(json.dumps({"model_max_length": 9}))
    assert read_chat_revision(tmp_path) == "qwen3"
    inside.write_text(json.dumps({"chat_template": TEMPLATES["thinking-2507"]}))
    assert read_chat_revision(tmp_path) == "thinking-2507"
    several = {"default": "instruct-2507", "tool_use": "coder"}
    named = [{"name": name, "template": TEMPLATES[which]} for name, which in several.items()]
    inside.write_text(json.dumps({"chat_template": named}))
    assert read_chat_revision(tmp_path) == "instruct-2507"
    (tmp_path / "chat_template.jinja").write_text(TEMPLATES["coder"])  # newer folders
    assert read_chat_revision(tmp_path) == "coder"


def test_template_that_is_no_text_is_one_clear_line(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": 7}')
    with pytest.raises(CheckpointError, match="tokenizer_config.json: chat_template is no text"):
        read_chat_revision(tmp_path)
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(CheckpointError, match="chat_template.jinja is no text"):
        read_chat_revision(tmp_path)
