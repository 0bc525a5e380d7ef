"""What a conversation is made of: messages, tool calls and tool definitions, and their checks.

Three forms of a message are understood: a pair `("user", "Hi")`, a `Message`, and the mapping that
chat interfaces exchange (`{"role": ..., "content": ..., "tool_calls": [...]}`). All become
`Message`s here, once, so that the renderer has one case. Errors name the message by its position
and what is wrong with it; they don't quote it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mm.errors import UsageError

IMAGE_MARKER = "<image>"
ROLES = ("system", "user", "assistant", "tool")
REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
KNOWN_KEYS = {"role", "content", "tool_calls", *REASONING_KEYS}
# Part of the common interface and not of what Qwen3 reads.
UNREAD_KEYS = {"name", "tool_call_id", "id"}

Turn = tuple[str, str]
Tool = Mapping[str, Any]  # a JSON schema of a function, alone or under the key "function"


@dataclass(frozen=True)
class ToolCall:
    """A call of a tool.

    Args:
        name: of the tool.
        arguments: by name, values as JSON has them; or the JSON text of such an object.
    """

    name: str
    arguments: Mapping[str, Any] | str = field(default_factory=dict)


@dataclass(frozen=True)
class Message:
    """One message.

    Args:
        role: "system", "user", "assistant", or "tool" for what a tool returned.
        content: the text; the system's and the user's hold `<image>` at each picture's place.
        reasoning: what the assistant thought before it answered. None: look for a `<think>` block
            in `content`, as the published templates do.
        tool_calls: what the assistant called after `content`.
    """

    role: str
    content: str = ""
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()


MessageLike = Turn | Message | Mapping[str, Any]


def as_messages(messages: Sequence[MessageLike]) -> list[Message]:
    """Bring a conversation to `Message`s.

    Raises:
        UsageError: there is no message, one is of no known form, of an unknown role, or holds
            something that its role can't have; or a tool's result has nothing before it.
    """
    if isinstance(messages, str | Mapping | Message):
        raise UsageError('messages must be a list, as [("user", "Hi")]; got a single one')
    found = [_as_message(item, f"message {i}") for i, item in enumerate(messages)]
    if not found:
        raise UsageError('there are no messages: give at least one, as ("user", "Hi")')
    first = 1 if found[0].role == "system" else 0
    if first < len(found) and found[first].role == "tool":
        raise UsageError(f"message {first}: a tool's result needs the assistant's call before it")
    return found


def _as_message(item: MessageLike, place: str) -> Message:
    if isinstance(item, Message):
        message = item
    elif isinstance(item, Mapping):
        message = _from_mapping(item, place)
    elif isinstance(item, tuple | list) and len(item) == 2:
        message = Message(*item)
    else:
        raise UsageError(
            f"{place}: expected a (role, text) pair, a Message or a mapping with 'role' and "
            f"'content'; got {type(item).__name__}"
        )
    _check(message, place)
    return message


def _from_mapping(item: Mapping[str, Any], place: str) -> Message:
    if unknown := sorted(str(key) for key in item if key not in KNOWN_KEYS | UNREAD_KEYS):
        known = ", ".join(("role", "content", "tool_calls", *REASONING_KEYS))
        raise UsageError(f"{place}: unknown key {unknown[0]!r}; known: {known}")
    if "role" not in item:
        raise UsageError(f"{place}: it has no 'role'; known: {', '.join(ROLES)}")
    role, content, calls = item["role"], item.get("content"), item.get("tool_calls") or ()
    if content is None and role == "assistant":
        content = ""  # usual beside tool calls
    elif isinstance(content, list | tuple):
        content = "".join(_part(part, f"{place}, part {i}") for i, part in enumerate(content))
    if not isinstance(calls, list | tuple):
        raise UsageError(f"{place}: 'tool_calls' must be a list, not {type(calls).__name__}")
    reasoning = next((item[key] for key in REASONING_KEYS if item.get(key) is not None), None)
    made = (_as_call(call, f"{place}, tool call {i}") for i, call in enumerate(calls))
    return Message(role, content, reasoning, tuple(made))  # type: ignore[arg-type] # checked later


def _part(part: object, place: str) -> str:
    """The text of one part of a content list: a text, or the marker of a picture."""
    kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
    if isinstance(part, Mapping) and kind == "text" and isinstance(part.get("text"), str):
        if IMAGE_MARKER in part["text"]:
            raise UsageError(f"{place}: the text holds {IMAGE_MARKER}, which marks a picture")
        return str(part["text"])
    if kind in ("image", "image_url"):
        return IMAGE_MARKER
    raise UsageError(f"{place}: unknown part {kind!r}; known: text (with 'text'), image")


def _as_call(call: object, place: str) -> ToolCall:
    if isinstance(call, ToolCall):
        return call
    function = call.get("function") or call if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or "name" not in function:
        raise UsageError(f"{place}: expected a mapping with 'name' and 'arguments'")
    return ToolCall(function["name"], function.get("arguments", {}))


def _check(message: Message, place: str) -> None:
    if message.role not in ROLES:
        raise UsageError(f"{place}: unknown role {message.role!r}; known: {', '.join(ROLES)}")
    for name in ("content", "reasoning"):
        value = getattr(message, name)
        if not isinstance(value, str) and not (name == "reasoning" and value is None):
            raise UsageError(f"{place}: {name} must be text, not {type(value).__name__}")
    if message.role != "assistant" and (message.tool_calls or message.reasoning is not None):
        raise UsageError(f"{place}: only an assistant's message has reasoning or tool calls")
    for i, call in enumerate(message.tool_calls):
        where = f"{place}, tool call {i}"
        if not isinstance(call.name, str) or not call.name:
            raise UsageError(f"{where}: the name must be text, and not empty")
        arguments: object = call.arguments
        if not isinstance(arguments, str | Mapping):
            kind = type(arguments).__name__
            raise UsageError(f"{where}: arguments must be a mapping or JSON text, not {kind}")
        if not isinstance(arguments, str):
            to_json(arguments, where)


def check_tools(tools: Sequence[Tool]) -> None:
    """Check tool definitions.

    Raises:
        UsageError: one has no name, or can't be written as JSON.
    """
    if isinstance(tools, str | Mapping):
        raise UsageError("tools must be a list of definitions; got a single one")
    for i, tool in enumerate(tools):
        if not isinstance(tool, Mapping) or not isinstance(function_of(tool).get("name"), str):
            raise UsageError(f"tool {i}: expected a mapping with a 'name', or one under 'function'")
        to_json(tool, f"tool {i}")


def function_of(tool: Tool) -> Tool:
    """The function's own definition, without the wrapping that says that it is a function."""
    inner = tool.get("function", tool)
    return inner if isinstance(inner, Mapping) else {}


def to_json(value: object, place: str = "value") -> str:
    """JSON as the published templates write it: letters as they are, keys in their order."""
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:80]
        raise UsageError(f"{place}: it can't be written as JSON ({reason})") from None
