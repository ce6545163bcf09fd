"""Tool definitions and tool choice of a chat-completions request → `Tool`, `ToolChoice`."""

from __future__ import annotations

import msgspec

from qiao.core.conversation import Tool, ToolChoice
from qiao.core.fault import invalid
from qiao.core.fields import shown
from qiao.core.json_text import is_null, object_text
from qiao.core.openai import decode_wire as wire
from qiao.core.openai.free_text import Form, as_function


class Offered(msgspec.Struct, frozen=True):
    """The tools in the client's order, and those of them whose input is free text."""

    tools: tuple[Tool, ...]
    free_text: dict[str, Form]


def tools_of(definitions: list[wire.ToolDefinition]) -> Offered:
    """What the client offers."""
    tools: dict[str, Tool] = {}
    free_text: dict[str, Form] = {}
    for index, definition in enumerate(definitions):
        path = f"tools.{index}"
        is_custom = definition.type == "custom"
        tool = _custom(definition, path) if is_custom else _tool(definition, path)
        if tool.name in tools:
            raise invalid(path, f"a second tool named {shown(tool.name)}; tool names must be unique")
        tools[tool.name] = tool
        if is_custom:
            free_text[tool.name] = "function" if definition.custom is None else "custom"
    return Offered(tuple(tools.values()), free_text)


def _custom(definition: wire.ToolDefinition, path: str) -> Tool:
    custom: wire.FunctionDefinition = definition
    if definition.custom is not None:
        custom, path = definition.custom, f"{path}.custom"
    if not custom.name:
        raise invalid(f"{path}.name", "Field required")
    form = custom.format or wire.CustomFormat()
    grammar = form.definition or (form.grammar.definition if form.grammar is not None else None)
    return as_function(custom.name, custom.description or "", grammar)


def _tool(definition: wire.ToolDefinition, path: str) -> Tool:
    if definition.type not in (None, "function"):
        problem = f"unsupported tool type {shown(definition.type)}; this gateway knows functions and custom tools"
        raise invalid(f"{path}.type", problem)
    function: wire.FunctionDefinition = definition
    if definition.function is not None:
        function, path = definition.function, f"{path}.function"
    if not function.name:
        raise invalid(f"{path}.name", "Field required")
    name, schema = "parameters", function.parameters
    if is_null(schema):
        name, schema = "input_schema", function.input_schema
    tool = Tool(name=function.name, description=function.description or "", strict=function.strict)
    if is_null(schema):
        return tool  # a function without parameters
    return msgspec.structs.replace(tool, parameters=object_text(schema, f"{path}.{name}"))


def allowed_of(
    choice: str | wire.ChosenTool | None, tools: tuple[Tool, ...]
) -> tuple[tuple[Tool, ...], str | wire.ChosenTool | None]:
    """The tools that may be called, and how the model shall choose among them.

    `{"type": "allowed_tools"}` narrows the tools of one request; those that are left out are not offered in it.
    """
    if isinstance(choice, str) or choice is None or choice.type != "allowed_tools" or not tools:
        return tools, choice
    path = "tool_choice.allowed_tools"
    allowed = choice.allowed_tools or wire.AllowedTools()
    if not allowed.tools:
        raise invalid(f"{path}.tools", "Field required")
    mode = allowed.mode or ""
    if mode not in ("auto", "required"):
        raise invalid(f"{path}.mode", f"expected 'auto' or 'required', got {shown(mode)}")
    names = {_chosen(tool, tools, f"{path}.tools.{index}") for index, tool in enumerate(allowed.tools)}
    return tuple(tool for tool in tools if tool.name in names), mode


def tool_choice(choice: str | wire.ChosenTool | None, parallel: bool | None, tools: tuple[Tool, ...]) -> ToolChoice:
    """How the model shall choose among `tools`; without tools there is nothing to choose."""
    if not tools:
        return ToolChoice()
    may_be_parallel = parallel is not False
    match choice:
        case None | "auto":
            return ToolChoice(parallel=may_be_parallel)
        case "none":
            return ToolChoice(mode="none", parallel=may_be_parallel)
        case "required" | "any":
            return ToolChoice(mode="any", parallel=may_be_parallel)
        case str():
            raise invalid("tool_choice", f"expected 'auto', 'none', 'required' or a function, got {shown(choice)}")
        case wire.ChosenTool():
            return ToolChoice(mode="tool", name=_chosen(choice, tools, "tool_choice"), parallel=may_be_parallel)


def _chosen(choice: wire.NamedTool, tools: tuple[Tool, ...], path: str) -> str:
    kind = choice.type or "function"
    if kind not in ("function", "custom"):
        raise invalid(f"{path}.type", f"expected 'function' or 'custom', got {shown(kind)}")
    named = choice.function or choice.custom
    path, name = f"{path}.{kind}.name", choice.name if named is None else named.name
    if not name:
        raise invalid(path, "Field required")
    if all(tool.name != name for tool in tools):
        raise invalid(path, f"tool {shown(name)} not found in tools")
    return name
