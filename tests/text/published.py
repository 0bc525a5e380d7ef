"""The published chat templates, rendered as transformers does, with a count of branches taken.

The templates are not part of this repository. The environment variable MM_QWEN3_TEMPLATES may name
a folder with qwen3-first.jinja, qwen3.jinja, instruct-2507.jinja, thinking-2507.jinja,
coder.jinja, vl-instruct.jinja and vl-thinking.jinja: the `chat_template` of Qwen3-8B as first
released and as it is now, of an Instruct-2507, of a Thinking-2507, of a Qwen3-Coder model, and of
Qwen3-VL's Instruct and Thinking models.

What they rendered is recorded in renderings.jsonl beside this file, so that the comparison runs
without them too. `python -m tests.text.published` records anew.
"""

import hashlib
import json
import os
import random
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from mm.text.chat import IMAGE_MARKER, Revision, Thinking, render

FOLDER = os.environ.get("MM_QWEN3_TEMPLATES", "")
TOKENIZER = os.environ.get("MM_QWEN3_TOKENIZER", "")
RECORDS = Path(__file__).with_name("renderings.jsonl")
REVISION_OF: dict[str, Revision] = {
    "qwen3-first": "qwen3",
    "qwen3": "qwen3",
    "instruct-2507": "instruct-2507",
    "thinking-2507": "thinking-2507",
    "coder": "coder",
    "vl-instruct": "instruct-2507",
    "vl-thinking": "thinking-2507",
}
SEE = ("vl-instruct", "vl-thinking")
# What was compared with: SHA-256 of the templates' text, line breaks at its end left out.
SHA256 = {
    "qwen3-first": "87a2728cb8dc9fe424d624542f6060ec05a1d285ebbec578bb078900e33396b5",
    "qwen3": "a55ee1b1660128b7098723e0abcd92caa0788061051c62d51cbe87d9cf1974d8",
    "instruct-2507": "64f85b198065d0fba2a81f37e10ed68161ce2c19a754c7100e67e0ca2ee9c326",
    "thinking-2507": "3802169b2a02b81e6adb7ab4f64f91ff02db753c8c3a64a01c35192d3a61d8d7",
    "coder": "32bf2564d2245b98298677d3ac2332ab50bc3279740c13c3974689464b38aa3c",
    "vl-instruct": "9d879ef91075acbfb2df7e441fd79d60bacfca989cf6d511d2af45c681e94f10",
    "vl-thinking": "84ed326ccec340f3c775d5a31c0aada290d59819c18e43650aabe14f1d42c839",
}
# Branches of the templates that no conversation takes which `render` accepts, by line.
NEVER_TAKEN: dict[str, set[str]] = {
    "coder": {"99:no"},  # a role that none of the branches knows
    # Clips, numbers for pictures, and texts in parts that hold no picture.
    "vl-instruct": {
        *("4:no", "8:no", "8:yes", "24:no", "28:no", "28:yes", "47:yes", "49:yes", "51:no"),
        *("51:yes", "53:no", "61:no", "65:yes", "65:no", "95:no", "99:yes", "101:yes", "101:no"),
        *("103:yes", "105:no", "105:yes", "107:no", "107:yes"),
    },
    "vl-thinking": {"12:yes", "14:yes", "15:no", "15:yes", "18:no", "18:yes", "20:no"},
}

PICTURE = {"type": "image"}

Conversation = dict[str, Any]


def template_text(name: str) -> str | None:
    """A template, if there is one on this machine."""
    if FOLDER:
        return (Path(FOLDER) / f"{name}.jinja").read_text("utf-8")
    config = Path(TOKENIZER or "missing/file").with_name("tokenizer_config.json")
    if name == "qwen3-first" and config.exists():
        return str(json.loads(config.read_text("utf-8"))["chat_template"])
    return None


class Published:
    """A template that counts which of its branches were taken.

    Args:
        text: the Jinja text.
    """

    def __init__(self, text: str) -> None:
        from jinja2 import nodes
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        self.text = text
        self.taken: set[str] = set()
        self.branches: set[str] = set()

        def taken(node: nodes.If, answer: str) -> nodes.Node:
            branch = f"{node.lineno}:{answer}"
            self.branches.add(branch)
            call = nodes.Call(nodes.Name("branch", "load"), [nodes.Const(branch)], [], None, None)
            return nodes.ExprStmt(call, lineno=node.lineno)

        class Counting(ImmutableSandboxedEnvironment):
            def _parse(self, *args: Any) -> nodes.Template:
                tree = super()._parse(*args)
                tests = list(tree.find_all(nodes.If))
                elifs = {id(inner) for node in tests for inner in node.elif_}
                for node in tests:
                    if id(node) not in elifs:  # an elif's own else belongs to the whole chain
                        node.else_.insert(0, taken((node.elif_ or [node])[-1], "no"))
                for node in tests:
                    node.body.insert(0, taken(node, "yes"))
                return tree

        environment = Counting(trim_blocks=True, lstrip_blocks=True)
        environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
        environment.globals["branch"] = self.taken.add
        self._template = environment.from_string(text)

    def render(self, conversation: Conversation) -> str:
        """The chat as the template has it."""
        values = {
            "messages": [with_pictures(message) for message in conversation["messages"]],
            "add_generation_prompt": conversation["prompt"],
        }
        if "tools" in conversation:
            values["tools"] = conversation["tools"]
        if conversation["thinking"] != "none":
            values["enable_thinking"] = conversation["thinking"] == "on"
        return str(self._template.render(values))


def with_pictures(message: dict[str, Any]) -> dict[str, Any]:
    """A user's message as those templates want it that know pictures: in parts."""
    texts = (message["content"] or "").split(IMAGE_MARKER)
    if message["role"] != "user" or len(texts) == 1:
        return message
    parts = [part for text in texts for part in ({"type": "text", "text": text}, PICTURE)]
    return {**message, "content": parts[:-1]}


def picture_sizes(conversation: Conversation) -> list[int]:
    """One token for each picture that a user shows."""
    users = (one["content"] for one in conversation["messages"] if one["role"] == "user")
    return [1] * sum(text.count(IMAGE_MARKER) for text in users)


@cache
def published(name: str) -> Published:
    text = template_text(name)
    assert text is not None
    return Published(text)


def ours(conversation: Conversation) -> str:
    """The chat as this package has it."""
    thinking: Thinking = conversation["thinking"]
    pieces = render(
        conversation["messages"],
        num_image_tokens=picture_sizes(conversation),
        tools=conversation.get("tools") or (),
        revision=REVISION_OF[conversation["template"]],
        thinking=thinking,
        add_generation_prompt=conversation["prompt"],
    )
    return "".join(piece.text for piece in pieces)


# --- Conversations of every shape ---------------------------------------------------------------

SNIPPETS = [
    *("<|im_end|>", "<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>"),
    *("</tool_response>", "\n", " ", "\n\n", "\\n", "<a href='x'>&amp;", '"', "{}", "/no_think"),
    *("가나다", "é🙂", "ok", "word", "<function=f>", "</parameter>"),
]
INNER = st.lists(
    st.sampled_from(SNIPPETS) | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    max_size=4,
).map("".join)
# The templates trim some texts at their ends, each in its own way.
EDGE = st.sampled_from(["", "\n", " \n", "\n\n "])
TEXT = INNER | st.builds("{}{}{}".format, EDGE, INNER, EDGE)
# Not a picture's marker, which the templates for text alone don't know.
PLAIN = TEXT.filter(lambda text: "<image>" not in text)
ANSWER = TEXT | st.just("ok") | st.builds("<think>\n{}\n</think>\n\n{}".format, TEXT, TEXT)
NAME = st.sampled_from(["f", "get_weather", "날씨", "a-b.c", "x y"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 10**6) | st.sampled_from([0.5, 1e30, -2.0]) | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAME, inner, max_size=2),
    max_leaves=3,
)
QUERY = PLAIN | PLAIN.map(lambda text: f"<tool_response>{text}</tool_response>")
SHOWN = st.lists(PLAIN, min_size=2, max_size=3).map(IMAGE_MARKER.join)


def _fields(required: Mapping[str, Any], optional: Mapping[str, Any]) -> Any:
    return st.fixed_dictionaries(dict(required), optional=dict(optional))


PROPERTY = _fields(
    {},
    {
        "type": st.sampled_from(["string", "integer", ["string", "null"]]),
        "description": TEXT,
        "name": TEXT,
        "enum": st.lists(TEXT, max_size=2),
        "default": JSON,
        "items": st.just({"type": "string"}),
    },
)
PROPERTIES = st.dictionaries(NAME, PROPERTY | PROPERTY | st.just(True), max_size=2)
REQUIRED = st.lists(NAME, max_size=2)
PARAMETERS = _fields({}, {"type": st.just("object"), "required": REQUIRED}) | _fields(
    {"type": st.just("object"), "properties": PROPERTIES}, {"required": REQUIRED}
)
FUNCTION = _fields({"name": NAME, "parameters": PARAMETERS}, {"description": TEXT}) | _fields(
    {"name": NAME}, {"description": TEXT, "parameters": PARAMETERS, "strict": st.booleans()}
)
TOOL = FUNCTION | FUNCTION.map(lambda function: {"type": "function", "function": function})


@st.composite
def calls(draw: st.DrawFn, name: str) -> list[dict[str, Any]]:
    arguments: Any = st.dictionaries(NAME, JSON, max_size=2)
    if name != "coder":  # its template takes no text here
        arguments |= st.sampled_from(["{}", '{"a": 1}', "not JSON"])
    function = _fields({"name": NAME, "arguments": arguments}, {})
    if name == "coder":
        function |= _fields({"name": NAME}, {})
    wrapped = function.map(lambda inner: {"type": "function", "id": "1", "function": inner})
    return draw(st.lists(function | wrapped, min_size=1, max_size=2))


@st.composite
def conversations(draw: st.DrawFn, name: str) -> Conversation:
    """A conversation that both sides accept, for the template of this name."""
    reasoning = {"reasoning_content": st.sampled_from([None, ""]) | TEXT}
    nothing = st.none() if name in ("qwen3", "thinking-2507", "instruct-2507") else st.nothing()
    say = _fields({"role": st.just("assistant"), "content": ANSWER | nothing}, reasoning)
    messages = draw(
        st.lists(_fields({"role": st.just("system"), "content": PLAIN}, {}), max_size=1)
    )
    for _ in range(draw(st.integers(0 if messages else 1, 3))):
        kind = draw(
            st.sampled_from(["user", "user", "system", "assistant", "assistant", "tools", "tools"])
        )
        if kind == "tools":
            empty = st.none() if name not in ("qwen3-first", *SEE) else st.nothing()
            call = _fields(
                {
                    "role": st.just("assistant"),
                    "content": ANSWER | empty,
                    "tool_calls": calls(name),
                },
                reasoning,
            )
            result = _fields(
                {"role": st.just("tool"), "content": TEXT}, {"tool_call_id": st.just("1")}
            )
            for _ in range(draw(st.integers(1, 2))):
                messages += [draw(call), *draw(st.lists(result, max_size=2))]
        elif kind == "assistant":
            messages.append(draw(say))
        elif kind == "system" and name != "vl-instruct":  # which leaves later ones out
            messages.append({"role": kind, "content": draw(QUERY)})
        else:
            query = QUERY | SHOWN if name in SEE else QUERY
            messages.append({"role": "user", "content": draw(query)})
    modes = {"qwen3": ["none", "on", "off"], "qwen3-first": ["none", "on", "off"]}
    conversation = {
        "template": name,
        "messages": messages,
        "thinking": draw(st.sampled_from(modes.get(name, ["none"]))),
        "prompt": draw(st.booleans()),
    }
    some = st.lists(TOOL, min_size=1, max_size=2)
    tools = draw(some | some | st.sampled_from([None, []]))
    return conversation if tools is None else conversation | {"tools": tools}


# --- Records ------------------------------------------------------------------------------------

FULL_TEXT = 500  # characters; a longer text is recorded by its hash


def digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def records() -> list[Conversation]:
    """Recorded conversations, with "text" or the "sha256" of the text that was published."""
    return [json.loads(line) for line in RECORDS.read_text("utf-8").split("\n") if line]


def record(name: str, count: int) -> list[Conversation]:
    """Conversations that take every branch between them, the shortest otherwise."""
    from hypothesis import HealthCheck, Phase, given, settings

    found: list[Conversation] = []

    @settings(
        max_examples=1000,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(conversations(name))
    def collect(conversation: Conversation) -> None:
        template.taken.clear()
        text = template.render(conversation)
        told = {"text": text} if len(text) <= FULL_TEXT else {"sha256": digest(text)}
        found.append(conversation | told | {"branches": sorted(template.taken)})

    template = published(name)
    collect()
    found.sort(key=lambda item: len(json.dumps(item)))
    chosen: list[Conversation] = []
    missing = template.branches - NEVER_TAKEN.get(name, set())
    unseen = missing - set.union(*(set(item["branches"]) for item in found))
    assert not unseen, f"{name}: no conversation takes {sorted(unseen)}"
    while missing:
        best = max(found, key=lambda item: len(missing & set(item["branches"])) / len(str(item)))
        chosen.append(best)
        missing -= set(best["branches"])
    seen = {json.dumps(item) for item in chosen}
    rest = [item for item in found if json.dumps(item) not in seen]
    middle = [item for item in rest if len(json.dumps(item)) < 1500]
    chosen += random.Random(0).sample(middle, count - len(chosen))
    return [{key: item[key] for key in item if key != "branches"} for item in chosen]


if __name__ == "__main__":
    lines = [json.dumps(item) for name in REVISION_OF for item in record(name, 44)]
    RECORDS.write_text("\n".join(lines) + "\n", "utf-8")
    print(f"{len(lines)} conversations recorded")
