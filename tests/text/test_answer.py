"""Answers taken apart: what was rendered comes back, and malformed text stays content."""

import unicodedata
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm.text.answer import ParsedAnswer, parse_answer, parse_ids
from mm.text.chat import Message, MessageLike, Revision, ToolCall, encode_chat, render
from mm.text.template import MODES
from mm.text.tokenizer import Tokenizer, train_tokenizer

REVISIONS = list(MODES)
TAGS = [
    *("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "<|im_end|>"),
    *("<function=f>", "</function>", "<parameter=a>", "</parameter>", "\n", "\n\n", " "),
    *('{"name": "f", "arguments": {"a": 1}}', '{"name": "f"', "}", '"', "[", "가", "word"),
]
# As NFC, since that is what a tokenizer gives back.
TEXT = st.lists(
    st.sampled_from(TAGS) | st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
    max_size=5,
).map(lambda parts: unicodedata.normalize("NFC", "".join(parts)))
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.sampled_from([0.5, 1e30]) | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=3,
)
JSON_CALL = st.builds(
    ToolCall,
    # The templates put names between quotes as they are.
    TEXT.filter(lambda name: name and not set(name) & set('"\\') and name.isprintable()),
    st.dictionaries(TEXT, VALUE, max_size=2),
)
XML_NAME = st.text("abc가_-. ", min_size=1)
# Tags are how values end, and nothing marks a tag inside of one.
XML_VALUE = TEXT.filter(lambda text: "</parameter>" not in text)
XML_CALL = st.builds(ToolCall, XML_NAME, st.dictionaries(XML_NAME, XML_VALUE, max_size=3))

NUMBERS = {
    "name": "f",
    "parameters": {
        "properties": {
            "i": {"type": "integer"},
            "x": {"type": "number"},
            "b": {"type": "boolean"},
            "l": {"type": "array"},
            "o": {"type": "object"},
            "n": {"type": ["integer", "null"]},
            "s": {"type": "string"},
            "t": {"type": ["string", "integer"]},
            "any": {},
            "odd": {"type": [{}, 3]},
        }
    },
}


@cache
def tokenizer() -> Tokenizer:
    return train_tokenizer(["what is this? a red cup on a table"] * 4, 320)


def written(message: Message, revision: Revision, thinking: Any = "none") -> list[int]:
    """The ids that a model gives for a message, without the end."""
    said: list[MessageLike] = [("user", "hi"), message]
    chat = encode_chat(tokenizer(), said, revision=revision, thinking=thinking)
    pairs = zip(chat.input_ids, chat.labels_mask, strict=True)
    return [index for index, learned in pairs if learned][:-1]


@pytest.mark.parametrize("revision", ["qwen3", "thinking-2507"])
@given(reasoning=TEXT, content=TEXT, calls=st.lists(JSON_CALL, max_size=2))
@settings(max_examples=120, deadline=None)
def test_reasoning_content_and_calls_come_back(
    revision: Revision, reasoning: str, content: str, calls: list[ToolCall]
) -> None:
    message = Message("assistant", content.lstrip("\n"), reasoning.strip("\n"), tuple(calls))
    answer = parse_ids(tokenizer(), written(message, revision), revision)
    assert answer.message() == message
    assert written(answer.message(), revision) == written(message, revision)


@given(content=TEXT, calls=st.lists(JSON_CALL, max_size=2))
@settings(max_examples=120, deadline=None)
def test_content_and_calls_come_back_without_reasoning(content: str, calls: list[ToolCall]) -> None:
    message = Message("assistant", content, "", tuple(calls))
    ids = written(message, "instruct-2507")
    assert parse_ids(tokenizer(), ids, "instruct-2507").message() == message
    stripped = Message("assistant", content.lstrip("\n"), "", tuple(calls))
    ids = written(stripped, "qwen3", "off")
    assert parse_ids(tokenizer(), ids, "qwen3").message() == stripped


@given(content=TEXT, calls=st.lists(XML_CALL, max_size=2))
@settings(max_examples=120, deadline=None)
def test_content_and_calls_come_back_from_tags(content: str, calls: list[ToolCall]) -> None:
    message = Message("assistant", content.strip() if calls else content, "", tuple(calls))
    assert parse_ids(tokenizer(), written(message, "coder"), "coder").message() == message


@pytest.mark.parametrize("revision", REVISIONS)
@given(text=st.lists(st.sampled_from(TAGS), max_size=14).map("".join) | st.text())
@settings(max_examples=150, deadline=None)
def test_anything_can_be_taken_apart_and_nothing_is_lost(revision: Revision, text: str) -> None:
    answer = parse_answer(text, revision, [NUMBERS])
    assert all(call.name in text for call in answer.tool_calls)
    assert answer.reasoning in text
    if answer.tool_calls:
        assert text.count("<tool_call>") >= len(answer.tool_calls)
    else:
        assert text.endswith(answer.content)
        assert answer.reasoning or answer.content == text or "</think>" in text
    words = [word for word in ("가", "word") if word in text]
    told = answer.reasoning + answer.content + str(answer.tool_calls)
    assert all(word in told for word in words)


@pytest.mark.parametrize("revision", REVISIONS)
def test_tags_that_the_model_spells_in_letters_are_content(revision: Revision) -> None:
    call = ToolCall("f", {"a": "1"})
    said: list[MessageLike] = [("user", "x"), Message("assistant", "", "", (call,))]
    pieces = render(said, revision=revision)
    spelled = "</think>\n\n" + "".join(p.text for p in pieces if p.answer).split("<|im_end|>")[0]
    assert parse_ids(tokenizer(), tokenizer().encode(spelled), revision).tool_calls == ()
    ids = tokenizer().encode(spelled, allow_special=True)
    assert parse_ids(tokenizer(), ids, revision).tool_calls == (call,)
    assert parse_answer(spelled, revision).tool_calls == (call,)


@pytest.mark.parametrize(
    ("text", "reasoning", "content"),
    [
        ("<think>\nwhy\n</think>\n\nbecause", "why", "because"),
        ("<think>\n\n</think>\n\nbecause", "", "because"),
        ("why\n</think>\n\nbecause", "why", "because"),  # the prompt had opened the block
        ("\n<think>why</think>because", "why", "because"),
        ("<think>a</think>b</think>c", "a</think>b", "c"),
        ("because", "", "because"),
        ("<think>\nnever ended", "", "<think>\nnever ended"),
    ],
)
def test_reasoning_ends_with_its_last_tag(text: str, reasoning: str, content: str) -> None:
    assert parse_answer(text, "qwen3") == ParsedAnswer(reasoning, content)
    assert parse_answer(text, "instruct-2507") == ParsedAnswer("", text)


CALL = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'


def test_a_call_inside_reasoning_is_not_made() -> None:
    assert parse_answer(f"<think>{CALL}</think>no", "qwen3") == ParsedAnswer(CALL, "no")
    for revision, text in (("qwen3", f"<think>{CALL}"), ("thinking-2507", CALL)):
        assert parse_answer(text, revision) == ParsedAnswer("", text)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (CALL, ""),
        (f"Let me look.\n{CALL}", "Let me look."),
        (f"{CALL}\nDone.", "Done."),
        (f"One.\n{CALL}\nTwo.\n{CALL}\n", "One.\nTwo."),
        ('<tool_call>{"name":"f","arguments":{}}</tool_call>', ""),
    ],
)
def test_text_around_calls_is_content(text: str, content: str) -> None:
    answer = parse_answer(text, "qwen3")
    assert answer.content == content
    assert answer.tool_calls == (ToolCall("f"),) * text.count("<tool_call>")


def test_line_breaks_and_tags_inside_an_argument_do_not_end_the_call() -> None:
    text = '<tool_call>\n{"name": "f", "arguments": {"a": "x\n</tool_call>"}}\n</tool_call>'
    assert parse_answer(text, "qwen3").tool_calls == (ToolCall("f", {"a": "x\n</tool_call>"}),)
    code = "print('</parameter>')\n</parameter>\nend"
    text = (
        f"<tool_call>\n<function=f>\n<parameter=a>\n{code}\n</parameter>\n</function>\n</tool_call>"
    )
    assert parse_answer(text, "coder").tool_calls == (ToolCall("f", {"a": code}),)


def test_content_before_a_call_in_tags_is_trimmed_as_the_template_does() -> None:
    text = " \nLet me look.\n\n<tool_call>\n<function=f>\n</function>\n</tool_call>"
    assert parse_answer(text, "coder") == ParsedAnswer("", "Let me look.", (ToolCall("f"),))


JSON_BAD = [
    '{"name": "f", "arguments": {}}',  # not closed
    '{"name": "f", "arguments": {}\n</tool_call>',
    '{"name": "f"}\n</tool_call>',
    '{"name": "f", "arguments": []}\n</tool_call>',
    '{"name": "f", "arguments": "{}"}\n</tool_call>',
    '{"name": "", "arguments": {}}\n</tool_call>',
    '{"name": 3, "arguments": {}}\n</tool_call>',
    '{"name": "f", "arguments": {}, "more": 1}\n</tool_call>',
    '{"name": "f", "arguments": {"a": NaN}}\n</tool_call>',
    '{"name": "f", "arguments": {}} and so on\n</tool_call>',
    "[]\n</tool_call>",
    "7\n</tool_call>",
    "\n</tool_call>",
    "[" * 100_000 + "\n</tool_call>",
    '{"name": "f", "arguments": {"a": ' + "9" * 5000 + "}}\n</tool_call>",
    "<function=f>\n</function>\n</tool_call>",
]
XML_BAD = [
    "<function=f>\n</function>",
    "<function=f>\n</tool_call>",
    "<function=f\n</function>\n</tool_call>",
    "<function=>\n</function>\n</tool_call>",
    "<function=f>\n<parameter=a>\n1\n</function>\n</tool_call>",
    "<function=f>\n<parameter=a>\n1\n</parameter>\n</tool_call>",
    "<function=f>\n<parameter=a\n1\n</parameter>\n</function>\n</tool_call>",
    "<function=f>\n<parameter=a>\n1\n</parameter>\nand\n</function>\n</tool_call>",
    "<function=f>\n" + "<parameter=a>\n1\n</parameter>\n" * 2 + "</function>\n</tool_call>",
    '{"name": "f", "arguments": {}}\n</tool_call>',
    "</tool_call>",
]


@pytest.mark.parametrize(
    ("revision", "body"),
    [("qwen3", body) for body in JSON_BAD] + [("coder", body) for body in XML_BAD],
    ids=lambda value: str(value)[:60],
)
def test_a_malformed_call_leaves_the_whole_answer_as_content(revision: Revision, body: str) -> None:
    good = CALL if revision == "qwen3" else "<tool_call><function=f></function></tool_call>"
    assert parse_answer(good, revision).tool_calls == (ToolCall("f"),)
    text = f"First.\n{good}\n<tool_call>\n{body}"
    assert parse_answer(text, revision) == ParsedAnswer("", text)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("i", "12", 12),
        ("i", "twelve", "twelve"),
        ("i", "1.5", "1.5"),
        ("i", "True", "True"),
        ("x", "1.5", 1.5),
        ("x", "2", 2),
        ("x", "NaN", "NaN"),
        ("b", "True", True),
        ("b", "false", False),
        ("b", "1", "1"),
        ("l", '["a", 1]', ["a", 1]),
        ("l", "{}", "{}"),
        ("o", '{"a": {"b": null}}', {"a": {"b": None}}),
        ("n", "None", None),
        ("n", "3", 3),
        ("s", "12", "12"),
        ("t", "12", "12"),
        ("any", "12", "12"),
        ("odd", "12", "12"),
        ("unknown", "12", "12"),
    ],
)
def test_a_tags_value_is_what_the_schema_says(name: str, text: str, value: Any) -> None:
    answer = f"<tool_call>\n<function=f>\n<parameter={name}>\n{text}\n</parameter>\n"
    answer += "</function>\n</tool_call>"
    (call,) = parse_answer(answer, "coder", [{"type": "function", "function": NUMBERS}]).tool_calls
    assert call.arguments == {name: value} and type(call.arguments[name]) is type(value)
    (untyped,) = parse_answer(answer, "coder").tool_calls
    assert untyped.arguments == {name: text}


def test_typed_values_come_back_from_tags() -> None:
    arguments = {"i": 3, "x": 0.5, "b": True, "l": [1, "a"], "o": {"a": None}, "n": None, "s": "7"}
    message = Message("assistant", "", "", (ToolCall("f", arguments),))
    assert (
        parse_ids(tokenizer(), written(message, "coder"), "coder", [NUMBERS]).message() == message
    )


@pytest.mark.parametrize("revision", REVISIONS)
def test_a_long_malformed_answer_is_taken_apart_at_once(revision: Revision) -> None:
    """Work that grew with the square of the length would take minutes here."""
    for part in ("<tool_call>", "</think>", "<parameter=a>", "</parameter>\n", "\n", "<think>"):
        for start in ("", "<tool_call>\n<function=f>\n<parameter=a>\n", '<tool_call>{"name": "'):
            text = start + part * 100_000
            assert parse_answer(text, revision).tool_calls == ()
