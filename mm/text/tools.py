"""Tool definitions and calls as text, in Qwen3's two ways: JSON (most models) and XML (Coder).

These are the words that the models were trained to see, so they follow the published chat templates
to the letter, quirks included. What a call says stands between `<tool_call>` and `</tool_call>`,
which the renderer (`mm.text.chat`) adds; reading an answer back is `mm.text.answer`.
Ref: the chat templates of Qwen3 (JSON) and Qwen3-Coder (XML).
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from mm.errors import UsageError
from mm.text.messages import Tool, ToolCall, function_of, to_json

JSON_TOOLS_BEFORE = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>"
)
JSON_TOOLS_AFTER = (
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments "
    "within <tool_call></tool_call> XML tags:\n<tool_call>\n"
    '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
)
XML_SYSTEM = (
    "You are Qwen, a helpful AI assistant that can interact with a computer to solve tasks."
)
XML_TOOLS_BEFORE = "\n\n# Tools\n\nYou have access to the following functions:\n\n<tools>"
XML_TOOLS_AFTER = """
</tools>

If you choose to call a function ONLY reply in the following format with NO suffix:

<tool_call>
<function=example_function_name>
<parameter=example_parameter_1>
value_1
</parameter>
<parameter=example_parameter_2>
This is the value for the second parameter
that can span
multiple lines
</parameter>
</function>
</tool_call>

<IMPORTANT>
Reminder:
- Function calls MUST follow the specified format: an inner <function=...></function> block must \
be nested within <tool_call></tool_call> XML tags
- Required parameters MUST be specified
- You may provide optional reasoning for your function call in natural language BEFORE the \
function call, but NOT after
- If there is no function call available, answer the question like normal with your current \
knowledge and do not tell the user about function calls
</IMPORTANT>"""


def json_tools(tools: Sequence[Tool]) -> str:
    """Definitions, one JSON object a line."""
    return "".join("\n" + to_json(tool) for tool in tools)


def json_call(call: ToolCall) -> str:
    """A call as one JSON object. Arguments that are text already are taken as they are."""
    arguments = call.arguments if isinstance(call.arguments, str) else to_json(call.arguments)
    return f'\n{{"name": "{call.name}", "arguments": {arguments}}}\n'


def xml_tools(tools: Sequence[Tool]) -> str:
    """Definitions as nested tags."""
    return "".join(part for tool in tools for part in _xml_tool(function_of(tool)))


def _xml_tool(tool: Tool) -> Iterator[str]:
    yield f"\n<function>\n<name>{tool['name']}</name>"
    if "description" in tool:
        yield f"\n<description>{str(tool['description']).strip()}</description>"
    yield "\n<parameters>"
    parameters = tool.get("parameters")
    properties = parameters.get("properties") if isinstance(parameters, Mapping) else None
    for name, fields in properties.items() if isinstance(properties, Mapping) else ():
        yield f"\n<parameter>\n<name>{name}</name>"
        if isinstance(fields, Mapping):
            if "type" in fields:
                yield f"\n<type>{fields['type']}</type>"
            if "description" in fields:
                yield f"\n<description>{str(fields['description']).strip()}</description>"
            yield from _xml_others(fields, ("name", "type", "description"))
        yield "\n</parameter>"
    if isinstance(parameters, Mapping):
        yield from _xml_others(parameters, ("type", "properties"))
    yield "\n</parameters>"
    yield from _xml_others(tool, ("type", "name", "description", "parameters"))
    yield "\n</function>"


def _xml_others(fields: Mapping[str, Any], told: Collection[str]) -> Iterator[str]:
    return (f"\n<{key}>{_xml_value(fields[key])}</{key}>" for key in fields if key not in told)


def _xml_value(value: object) -> str:
    """Lists and objects as JSON; the rest as Python writes it, so `True` and `None`."""
    return to_json(value) if isinstance(value, Mapping | list | tuple) else str(value)


def xml_call(call: ToolCall) -> str:
    """A call as nested tags, values as they are.

    Raises:
        UsageError: the arguments are text, and not the JSON of an object.
    """
    arguments: Any = call.arguments
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            arguments = None
        if not isinstance(arguments, Mapping):
            raise UsageError(f"tool call {call.name!r}: arguments must be the JSON of an object")
    parameters = (
        f"<parameter={name}>\n{_xml_value(value)}\n</parameter>\n"
        for name, value in arguments.items()
    )
    return f"\n<function={call.name}>\n{''.join(parameters)}</function>\n"
