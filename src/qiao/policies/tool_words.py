"""The words in which chat templates list tools and write calls, one function a form; see `text_tools`.

Facts of published templates, not style: a character more or less, and the model reads something it was not trained on.
JSON is written as templates do: `, ` and `: ` as separators, characters as they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from qiao.core.conversation import Tool

RESPONSE = ("<tool_response>\n", "\n</tool_response>")
DEEPSEEK_SECTION = ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>")

_HERMES_BEFORE = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n"
)
_HERMES_AFTER = (
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
    "<tool_call></tool_call> XML tags:\n<tool_call>\n"
    '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
)
_GLM_AFTER = (
    "\n</tools>\n\nFor each function call, output the function name and arguments within the following XML format:\n"
)
_GLM45_EXAMPLE = (
    "<tool_call>{function-name}\n<arg_key>{arg-key-1}</arg_key>\n<arg_value>{arg-value-1}</arg_value>\n"
    "<arg_key>{arg-key-2}</arg_key>\n<arg_value>{arg-value-2}</arg_value>\n...\n</tool_call>"
)
_XML_RULES = (
    "- Required parameters MUST be specified\n"
    "- You may provide optional reasoning for your function call in natural language BEFORE the function call, but NOT "
    "after\n"
    "- If there is no function call available, answer the question like normal with your current knowledge and do not "
    "tell the user about function calls\n</IMPORTANT>"
)
_CODER_AFTER = (
    "\n</tools>\n\nIf you choose to call a tool ONLY reply in the following format with NO suffix:\n\n"
    "<tool_call>\n<function=example_function_name>\n<parameter=example_parameter_1>\nvalue_1\n</parameter>\n"
    "<parameter=example_parameter_2>\nvalue_2\n</parameter>\n</function>\n</tool_call>\n\n<IMPORTANT>\nReminder:\n"
    "- Function calls MUST follow the specified format: the tool calling block MUST begin with an opening <tool_call> "
    "tag and end with a closing </tool_call> tag.\n" + _XML_RULES
)
_QWEN3_5_AFTER = (
    "\n</tools>\n\nIf you choose to call a function ONLY reply in the following format with NO suffix:\n\n"
    "<tool_call>\n<function=example_function_name>\n<parameter=example_parameter_1>\nvalue_1\n</parameter>\n"
    "<parameter=example_parameter_2>\nThis is the value for the second parameter\nthat can span\nmultiple lines\n"
    "</parameter>\n</function>\n</tool_call>\n\n<IMPORTANT>\nReminder:\n"
    "- Function calls MUST follow the specified format: an inner <function=...></function> block must be nested within "
    "<tool_call></tool_call> XML tags\n" + _XML_RULES
)
_DEEPSEEK_AFTER = (
    "\n\nWhere:\n\n- `tool_call_name` must be an exact match to one of the available tools\n"
    "- `tool_call_arguments` must be valid JSON that strictly follows the tool's Parameters Schema\n"
    "- For multiple tool calls, chain them directly without separators or spaces"
)
_LLAMA3_BEFORE = (
    "Given the following functions, please respond with a JSON for a function call "
    "with its proper arguments that best answers the given prompt.\n\n"
    'Respond in the format {"name": function name, "parameters": dictionary of argument name and its value}.'
    "Do not use variables.\n\n"
)


def to_json(value: object, *, indent: int | None = None) -> str:
    """JSON as templates write it."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def signature(tool: Tool) -> dict[str, object]:
    """The tool as an object of the chat protocol."""
    function: dict[str, object] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    function["parameters"] = _parameters(tool)
    return {"type": "function", "function": function}


def hermes_tools(tools: Sequence[Tool]) -> str:
    return _HERMES_BEFORE + _lines(tools) + _HERMES_AFTER


def hermes_call(name: str, arguments: Mapping[str, object]) -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {to_json(arguments)}}}\n</tool_call>'


def glm45_tools(tools: Sequence[Tool]) -> str:
    return _HERMES_BEFORE + _lines(tools) + _GLM_AFTER + _GLM45_EXAMPLE


def glm45_call(name: str, arguments: Mapping[str, object]) -> str:
    pairs = "".join(
        f"<arg_key>{key}</arg_key>\n<arg_value>{_plain(value)}</arg_value>\n" for key, value in arguments.items()
    )
    return f"<tool_call>{name}\n{pairs}</tool_call>"


def glm47_tools(tools: Sequence[Tool]) -> str:
    """The template sets no line break between the role and what it says, but one before the list."""
    return "\n" + _HERMES_BEFORE + _lines(tools) + _GLM_AFTER + _GLM45_EXAMPLE.replace("\n", "")


def glm47_call(name: str, arguments: Mapping[str, object]) -> str:
    return (
        glm45_call(name, {}).replace("\n", "").removesuffix("</tool_call>")
        + "".join(f"<arg_key>{key}</arg_key><arg_value>{_plain(value)}</arg_value>" for key, value in arguments.items())
        + "</tool_call>"
    )


def qwen3_5_tools(tools: Sequence[Tool]) -> str:
    return "# Tools\n\nYou have access to the following functions:\n\n<tools>\n" + _lines(tools) + _QWEN3_5_AFTER


def coder_tools(tools: Sequence[Tool]) -> str:
    listed = "".join(_coder_tool(tool) for tool in tools)
    return "# Tools\n\nYou have access to the following tools:\n\n<tools>" + listed + _CODER_AFTER


def json_xml_call(name: str, arguments: Mapping[str, object]) -> str:
    """Values that are no strings as JSON."""
    return _xml_call(name, {key: _plain(value) for key, value in arguments.items()})


def python_xml_call(name: str, arguments: Mapping[str, object]) -> str:
    """Numbers, truth and null as Python prints them, which is what these templates do."""
    return _xml_call(name, {key: _printed(value) for key, value in arguments.items()})


def deepseek_v31_tools(tools: Sequence[Tool]) -> str:
    return _deepseek_tools(tools, deepseek_v31_call("tool_call_name", {}).replace("{}", "tool_call_arguments"))


def deepseek_v31_call(name: str, arguments: Mapping[str, object]) -> str:
    return f"<｜tool▁call▁begin｜>{name}<｜tool▁sep｜>{to_json(arguments)}<｜tool▁call▁end｜>"


def deepseek_v3_tools(tools: Sequence[Tool]) -> str:
    return _deepseek_tools(tools, deepseek_v3_call("tool_call_name", {}).replace("{}", "tool_call_arguments"))


def deepseek_v3_call(name: str, arguments: Mapping[str, object]) -> str:
    fenced = f"```json\n{to_json(arguments)}\n```"
    return f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{name}\n{fenced}<｜tool▁call▁end｜>"


def kimi_tools(tools: Sequence[Tool]) -> str:
    """The end of the system prompt's section, and the tools' own, whose end the template writes."""
    listed = to_json([signature(tool) for tool in tools])
    return f"<|im_end|><|im_system|>tool_declare<|im_middle|>{listed}"


def llama3_tools(tools: Sequence[Tool]) -> str:
    return _LLAMA3_BEFORE + "".join(to_json(signature(tool), indent=4) + "\n\n" for tool in tools)


def llama3_call(name: str, arguments: Mapping[str, object]) -> str:
    return f'{{"name": "{name}", "parameters": {to_json(arguments)}}}'


def _lines(tools: Sequence[Tool]) -> str:
    return "\n".join(to_json(signature(tool)) for tool in tools)


def _parameters(tool: Tool) -> Any:
    """The schema; decoded by the standard library as engines do, so that it is written again as they write it."""
    return json.loads(tool.parameters)


def _deepseek_tools(tools: Sequence[Tool], example: str) -> str:
    listed = "".join(
        f"\n### {tool.name}\nDescription: {tool.description}\n\nParameters: {to_json(_parameters(tool))}\n"
        for tool in tools
    )
    opening, closing = DEEPSEEK_SECTION
    return (
        "## Tools\nYou have access to the following tools:\n"
        + listed
        + "\nIMPORTANT: ALWAYS adhere to this exact format for tool use:\n"
        + f"{opening}{example}{{{{additional_tool_calls}}}}{closing}"
        + _DEEPSEEK_AFTER
    )


def _xml_call(name: str, values: Mapping[str, str]) -> str:
    written = "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in values.items())
    return f"<tool_call>\n<function={name}>\n{written}</function>\n</tool_call>"


def _coder_tool(tool: Tool) -> str:
    parameters = _parameters(tool)
    properties = parameters.get("properties") if isinstance(parameters, dict) else None
    said = [f"\n<function>\n<name>{tool.name}</name>"]
    if tool.description:
        said.append(f"\n<description>{tool.description.strip()}</description>")
    said.append("\n<parameters>")
    for name, schema in properties.items() if isinstance(properties, dict) else ():
        said.append(f"\n<parameter>\n<name>{name}</name>")
        if isinstance(schema, dict) and "type" in schema:
            said.append(f"\n<type>{schema['type']}</type>")
        if isinstance(schema, dict) and "description" in schema:
            said.append(f"\n<description>{str(schema['description']).strip()}</description>")
        said += [_other_keys(schema, ("name", "type", "description")), "\n</parameter>"]
    said += [_other_keys(parameters, ("type", "properties")), "\n</parameters>\n</function>"]
    return "".join(said)


def _other_keys(schema: object, handled: tuple[str, ...]) -> str:
    if not isinstance(schema, dict):
        return ""
    return "".join(f"\n<{key}>{_printed(value)}</{key}>" for key, value in schema.items() if key not in handled)


def _plain(value: object) -> str:
    return value if isinstance(value, str) else to_json(value)


def _printed(value: object) -> str:
    return to_json(value) if isinstance(value, dict | list) else str(value)
