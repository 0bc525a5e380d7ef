"""Messages in their three forms, and what is said about malformed ones."""

from typing import Any

import pytest

from mm.errors import MMError, UsageError
from mm.text.chat import Message, MessageLike, Revision, Thinking, ToolCall, render
from mm.text.messages import as_messages

HI = ("user", "Hi")
SECRET = "the secret"


def text_of(messages: list[MessageLike], **options: Any) -> str:
    return "".join(piece.text for piece in render(messages, **options))


def test_the_three_forms_of_a_message_give_one_text() -> None:
    mapping: list[MessageLike] = [
        {"role": "user", "content": "Hi", "name": "unread"},
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "hm",
            "tool_calls": [
                {"type": "function", "id": "7", "function": {"name": "f", "arguments": {"a": 1}}},
                {"name": "g"},
            ],
        },
        {"role": "tool", "content": "1", "tool_call_id": "7"},
    ]
    calls = (ToolCall("f", {"a": 1}), ToolCall("g"))
    plain: list[MessageLike] = [HI, Message("assistant", "", "hm", calls), ("tool", "1")]
    assert as_messages(mapping) == as_messages(plain)
    assert text_of(mapping, revision="qwen3") == text_of(plain, revision="qwen3")


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning_is_read_under_each_of_its_names(key: str) -> None:
    (message,) = as_messages([{"role": "assistant", "content": "a", key: "b"}])
    assert message == Message("assistant", "a", "b")


def test_parts_are_texts_and_pictures_in_their_order() -> None:
    parts = [{"type": "image"}, {"type": "text", "text": "this?"}, {"type": "image_url"}]
    text = text_of([{"role": "user", "content": parts}], num_image_tokens=[1, 1])
    picture = "<|vision_start|><|image_pad|><|vision_end|>"
    assert text == f"<|im_start|>user\n{picture}this?{picture}<|im_end|>\n"


# What is wrong, and what has to be said about it.
BAD: list[tuple[Any, str]] = [
    ([], "no messages"),
    ("Hi", "must be a list"),
    ({"role": "user", "content": "Hi"}, "must be a list"),
    ([HI, 7], "message 1: expected a .role, text. pair.*got int"),
    ([("user",)], "message 0: expected a .role, text. pair"),
    ([("robot", "beep")], "message 0: unknown role 'robot'; known: system, user, assistant, tool"),
    ([("user", None)], "message 0: content must be text, not NoneType"),
    ([("user", b"Hi")], "message 0: content must be text, not bytes"),
    ([("tool", "4")], "message 0: a tool's result needs the assistant's call"),
    ([("system", "s"), ("tool", "4")], "message 1: a tool's result needs"),
    ([{"content": "Hi"}], "message 0: it has no 'role'"),
    ([{"role": "user"}], "message 0: content must be text, not NoneType"),
    ([{"role": "user", "content": "Hi", "contents": ""}], "unknown key 'contents'; known: role"),
    ([{"role": "user", "content": {"a": 1}}], "content must be text, not dict"),
    ([{"role": "user", "content": [{"type": "video"}]}], "part 0: unknown part 'video'"),
    ([{"role": "user", "content": ["x"]}], "part 0: unknown part 'str'"),
    ([{"role": "user", "content": [{"type": "text"}]}], "part 0: unknown part 'text'"),
    (
        [{"role": "user", "content": [{"type": "text", "text": "<image>"}]}],
        "part 0: the text holds <image>",
    ),
    ([Message("user", "Hi", reasoning="hm")], "message 0: only an assistant's message"),
    ([Message("user", "Hi", tool_calls=(ToolCall("f"),))], "only an assistant's message"),
    ([Message("assistant", reasoning=7)], "reasoning must be text, not int"),  # type: ignore
    ([{"role": "assistant", "tool_calls": "f()"}], "'tool_calls' must be a list, not str"),
    ([{"role": "assistant", "tool_calls": ["f"]}], "tool call 0: expected a mapping with 'name'"),
    ([{"role": "assistant", "tool_calls": [{"function": {}}]}], "tool call 0: expected a mapping"),
    ([Message("assistant", tool_calls=(ToolCall(""),))], "tool call 0: the name must be text"),
    ([{"role": "assistant", "tool_calls": [{"name": 3}]}], "tool call 0: the name must be text"),
    (
        [{"role": "assistant", "tool_calls": [{"name": "f", "arguments": [1]}]}],
        "arguments must be a mapping or JSON text, not list",
    ),
    (
        [{"role": "assistant", "tool_calls": [{"name": "f", "arguments": {"a": {1}}}]}],
        "tool call 0: it can't be written as JSON .Object of type set",
    ),
]


@pytest.mark.parametrize(("messages", "reason"), BAD)
def test_a_bad_message_is_one_clear_line(messages: Any, reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as caught:
        render(messages)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, MMError) and isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("tools", "reason"),
    [
        ({"name": "f"}, "tools must be a list"),
        (["f"], "tool 0: expected a mapping with a 'name'"),
        ([{"name": "f"}, {"type": "function"}], "tool 1: expected a mapping with a 'name'"),
        ([{"function": "f"}], "tool 0: expected a mapping with a 'name'"),
        ([{"name": "f", "parameters": {1j}}], "tool 0: it can't be written as JSON"),
    ],
)
def test_a_bad_tool_is_one_clear_line(tools: Any, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        render([HI], tools=tools)


def test_errors_do_not_quote_what_was_said() -> None:
    bad: list[Any] = [
        [("user", SECRET), ("robot", SECRET)],
        [{"role": "user", "content": SECRET, "x": SECRET}],
        [{"role": "user", "content": [{"type": "text", "text": f"<image>{SECRET}"}]}],
        [("user", f"<image>{SECRET}")],
        [Message("assistant", SECRET, tool_calls=(ToolCall("f", {SECRET: {1}}),))],
    ]
    for messages in bad:
        with pytest.raises(UsageError) as caught:
            render(messages)
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize("arguments", ["{", "[1]", '"a"', ""])
def test_arguments_in_tags_must_be_an_objects_json(arguments: str) -> None:
    said: list[MessageLike] = [HI, Message("assistant", tool_calls=(ToolCall("f", arguments),))]
    with pytest.raises(UsageError, match="'f': arguments must be the JSON of an object"):
        render(said, revision="coder")
    assert f'"arguments": {arguments}}}' in text_of(said, revision="qwen3")


@pytest.mark.parametrize(
    ("revision", "thinking", "reason"),
    [
        ("instruct-2507", "on", "can't think"),
        ("coder", "on", "can't think"),
        ("thinking-2507", "off", "always thinks"),
        ("qwen9", "none", "unknown chat revision 'qwen9'; known: qwen3, instruct-2507"),
        ("qwen3", "maybe", "unknown thinking mode 'maybe'; known: none, off, on"),
    ],
)
def test_a_revision_that_can_not_do_it_says_so(
    revision: Revision, thinking: Thinking, reason: str
) -> None:
    with pytest.raises(UsageError, match=reason):
        render([HI], revision=revision, thinking=thinking)


def test_an_unknown_trusted_role_is_named() -> None:
    with pytest.raises(UsageError, match="unknown role 'robot' in trusted; known: system"):
        render([HI], trusted=["user", "robot"])
