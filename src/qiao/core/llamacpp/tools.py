"""Tools for an engine that is given its tools as words and its calls by a grammar.

The prompt names each tool on one line. A call is written `{"name": "Read", "arguments": {…}}`; the grammar forces it,
so that it always fits the tool's schema, and `CallReader` reads it back as neutral events.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec

from qiao.core.conversation import Tool, ToolCall
from qiao.core.events import Event, TextAdded, ToolArgumentsAdded, ToolCallEnded, ToolCallStarted
from qiao.core.llamacpp.gbnf import LADDER, Bounds, schema_node
from qiao.core.llamacpp.rules import Node, Rules, literal

_TAIL = "}"


class Forced(msgspec.Struct, frozen=True):
    """What makes the engine write a call.

    `head`: put behind the prompt, so that the engine only writes what is open. `grammar`: of what it writes.
    `names`: the tools that it may call. `left_out`: keywords of their schemas that the grammar does not keep.
    """

    head: str
    grammar: str
    names: tuple[str, ...]
    left_out: tuple[str, ...] = ()


def described(tools: Sequence[Tool]) -> str:
    """One line a tool, and how many are there that are not told."""
    lines = [line(tool) for tool in tools if tool.told != "nothing"]
    if len(lines) < len(tools):
        lines.append(f"… and {len(tools) - len(lines)} more")
    return "Tools:\n" + "\n".join(lines)


def line(tool: Tool) -> str:
    """Name, parameters (`?` where it may be left out), what it does; or its name only."""
    if tool.told == "name":
        return f"- {tool.name}"
    return f"- {tool.name}({_signature(tool)}): {_one_line(tool.description)}".rstrip(": ")


def _signature(tool: Tool) -> str:
    schema = _schema(tool)
    properties, required = schema.get("properties"), schema.get("required")
    if not isinstance(properties, dict):
        return ""
    needed = required if isinstance(required, list) else []
    return ", ".join(str(name) if name in needed else f"{name}?" for name in properties)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _schema(tool: Tool) -> dict[str, object]:
    try:
        schema = msgspec.json.decode(tool.parameters)
    except (msgspec.DecodeError, RecursionError):
        return {}
    return schema if isinstance(schema, dict) else {}


def head(name: str) -> str:
    """How a call of `name` begins."""
    return f'{{"name": {json.dumps(name, ensure_ascii=False)}, "arguments": '


def begun(tools: Sequence[Tool]) -> str:
    """How a call of one of `tools` begins whichever it is; "" where that is open."""
    return head(tools[0].name) if len(tools) == 1 else ""


def written(call: ToolCall) -> str:
    """An earlier call, as the model would have written it."""
    return head(call.name) + call.arguments + _TAIL


def forced(tools: Sequence[Tool], *, most_calls: int, limit: int, ladder: tuple[Bounds, ...] = LADDER) -> Forced:
    """One call of one of `tools`, or up to `most_calls`, within `limit` characters where any bounds allow that."""
    for bounds in ladder:
        made = _forced(tools, most_calls, bounds)
        if made[1] <= limit:
            break
    return made[0]


def _forced(tools: Sequence[Tool], most_calls: int, bounds: Bounds) -> tuple[Forced, int]:
    rules = Rules()
    arguments = [rules.sequence((_arguments(tool, rules, bounds), literal(_TAIL))) for tool in tools]
    calls = [rules.sequence((literal(head(tool.name)), body)) for tool, body in zip(tools, arguments, strict=True)]
    first = arguments[0] if len(tools) == 1 else rules.alternatives(calls)
    if most_calls > 1:
        further = rules.sequence((literal("\n"), rules.alternatives(calls)))
        first = rules.sequence((first, rules.repeated(further, 0, most_calls - 1)))
    made = Forced(begun(tools), rules.written(first), tuple(tool.name for tool in tools), tuple(rules.left_out))
    return made, first.longest


def _arguments(tool: Tool, rules: Rules, bounds: Bounds) -> Node:
    schema = _schema(tool)
    # The arguments of a call are an object, whatever else the schema says or leaves out.
    return schema_node({**schema, "type": "object"}, rules, bounds, otherwise={"type": "object"})


class CallReader:
    """feed(text) → events; close() → the rest. Text that begins no call of `names` is text."""

    def __init__(self, names: Sequence[str]) -> None:
        self._heads = {head(name): name for name in names}
        self._longest = max((len(text) for text in self._heads), default=0)
        self._held = ""
        self._index = -1
        self._depth = 0
        self._in_string = False
        self._is_escaped = False
        self._is_inside = False
        self._expects_tail = False
        self.is_complete = False

    @property
    def is_cut(self) -> bool:
        """A call has begun and not ended."""
        return self._is_inside

    def feed(self, text: str) -> list[Event]:
        out: list[Event] = []
        while text:
            text = self._inside(text, out) if self._is_inside else self._between(text, out)
        return out

    def close(self) -> list[Event]:
        """The engine's text ended: what is open is cut."""
        out: list[Event] = []
        if self._is_inside:
            out.append(ToolCallEnded(self._index, complete=False))
            self._is_inside = False
        elif self._held.strip():
            out.append(TextAdded(self._held))
        self._held = ""
        return out

    def _between(self, text: str, out: list[Event]) -> str:
        """Outside a call: gather until a head is whole, or cannot become one."""
        if self._expects_tail:
            self._expects_tail = False
            text = text.removeprefix(_TAIL)
        self._held = (self._held + text).lstrip() if not self._held else self._held + text
        for start, name in self._heads.items():
            if self._held.startswith(start):
                rest = self._held[len(start) :]
                self._held = ""
                self._index += 1
                self._depth = 0
                self._is_inside = True
                out.append(ToolCallStarted(self._index, "", name))
                return rest
        if not any(start.startswith(self._held) for start in self._heads):
            out.append(TextAdded(self._held))
            self._held = ""
        return ""

    def _inside(self, text: str, out: list[Event]) -> str:
        """Inside the arguments: pass on up to the bracket that closes them."""
        for place, character in enumerate(text):
            if self._in_string:
                if self._is_escaped:
                    self._is_escaped = False
                elif character == "\\":
                    self._is_escaped = True
                elif character == '"':
                    self._in_string = False
            elif character == '"':
                self._in_string = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                if self._depth == 0:
                    out.append(ToolArgumentsAdded(self._index, text[: place + 1]))
                    out.append(ToolCallEnded(self._index))
                    self._is_inside = False
                    self._expects_tail = True
                    self.is_complete = True
                    return text[place + 1 :]
        out.append(ToolArgumentsAdded(self._index, text))
        return ""
