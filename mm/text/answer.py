r"""What the model wrote, taken apart: its reasoning, what it says, and the tools it calls.

    <think>\nREASONING\n</think>\n\nCONTENT\n
    <tool_call>\n{"name": NAME, "arguments": {...}}\n</tool_call>

Coder writes `<function=NAME>` with `<parameter=NAME>` tags between the `<tool_call>`s instead. A
model may write anything, so nothing here raises: what isn't well formed is content. Calls are taken
all or none, since an answer that breaks off in its second call shouldn't have its first one run,
and none is taken out of reasoning that never ended.

`parse_ids` also tells a tag that the model gave as a control token from one that it spelled in
letters, say because a user asked it to repeat one: only the former counts.
Ref: Qwen3's documentation (everything after the last `</think>` is the answer).
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NoReturn

from mm.text.messages import Message, Tool, ToolCall, function_of
from mm.text.template import Revision
from mm.text.tokenizer import Tokenizer

FUNCTION = re.compile(r"\s*<function=([^>\n]+)>\s*")
PARAMETER = re.compile(r"<parameter=([^>\n]+)>\n?")
SPACE = re.compile(r"\s*")
# What the XML form writes as Python does.
JSON_WORDS = {"True": "true", "False": "false", "None": "null"}


@dataclass(frozen=True)
class ParsedAnswer:
    """An answer's parts; "" and () where there is none."""

    reasoning: str
    content: str
    tool_calls: tuple[ToolCall, ...] = ()

    def message(self) -> Message:
        """The message to go on with: put it after the others, and the tools' results after it."""
        return Message("assistant", self.content, self.reasoning, self.tool_calls)


def parse_ids(
    tokenizer: Tokenizer, ids: Sequence[int], revision: Revision, tools: Sequence[Tool] = ()
) -> ParsedAnswer:
    """Take the ids of an answer apart; tags spelled in letters are text. Arguments: see below."""
    parts: list[str] = []
    tags: set[int] = set()
    length, start = 0, 0
    for end, index in enumerate([*ids, None]):
        if index is not None and not tokenizer.is_added(index):
            continue
        parts.append(tokenizer.decode(ids[start:end]))
        length += len(parts[-1])
        if index is not None:
            tags.add(length)
            parts.append(tokenizer.decode([index]))  # "" for `<|im_end|>` and its like
            length += len(parts[-1])
        start = end + 1
    return parse_answer("".join(parts), revision, tools, tags=tags)


def parse_answer(
    text: str,
    revision: Revision,
    tools: Sequence[Tool] = (),
    *,
    tags: Collection[int] | None = None,
) -> ParsedAnswer:
    """Take the text of an answer apart.

    Args:
        text: the answer as decoded, without the prompt and `<|im_end|>`.
        revision: which form the model writes, see `mm.text.template`.
        tools: their definitions: values in XML tags become what the schema says, else text.
        tags: where in the text control tokens are; None: wherever a tag is spelled.
    """
    marked = _Marked(text, tags)
    reasoning, start = "", 0
    if revision in ("qwen3", "thinking-2507"):
        reasoning, start = _reasoning(marked)
        if start == 0 and (revision == "thinking-2507" or _opened(marked)):
            return ParsedAnswer("", text)  # cut off while it reasoned
    parts: list[str] = []
    calls: list[ToolCall] = []
    at = start
    while (opening := marked.find("<tool_call>", at)) >= 0:
        body = opening + len("<tool_call>")
        found = _xml_call(marked, body, tools) if revision == "coder" else _json_call(marked, body)
        if found is None:
            return ParsedAnswer(reasoning, text[start:])
        parts.append(text[at:opening])
        call, at = found
        calls.append(call)
    if not calls:
        return ParsedAnswer(reasoning, text[start:])
    before = parts[0].strip() if revision == "coder" else parts[0].removesuffix("\n")
    others = [part.strip("\n") for part in [*parts[1:], text[at:]]]
    content = "\n".join(part for part in [before, *others] if part)
    return ParsedAnswer(reasoning, content, tuple(calls))


@dataclass(frozen=True)
class _Marked:
    """A text of which it is known where its tags are."""

    text: str
    tags: Collection[int] | None

    def is_tag(self, tag: str, at: int) -> bool:
        return self.text.startswith(tag, at) and (self.tags is None or at in self.tags)

    def find(self, tag: str, at: int) -> int:
        """Where the tag is next; -1 if it isn't."""
        while (at := self.text.find(tag, at)) >= 0 and not self.is_tag(tag, at):
            at += 1
        return at

    def rfind(self, tag: str) -> int:
        """Where the tag is last; -1 if it isn't."""
        at = self.text.rfind(tag)
        while at >= 0 and not self.is_tag(tag, at):
            at = self.text.rfind(tag, 0, at + len(tag) - 1)
        return at


def _reasoning(marked: _Marked) -> tuple[str, int]:
    """The reasoning, and where the rest starts."""
    end = marked.rfind("</think>")
    if end < 0:
        return "", 0
    start = _opened(marked)
    rest = marked.text[end + len("</think>") :].lstrip("\n")
    return marked.text[start:end].strip("\n"), len(marked.text) - len(rest)


def _opened(marked: _Marked) -> int:
    """Where the text after a leading `<think>` starts; 0 without one."""
    at = _after_space(marked.text, 0)
    return at + len("<think>") if marked.is_tag("<think>", at) else 0


def _after_space(text: str, at: int) -> int:
    match = SPACE.match(text, at)
    return match.end() if match else at


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")


@cache
def _decoder() -> json.JSONDecoder:
    """Reads JSON; line breaks inside strings are allowed, as models write them."""
    return json.JSONDecoder(strict=False, parse_constant=_refuse)


def _json_call(marked: _Marked, at: int) -> tuple[ToolCall, int] | None:
    """The call whose text starts here, and where its block ends."""
    try:
        value, end = _decoder().raw_decode(marked.text, _after_space(marked.text, at))
    except (ValueError, RecursionError):
        return None
    end = _after_space(marked.text, end)
    if not marked.is_tag("</tool_call>", end):
        return None
    if not isinstance(value, dict) or value.keys() != {"name", "arguments"}:
        return None
    name, arguments = value["name"], value["arguments"]
    if not isinstance(name, str) or not name or not isinstance(arguments, dict):
        return None
    return ToolCall(name, arguments), end + len("</tool_call>")


def _xml_call(marked: _Marked, at: int, tools: Sequence[Tool]) -> tuple[ToolCall, int] | None:
    """The call whose text starts here, and where its block ends."""
    text = marked.text
    function = FUNCTION.match(text, at)
    if function is None:
        return None
    schema = _properties(function[1], tools)
    arguments: dict[str, Any] = {}
    at = function.end()
    while parameter := PARAMETER.match(text, at):
        end = text.find("</parameter>", parameter.end())
        # A value may spell the tag too: it ends where another parameter or the call's end follows.
        while end >= 0 and not _xml_follows(marked, after := end + len("</parameter>")):
            end = text.find("</parameter>", after)
        if end < 0 or parameter[1] in arguments:
            return None
        value = text[parameter.end() : end].removesuffix("\n")
        arguments[parameter[1]] = _typed(value, schema.get(parameter[1]))
        at = _after_space(text, end + len("</parameter>"))
    closing = _xml_end(marked, at)
    return None if closing is None else (ToolCall(function[1], arguments), closing)


def _xml_follows(marked: _Marked, at: int) -> bool:
    at = _after_space(marked.text, at)
    return PARAMETER.match(marked.text, at) is not None or _xml_end(marked, at) is not None


def _xml_end(marked: _Marked, at: int) -> int | None:
    """Where the block ends, if its closing tags are here."""
    if not marked.text.startswith("</function>", at):
        return None
    at = _after_space(marked.text, at + len("</function>"))
    return at + len("</tool_call>") if marked.is_tag("</tool_call>", at) else None


def _properties(name: str, tools: Sequence[Tool]) -> Mapping[str, Any]:
    """The parameters of a tool by name; empty if it isn't defined."""
    for tool in tools:
        function = function_of(tool)
        parameters = function.get("parameters")
        if function.get("name") == name and isinstance(parameters, Mapping):
            properties = parameters.get("properties")
            return properties if isinstance(properties, Mapping) else {}
    return {}


def _typed(text: str, schema: object) -> Any:  # a JSON value
    """The value that a text stands for, if its schema allows that and no text; else the text."""
    kinds = schema.get("type") if isinstance(schema, Mapping) else None
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if not isinstance(kinds, list | tuple) or "string" in kinds:
        return text
    allowed = {kind for kind in kinds if isinstance(kind, str)}
    try:
        value = _decoder().decode(JSON_WORDS.get(text.strip(), text))
    except (ValueError, RecursionError):
        return text
    return value if _kinds(value) & allowed else text


def _kinds(value: object) -> set[str]:
    """The names that JSON schemas have for a value's kind."""
    if isinstance(value, bool):
        return {"boolean"}
    if isinstance(value, int):
        return {"integer", "number"}
    names = {float: "number", str: "string", list: "array", dict: "object", type(None): "null"}
    return {names[type(value)]}
