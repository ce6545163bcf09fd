"""Tool definitions and tool choice: wire → `Tool`, `ToolChoice`.

Which of the tools a model gets to see (deferred ones, long names) is decided by the policies; here is only told what
the client offers, after the additions and removals in the conversation.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import msgspec

from qiao.core.anthropic import wire
from qiao.core.anthropic.builtin_tools import builtin_tool
from qiao.core.conversation import Tool, ToolChoice
from qiao.core.fault import Fault, invalid
from qiao.core.fields import read, shown
from qiao.core.json_text import check_depth, is_null, object_text

_CUSTOM: Final = "custom"

PLACEHOLDER: Final = "DeferredToolPlaceholder"
"""A deferred tool that Claude Code sends so that the list is never empty of deferred ones; nobody shall see it."""

_NOT_HERE: Final = (
    ("web_search_", "{} runs on Anthropic's servers and no search backend is configured on this gateway."),
    ("web_fetch_", "{} runs on Anthropic's servers and no fetcher is configured on this gateway."),
    ("code_execution_", "{} runs in Anthropic's sandbox and this gateway has none."),
    ("computer_toolset_", "{} is not supported by this gateway; offer a computer_* tool or tools of your own."),
    ("browser_toolset_", "{} is not supported by this gateway; offer tools of your own."),
    (
        "mcp_toolset",
        "{}: the MCP connector is not supported by this gateway; connect the MCP server from your client.",
    ),
)
"""Beginnings of the type strings whose tools Anthropic's servers run, with what to answer."""


_KNOWN_LISTS: Final = 16
_KNOWN_SIZE: Final = 512 * 1024
"""A conversation brings the same list with every turn: as many lists of at most so many bytes are not read anew."""

_DEFINITIONS: msgspec.json.Decoder[list[wire.ToolDefinition]] = msgspec.json.Decoder(list[wire.ToolDefinition])


class Toolbox:
    """The tools of one request: declared by `tools`, then changed by the blocks of system messages, in order.

    A removed tool keeps its place, so that adding it again restores the list byte for byte.
    """

    def __init__(self) -> None:
        self._tools: dict[str, Tool] = {}
        self._removed: set[str] = set()
        self._left_out: set[str] = set()
        self._loads_all = False

    def copy(self) -> Toolbox:
        """One that can be changed without changing this one."""
        other = Toolbox()
        other._tools, other._removed = self._tools.copy(), self._removed.copy()
        other._left_out, other._loads_all = self._left_out.copy(), self._loads_all
        return other

    def declare(self, definitions: list[wire.ToolDefinition], path: str) -> None:
        """Take over the request's list."""
        for index, definition in enumerate(definitions):
            tool = self._read(definition, f"{path}.{index}")
            if tool is None:
                continue
            if tool.name in self._tools:
                raise invalid(path, "Tool names must be unique.")
            self._tools[tool.name] = tool

    def add(self, target: wire.ToolChangeTarget, path: str) -> None:
        """A `tool_addition` block: offer a declared tool, or one defined on the spot."""
        if target.definition is None:
            name = self._resolve(target, path)
            if name in self._tools:
                self._removed.discard(name)
                self._tools[name] = msgspec.structs.replace(self._tools[name], deferred=False)
            return
        tool = self._read(target.definition, f"{path}.definition")
        if tool is None:
            return
        if tool.name in self._tools and tool.name not in self._removed:
            problem = f"a tool named {shown(tool.name)} is already offered"
            raise invalid(f"{path}.definition.name", problem, error_code="tool_name_conflict")
        self._removed.discard(tool.name)
        self._tools[tool.name] = tool

    def remove(self, target: wire.ToolChangeTarget, path: str) -> None:
        """A `tool_removal` block."""
        name = self._resolve(target, path)
        if name in self._tools:
            self._removed.add(name)

    def offered(self) -> tuple[Tool, ...]:
        """What the client offers now."""
        tools = [tool for name, tool in self._tools.items() if name not in self._removed]
        if self._loads_all:
            # The search tool runs on Anthropic's servers; without it nothing could ever find a deferred tool.
            tools = [msgspec.structs.replace(tool, deferred=False) for tool in tools]
        return tuple(tools)

    def _resolve(self, target: wire.ToolChangeTarget, path: str) -> str:
        name = target.name or target.server_name or ""
        known = target.type in (None, "tool_reference") and (name in self._tools or name in self._left_out)
        if not known:
            problem = f"{shown(name)} names no tool of this request"
            raise invalid(path, problem, error_code="tool_reference_unresolved")
        return name

    def _read(self, definition: wire.ToolDefinition, path: str) -> Tool | None:
        """The tool, or None for one that the model cannot or need not call."""
        kind = definition.type or _CUSTOM
        is_placeholder = definition.name == PLACEHOLDER and definition.defer_loading
        if kind == _CUSTOM and not is_placeholder and not definition.allowed_callers:
            return _tool(definition, kind, path)
        if kind.startswith("tool_search_tool_"):
            self._loads_all = True
        is_optional = kind.startswith(("tool_search_tool_", "advisor_"))
        if is_optional or is_placeholder or _is_for_code_only(definition):
            self._left_out.add(definition.name or kind)
            return None
        return _tool(definition, kind, path)


def declared(raw: msgspec.Raw | None) -> Toolbox:
    """The tools of a request's `tools`, to be copied by who changes them. Raises `Fault`."""
    if raw is None or is_null(raw):
        return Toolbox()
    return _known(bytes(raw)) if len(raw) <= _KNOWN_SIZE else _declared(bytes(raw))


def _declared(raw: bytes) -> Toolbox:
    toolbox = Toolbox()
    toolbox.declare(read(_DEFINITIONS, msgspec.Raw(raw), "tools"), "tools")
    return toolbox


_known = lru_cache(_KNOWN_LISTS)(_declared)


def _is_for_code_only(definition: wire.ToolDefinition) -> bool:
    """Only code in Anthropic's sandbox may call it, and there is no sandbox here."""
    return bool(definition.allowed_callers) and "direct" not in (definition.allowed_callers or ())


def _tool(definition: wire.ToolDefinition, kind: str, path: str) -> Tool:
    builtin = None if kind == _CUSTOM else builtin_tool(definition)
    if builtin is not None:
        name, description, parameters = definition.name or builtin.name, builtin.description, builtin.parameters
        if definition.max_characters:
            description += f" view shows at most {definition.max_characters} characters."
    else:
        if kind != _CUSTOM and (not definition.name or is_null(definition.input_schema)):
            raise _unknown(kind, path)
        if not definition.name:
            raise invalid(f"{path}.name", "Field required")
        name, description = definition.name, definition.description or ""
        parameters = object_text(definition.input_schema, f"{path}.input_schema")
    return Tool(
        name=name,
        description=description + _examples(definition, path) if definition.input_examples else description,
        parameters=parameters,
        strict=definition.strict,
        deferred=bool(definition.defer_loading),
        builtin=kind if builtin is not None else None,
    )


def _unknown(kind: str, path: str) -> Fault:
    for beginning, problem in _NOT_HERE:
        if kind.startswith(beginning):
            return invalid(path, problem.format(kind[:80]))
    return invalid(f"{path}.type", f"unknown tool type {shown(kind)}")


def _examples(definition: wire.ToolDefinition, path: str) -> str:
    examples: list[str] = []
    for index, example in enumerate(definition.input_examples or ()):
        text = bytes(example)
        check_depth(text, f"{path}.input_examples.{index}")
        examples.append(text.decode())
    return "\n\nExamples of its input:\n" + "\n".join(examples)


def tool_choice(choice: wire.ToolChoice | None, tools: tuple[Tool, ...]) -> ToolChoice:
    """How the model shall choose among `tools`; without tools there is nothing to choose."""
    if choice is None or not tools:
        return ToolChoice()
    parallel = not choice.disable_parallel_tool_use
    match choice.type:
        case "auto" | "any" | "none":
            return ToolChoice(mode=choice.type, parallel=parallel)
        case "tool":
            if not choice.name:
                raise invalid("tool_choice.name", "Field required")
            if all(tool.name != choice.name for tool in tools):
                raise invalid("tool_choice.name", f"tool {shown(choice.name)} not found in tools")
            return ToolChoice(mode="tool", name=choice.name, parallel=parallel)
        case other:
            raise invalid("tool_choice.type", f"expected 'auto', 'any', 'tool' or 'none', got {shown(other)}")
