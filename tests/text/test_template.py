"""Chats equal the published templates' text: recorded for all, rendered anew where they are."""

import ast
import inspect
import sys
from collections import Counter
from collections.abc import Callable
from types import FrameType, ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from mm.errors import UsageError
from mm.text import template, tools
from mm.text.chat import Message, ToolCall, render, revision_of
from tests.text.published import (
    NEVER_TAKEN,
    REVISION_OF,
    SHA256,
    Conversation,
    Published,
    conversations,
    digest,
    ours,
    published,
    records,
    template_text,
)

RECORDS = records()
# What `revision_of` goes by, without the rest of the templates.
JSON = "return a json object with function name and arguments within"
REASONS = f"{JSON} reasoning_content last_query_index"
XML = "<tools> <function= <parameter="


def published_or_skip(name: str) -> Published:
    if template_text(name) is None:
        pytest.skip(f"MM_QWEN3_TEMPLATES names no folder with {name}.jinja")
    return published(name)


def test_two_hundred_recorded_conversations_of_every_revision() -> None:
    counts = Counter(record["template"] for record in RECORDS)
    assert counts.keys() == REVISION_OF.keys()
    assert sum(counts.values()) >= 200 and min(counts.values()) >= 40


@pytest.mark.parametrize("name", REVISION_OF)
def test_the_text_is_the_one_recorded(name: str) -> None:
    for record in RECORDS:
        if record["template"] == name:
            text = ours(record)
            if "text" in record:
                assert text == record["text"]
            else:
                assert digest(text) == record["sha256"], text


@pytest.mark.parametrize("name", REVISION_OF)
def test_the_records_are_the_published_templates_and_take_each_branch(name: str) -> None:
    reference = published_or_skip(name)
    reference.taken.clear()
    for record in RECORDS:
        if record["template"] == name:
            text = reference.render(record)
            assert record.get("text", text) == text
            assert record.get("sha256", digest(text)) == digest(text)
    assert reference.branches - reference.taken == NEVER_TAKEN.get(name, set())


@pytest.mark.parametrize("name", REVISION_OF)
def test_the_text_is_the_published_templates_whatever_is_said(name: str) -> None:
    reference = published_or_skip(name)

    @settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
    @given(conversations(name))
    def compare(conversation: Conversation) -> None:
        assert ours(conversation) == reference.render(conversation)

    compare()


@pytest.mark.parametrize("name", REVISION_OF)
def test_a_published_template_is_told_by_its_text(name: str) -> None:
    text = published_or_skip(name).text
    assert digest(text.rstrip("\n")) == SHA256[name]
    assert revision_of(text) == REVISION_OF[name]


@pytest.mark.parametrize(
    ("text", "revision"),
    [
        ("", None),
        ("{{ messages }}", None),
        (f"{JSON} You are Qwen, created by", None),  # Qwen2.5
        (f"{XML} <|vision_start|> reasoning_content", None),  # Qwen3.5
        (f"{JSON} <think>", None),  # reasons in some other way
        (f"{XML} reasoning_content last_query_index", None),  # later families
        (XML, "coder"),
        (JSON, "instruct-2507"),
        (f"{REASONS} enable_thinking", "qwen3"),
        (REASONS + r"{{- '<|im_start|>assistant\n<think>\n' }}", "thinking-2507"),
        (REASONS, None),
    ],
)
def test_other_families_templates_are_not_taken_for_ours(text: str, revision: str | None) -> None:
    assert revision_of(text) == revision


def lines_of_functions(module: ModuleType, leave_out: str = "") -> set[int]:
    """Lines of statements inside the module's functions, without those that only raise."""
    found: set[int] = set()
    refused: set[int] = set()
    for function in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(function, ast.FunctionDef) and function.name != leave_out:
            for node in ast.walk(function):
                is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
                if isinstance(node, ast.stmt) and node is not function and not is_docstring:
                    found.add(node.lineno)
                if isinstance(node, ast.If) and isinstance(node.body[-1], ast.Raise):
                    refused.update(inner.lineno for inner in node.body)
    return found - refused


def traced(modules: list[ModuleType], run: Callable[[], object]) -> dict[str, set[int]]:
    """Lines of modules that a call runs."""
    seen: dict[str, set[int]] = {str(module.__file__): set() for module in modules}

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        lines = seen.get(frame.f_code.co_filename)
        if lines is None:
            return None
        lines.add(frame.f_lineno)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        run()
    finally:
        sys.settrace(before)
    return seen


def test_the_recorded_conversations_run_every_line_that_renders() -> None:
    def run() -> None:
        for record in RECORDS:
            ours(record)
        # Without counterpart in the templates: pictures, trusted text, arguments as JSON for XML.
        render([("user", "a<image>b")], num_image_tokens=[1], trusted=["user"])
        call = ToolCall("f", '{"a": 1}')
        render([Message("assistant", tool_calls=(call,))], revision="coder")
        with pytest.raises(UsageError):
            bad = Message("assistant", tool_calls=(ToolCall("f", "not JSON"),))
            render([bad], revision="coder")

    seen = traced([template, tools], run)
    for module in (template, tools):
        missed = lines_of_functions(module, leave_out="revision_of") - seen[str(module.__file__)]
        assert missed == set(), module.__name__


def test_one_conversation_of_tools_in_full() -> None:
    weather = {"name": "weather", "parameters": {"properties": {"city": {"type": "string"}}}}
    said: list[Any] = [
        ("user", "Is it warm in 서울?"),
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "look",
            "tool_calls": [{"function": {"name": "weather", "arguments": {"city": "서울"}}}],
        },
        ("tool", "31 °C"),
    ]
    text = "".join(
        piece.text
        for piece in render(
            said, tools=[weather], revision="qwen3", thinking="off", add_generation_prompt=True
        )
    )
    assert text == (
        "<|im_start|>system\n# Tools\n\n"
        "You may call one or more functions to assist with the user query.\n\n"
        "You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n"
        '{"name": "weather", "parameters": {"properties": {"city": {"type": "string"}}}}\n'
        "</tools>\n\nFor each function call, return a json object with function name and arguments "
        "within <tool_call></tool_call> XML tags:\n<tool_call>\n"
        '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\nIs it warm in 서울?<|im_end|>\n"
        "<|im_start|>assistant\n<think>\nlook\n</think>\n\n"
        '<tool_call>\n{"name": "weather", "arguments": {"city": "서울"}}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\n<tool_response>\n31 °C\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )
