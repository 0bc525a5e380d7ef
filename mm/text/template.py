r"""The chat frame of Qwen3 around messages and pictures, as text and as ids.

    <|im_start|>user\n<|vision_start|><|image_pad|>...<|vision_end|>QUESTION<|im_end|>\n
    <|im_start|>assistant\nANSWER<|im_end|>\n

The text is that of the published chat templates, string for string, by their revision:

    qwen3          the hybrid models; thinking "on" lets the model write `<think>`, "off" puts an
                   empty block in front of the answer (both published revisions give this text)
    instruct-2507  no reasoning; Qwen3-VL's Instruct models and our own, too
    thinking-2507  the prompt opens the `<think>` block, always; Qwen3-VL's Thinking models, too
    coder          no reasoning; tools and calls as XML tags, not as JSON

Only the frame holds added tokens ("control tokens"): what a message, a tool or a call says is plain
text, whatever it spells, unless its role is `trusted`. So nobody ends a turn by typing
`<|im_end|>`, and no tool's result opens an assistant's turn.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from mm.errors import UsageError
from mm.text.frame import QWEN_FRAME, PictureFrame
from mm.text.messages import (
    IMAGE_MARKER,
    ROLES,
    Message,
    MessageLike,
    Tool,
    ToolCall,
    as_messages,
    check_tools,
)
from mm.text.tokenizer import OTHER_ADDED_TOKENS, SPECIAL_TOKENS
from mm.text.tools import (
    JSON_TOOLS_AFTER,
    JSON_TOOLS_BEFORE,
    XML_SYSTEM,
    XML_TOOLS_AFTER,
    XML_TOOLS_BEFORE,
    json_call,
    json_tools,
    xml_call,
    xml_tools,
)

CONTROL = re.compile("(" + "|".join(map(re.escape, SPECIAL_TOKENS + OTHER_ADDED_TOKENS)) + ")")

Thinking = Literal["none", "off", "on"]
Revision = Literal["qwen3", "instruct-2507", "thinking-2507", "coder"]
# What each revision's `thinking` may be; the first is what "none" means to it.
MODES: dict[Revision, tuple[Thinking, ...]] = {
    "qwen3": ("on", "off"),
    "instruct-2507": ("none", "off"),
    "thinking-2507": ("on",),
    "coder": ("none", "off"),
}


@dataclass(frozen=True)
class Piece:
    """A stretch of the rendered chat.

    Args:
        text: what it says.
        special: the text is made of added tokens and nothing else.
        answer: the model is to produce it, so that training counts it.
    """

    text: str
    special: bool = False
    answer: bool = False


def revision_of(template: str) -> Revision | None:
    """Tell the revision of a published chat template (Jinja); None if it is another family's.

    Told by what the template does: how it asks for tool calls, and what it does about reasoning.
    """
    reasons = "reasoning_content" in template and "last_query_index" in template
    if "<function=" in template and "<parameter=" in template and "<tools>" in template:
        return None if "reasoning_content" in template else "coder"
    asks_for_json = "return a json object with function name and arguments within" in template
    if not asks_for_json or "You are Qwen" in template:
        return None
    if not reasons:
        return None if "think>" in template else "instruct-2507"
    if "enable_thinking" in template:
        return "qwen3"
    return "thinking-2507" if r"assistant\n<think>\n' }}" in template else None


def check_mode(revision: Revision | None, thinking: Thinking) -> tuple[Revision, Thinking]:
    """Settle the revision and whether it thinks.

    Args:
        revision: None means "instruct-2507" if `thinking` is "none", else "qwen3".
        thinking: "none" leaves it to the revision.

    Raises:
        UsageError: an unknown word, or this revision can't think, or can't but think.
    """
    if thinking not in get_args(Thinking):
        known = ", ".join(get_args(Thinking))
        raise UsageError(f"unknown thinking mode {thinking!r}; known: {known}")
    if revision is None:
        revision = "instruct-2507" if thinking == "none" else "qwen3"
    if revision not in MODES:
        raise UsageError(f"unknown chat revision {revision!r}; known: {', '.join(MODES)}")
    if thinking == "none":
        thinking = MODES[revision][0]
    if thinking not in MODES[revision]:
        can = "always thinks" if revision == "thinking-2507" else "can't think"
        raise UsageError(f"thinking is {thinking!r}, but a model of revision {revision!r} {can}")
    return revision, thinking


def _check_pictures(messages: Sequence[Message], num_image_tokens: Sequence[int]) -> None:
    """`<image>` stands for a picture in the system's and the user's text; elsewhere it is text."""
    shown = (message for message in messages if message.role in ("system", "user"))
    markers = sum(message.content.count(IMAGE_MARKER) for message in shown)
    if markers != len(num_image_tokens):
        raise UsageError(
            f"the turns hold {markers} {IMAGE_MARKER} markers for {len(num_image_tokens)} "
            "pictures: write one marker at the place of each picture"
        )


def _frame_text(text: str, answer: bool = False) -> Iterator[Piece]:
    """Text in which added tokens are control tokens: the template's own."""
    for index, part in enumerate(CONTROL.split(text)):
        if part:
            yield Piece(part, special=index % 2 == 1, answer=answer)


def _split_reasoning(text: str) -> tuple[str, str]:
    """Reasoning and answer of an assistant's text, as the published template takes them apart."""
    if "</think>" not in text:
        return "", text
    reasoning = text.split("</think>")[0].rstrip("\n").split("<think>")[-1].lstrip("\n")
    return reasoning, text.split("</think>")[-1].lstrip("\n")


def _last_query(messages: Sequence[Message]) -> int:
    """Where the last question is: a user's message that isn't a tool's result in disguise."""
    for index in range(len(messages) - 1, -1, -1):
        text = messages[index].content
        wrapped = text.startswith("<tool_response>") and text.endswith("</tool_response>")
        if messages[index].role == "user" and not wrapped:
            return index
    return len(messages) - 1


@dataclass(frozen=True)
class _Renderer:
    """One conversation's way to pieces, message by message; settings as for `render`."""

    revision: Revision
    thinking: Thinking
    trusted: Collection[str]
    sizes: Iterator[int]
    frame: PictureFrame

    def said(self, role: str, text: str, answer: bool = False) -> Iterator[Piece]:
        """What somebody wrote."""
        if role in self.trusted:
            yield from _frame_text(text, answer)
        elif text:
            yield Piece(text, answer=answer)

    def shown(self, role: str, text: str) -> Iterator[Piece]:
        """What somebody wrote, with pictures."""
        first, *rest = text.split(IMAGE_MARKER)
        end = self.frame.text_end if rest else ""
        yield from self.said(role, first + end if first else "")
        for part in rest:
            picture, after = self.frame.around(next(self.sizes))
            yield Piece(picture, special=True)
            yield from self.said(role, after + part + end if part else after)

    def turn(self, role: str, text: str) -> Iterator[Piece]:
        yield from _frame_text(f"<|im_start|>{role}\n")
        yield from self.shown(role, text)
        yield from _frame_text("<|im_end|>\n")

    def with_tools(self, system: str | None, tools: Sequence[Tool]) -> Iterator[Piece]:
        """The system's turn, with the definitions of the tools."""
        xml = self.revision == "coder"
        yield from _frame_text("<|im_start|>system\n")
        if system is not None:
            yield from self.shown("system", system)
        elif xml:
            yield Piece(XML_SYSTEM)
        if xml:
            yield Piece(XML_TOOLS_BEFORE)
        else:
            yield Piece(("\n\n" if system is not None else "") + JSON_TOOLS_BEFORE)
        yield from self.said("system", xml_tools(tools) if xml else json_tools(tools))
        yield from _frame_text(XML_TOOLS_AFTER if xml else JSON_TOOLS_AFTER)
        yield from _frame_text("<|im_end|>\n")

    def assistant(self, message: Message, in_reply: bool, is_final: bool) -> Iterator[Piece]:
        """`in_reply`: after the last question; `is_final`: the last message."""
        yield from _frame_text("<|im_start|>assistant\n")
        reasoning, content = message.reasoning, message.content
        if self.revision in ("qwen3", "thinking-2507"):
            if reasoning is None:
                reasoning, content = _split_reasoning(content)
            if in_reply and (is_final or reasoning):
                yield from self.thought(reasoning.strip("\n"))
                yield from self.said("assistant", content.lstrip("\n"), answer=True)
            else:
                yield from self.said("assistant", content, answer=True)
        elif self.revision == "coder" and message.tool_calls:
            content = content.strip()
            yield from self.said("assistant", content + "\n" if content else "", answer=True)
        else:
            yield from self.said("assistant", content, answer=True)
        for index, call in enumerate(message.tool_calls):
            if index or content:
                yield Piece("\n", answer=True)
            yield from self.called(call)
        yield from _frame_text("<|im_end|>", answer=True)
        yield Piece("\n")

    def thought(self, reasoning: str) -> Iterator[Piece]:
        """The reasoning block. What the prompt gives is not for the model to write."""
        always = self.revision == "thinking-2507"
        written = always or self.thinking == "on" or bool(reasoning)
        yield from _frame_text("<think>\n", answer=written and not always)
        yield from self.said("assistant", reasoning, answer=written)
        yield from _frame_text("\n</think>\n\n", answer=written)

    def called(self, call: ToolCall) -> Iterator[Piece]:
        yield from _frame_text("<tool_call>", answer=True)
        text = xml_call(call) if self.revision == "coder" else json_call(call)
        yield from self.said("assistant", text, answer=True)
        yield from _frame_text("</tool_call>", answer=True)

    def returned(self, text: str, opens: bool, closes: bool) -> Iterator[Piece]:
        """A tool's result; neighbours share one user's turn."""
        if opens:
            yield from _frame_text("<|im_start|>user")
        if opens or self.revision != "coder":
            yield Piece("\n")
        yield from _frame_text("<tool_response>\n")
        yield from self.said("tool", text)
        yield from _frame_text("\n</tool_response>")
        if self.revision == "coder":
            yield Piece("\n")
        if closes:
            yield from _frame_text("<|im_end|>\n")

    def prompt(self) -> Iterator[Piece]:
        """The opened turn of the assistant."""
        yield from _frame_text("<|im_start|>assistant\n")
        if self.revision == "thinking-2507":
            yield from _frame_text("<think>\n")
        elif self.revision == "qwen3" and self.thinking == "off":
            yield from _frame_text("<think>\n\n</think>\n\n")


def render(
    messages: Sequence[MessageLike],
    *,
    tools: Sequence[Tool] = (),
    num_image_tokens: Sequence[int] = (),
    revision: Revision | None = None,
    thinking: Thinking = "none",
    add_generation_prompt: bool = False,
    trusted: Collection[str] = (),
    frame: PictureFrame = QWEN_FRAME,
) -> list[Piece]:
    """Render messages to pieces; `"".join(piece.text for piece in pieces)` is the chat as text.

    Args:
        messages: pairs, `Message`s or mappings, see `mm.text.messages`. The system's and the
            user's texts hold one `<image>` at each picture's place.
        tools: definitions of the tools that the model may call.
        num_image_tokens: how many tokens each picture takes, in order.
        revision: whose template, see the module; None: "instruct-2507", or "qwen3" if it thinks.
        thinking: "on", "off", or "none" for what the revision does by itself.
        add_generation_prompt: end with the opened assistant turn.
        trusted: roles in whose text added tokens are control tokens ("system" includes the tools,
            "assistant" its calls). Only for text that comes from no user, page or tool.
        frame: how a picture stands in the text.

    Raises:
        UsageError: a message or tool is malformed; markers and pictures differ in number (what
            follows would look at the wrong picture); or revision and thinking don't go together.
    """
    revision, thinking = check_mode(revision, thinking)
    said = as_messages(messages)
    check_tools(tools)
    _check_pictures(said, num_image_tokens)
    if unknown := sorted(set(trusted) - set(ROLES)):
        raise UsageError(f"unknown role {unknown[0]!r} in trusted; known: {', '.join(ROLES)}")
    renderer = _Renderer(revision, thinking, trusted, iter(num_image_tokens), frame)
    opening = "" if tools or said[0].role == "system" else frame.opening
    pieces = list(_frame_text(opening))
    start = 0
    if tools:
        start = int(said[0].role == "system")
        pieces += renderer.with_tools(said[0].content if start else None, tools)
    last_query = _last_query(said)
    for index, message in enumerate(said[start:], start):
        is_final = index == len(said) - 1
        if message.role == "assistant":
            pieces += renderer.assistant(message, index > last_query, is_final)
        elif message.role == "tool":
            opens = said[index - 1].role != "tool"
            closes = is_final or said[index + 1].role != "tool"
            pieces += renderer.returned(message.content, opens, closes)
        else:
            pieces += renderer.turn(message.role, message.content)
    return pieces + list(renderer.prompt() if add_generation_prompt else ())
