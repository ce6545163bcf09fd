"""Tool definitions and tool choice of a chat-completions request → `Tool`, `ToolChoice`."""

from __future__ import annotations

import msgspec

from qiao.core.conversation import Tool, ToolChoice
from qiao.core.fault import invalid
from qiao.core.fields import shown
from qiao.core.json_text import is_null, object_text
from qiao.core.openai import decode_wire as wire


def tools_of(definitions: list[wire.ToolDefinition]) -> tuple[Tool, ...]:
    """The tools in the client's order."""
    tools: dict[str, Tool] = {}
    for index, definition in enumerate(definitions):
        tool = _tool(definition, f"tools.{index}")
        if tool.name in tools:
            raise invalid(f"tools.{index}", f"a second tool named {shown(tool.name)}; tool names must be unique")
        tools[tool.name] = tool
    return tuple(tools.values())


def _tool(definition: wire.ToolDefinition, path: str) -> Tool:
    if definition.type not in (None, "function"):
        problem = f"unsupported tool type {shown(definition.type)}; this gateway knows functions only"
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
            return ToolChoice(mode="tool", name=_chosen(choice, tools), parallel=may_be_parallel)


def _chosen(choice: wire.ChosenTool, tools: tuple[Tool, ...]) -> str:
    if choice.type not in (None, "function"):
        raise invalid("tool_choice.type", f"expected 'function', got {shown(choice.type)}")
    path, name = "tool_choice.function.name", choice.function.name if choice.function is not None else choice.name
    if not name:
        raise invalid(path, "Field required")
    if all(tool.name != name for tool in tools):
        raise invalid(path, f"tool {shown(name)} not found in tools")
    return name
