"""Calls under a grammar: which text an answer may be, as the engine's structural tags say it.

A structural tag leaves the words free and binds what follows a call's beginning to the tool's schema. It is written in
the model's own dialect, so that the model answers as it was trained to, may think first, and may make several calls;
the engine needs no tool parser for it. Where a schema cannot be made into a grammar, only its tool is left unbound.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

import msgspec

from qiao.core.conversation import Conversation, Text, Tool, ToolChoice, Turn

Reasoning = Literal["tag", "open"] | None
Grammar = Literal["tags", "schema", "strict"]
"""What makes the grammar: structural tags, a schema for the whole answer, or the engine itself for strict tools."""

_ANY = '{"type":"object"}'


class _Frame(msgspec.Struct, frozen=True):
    """How a call begins and ends; `{}` stands for its name. `style`: how its arguments are written."""

    trigger: str
    begin: str
    end: str
    style: Literal["json", "qwen_xml"] = "json"


_FRAMES = {
    "hermes": _Frame("<tool_call>", '<tool_call>\n{{"name": "{}", "arguments": ', "}\n</tool_call>"),
    "qwen3_coder": _Frame(
        "<tool_call>", "<tool_call>\n<function={}>\n", "\n</function>\n</tool_call>", style="qwen_xml"
    ),
}

# Thoughts may stand before everything else.
_THOUGHTS = {"type": "any_text"}
_BREAK = {"type": "regex", "pattern": "\\s*"}


def can_guide(dialect: str) -> bool:
    """Whether there is a grammar for calls in this dialect."""
    return dialect in _FRAMES


def beginning(dialect: str, tool: Tool) -> str:
    """How a call of `tool` begins under the grammar."""
    return _FRAMES[dialect].begin.format(_name(tool))


def must_call(dialect: str, tools: Sequence[Tool], *, refused: frozenset[str], one: bool, reasoning: Reasoning) -> str:
    """Nothing but calls, at least one. `one`: exactly one. `refused`: keys of schemas that make no grammar."""
    calls = {
        "type": "tags_with_separator",
        "tags": [_tag(dialect, tool, refused) for tool in tools],
        "separator": "\n",
        "at_least_one": True,
        "stop_after_first": one,
    }
    return _behind_thoughts(calls, reasoning)


def may_call(dialect: str, tools: Sequence[Tool], *, refused: frozenset[str], one: bool, reasoning: Reasoning) -> str:
    """Words, and calls that fit. `one`: the answer ends with its first call."""
    calls = {
        "type": "triggered_tags",
        "triggers": [_FRAMES[dialect].trigger],
        "tags": [_tag(dialect, tool, refused) for tool in tools],
        "at_least_one": False,
        "stop_after_first": one,
    }
    return _behind_thoughts(calls, reasoning)


def key_of(tool: Tool) -> str:
    """Stands for a tool's name and schema."""
    return hashlib.blake2b(f"{tool.name}\0{tool.parameters}".encode(), digest_size=12).hexdigest()


def parameters_of(tool: Tool, refused: frozenset[str]) -> msgspec.Raw:
    """The schema that binds the arguments: an object in any case."""
    if refused and key_of(tool) in refused:
        return msgspec.Raw(_ANY.encode())
    members = msgspec.json.decode(tool.parameters, type=dict[str, msgspec.Raw])
    if members.get("type", msgspec.Raw(b'"object"')) != msgspec.Raw(b'"object"'):
        return msgspec.Raw(_ANY.encode())
    if "type" in members:
        return msgspec.Raw(tool.parameters.encode())
    return msgspec.Raw(msgspec.json.encode({"type": "object", **members}))


def trial(model: str, grammar: Grammar, dialect: str, tools: tuple[Tool, ...], schema: str | None) -> Conversation:
    """The smallest request in which the grammar for `tools` is made. `schema`: of the whole answer, for "schema"."""
    asked = Conversation(model=model, turns=(Turn("user", (Text("Hi"),)),), max_tokens=1)
    match grammar:
        case "strict":
            return msgspec.structs.replace(asked, tools=tools)
        case "schema":
            return msgspec.structs.replace(asked, output_schema=schema)
        case _:
            structure = may_call(dialect, tools, refused=frozenset(), one=False, reasoning=None)
            return msgspec.structs.replace(asked, structure=structure, tool_choice=ToolChoice(mode="none"))


def _tag(dialect: str, tool: Tool, refused: frozenset[str]) -> dict[str, object]:
    frame = _FRAMES[dialect]
    content: dict[str, object] = {"type": "json_schema", "json_schema": parameters_of(tool, refused)}
    if frame.style != "json":
        content["style"] = frame.style
    return {"type": "tag", "begin": beginning(dialect, tool), "content": content, "end": frame.end}


def _name(tool: Tool) -> str:
    return msgspec.json.encode(tool.name).decode()[1:-1]


def _behind_thoughts(calls: dict[str, object], reasoning: Reasoning) -> str:
    if reasoning is None:
        return msgspec.json.encode(calls).decode()
    thoughts = {
        "type": "tag",
        "begin": "" if reasoning == "open" else "<think>",
        "content": _THOUGHTS,
        "end": "</think>",
    }
    before: dict[str, object] = {"type": "sequence", "elements": [thoughts, _BREAK]}
    if reasoning == "tag":
        before = {"type": "optional", "content": before}
    return msgspec.json.encode({"type": "sequence", "elements": [before, calls]}).decode()
