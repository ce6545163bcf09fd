"""Tool names for an engine that takes only short ones (OpenAI: 64 characters; Anthropic's clients send up to 128).

A longer name keeps its beginning and its end, with a mark of the whole between them: equal names give equal bytes in
every turn, and others others. What the model calls is given its own name back by `core.sequence`.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

import msgspec

from qiao.core.conversation import Conversation, Part, Tool, ToolCall, Turn

_BEGINNING = 20
_MARK = 8


def short_name(name: str, limit: int | None) -> str:
    """`name`, or what stands for it where it is longer than `limit` characters."""
    if limit is None or len(name) <= limit:
        return name
    mark = sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:_MARK]
    return f"{name[:_BEGINNING]}_{mark}_{name[_BEGINNING + _MARK + 2 - limit :]}"


def short_tools(tools: tuple[Tool, ...], limit: int | None) -> tuple[Tool, ...]:
    """The tools under names that the engine takes."""
    if limit is None or all(len(tool.name) <= limit for tool in tools):
        return tools
    return tuple(msgspec.structs.replace(tool, name=short_name(tool.name, limit)) for tool in tools)


def short_names(conversation: Conversation, limit: int | None) -> Conversation:
    """The conversation with such names in its tools, its choice, and its earlier calls."""
    if limit is None:
        return conversation
    choice = conversation.tool_choice
    if choice.name is not None:
        choice = msgspec.structs.replace(choice, name=short_name(choice.name, limit))
    return msgspec.structs.replace(
        conversation,
        tools=short_tools(conversation.tools, limit),
        tool_choice=choice,
        turns=tuple(_short_turn(turn, limit) for turn in conversation.turns),
    )


def given_back(tools: Iterable[Tool], limit: int | None) -> dict[str, str]:
    """The client's names by those that stand for them."""
    return {short_name(tool.name, limit): tool.name for tool in tools if limit is not None and len(tool.name) > limit}


def longest_name(conversation: Conversation) -> int:
    """Characters of the longest name of a tool or an earlier call."""
    calls = (part.name for turn in conversation.turns for part in turn.parts if isinstance(part, ToolCall))
    return max(map(len, (*(tool.name for tool in conversation.tools), *calls)), default=0)


def _short_turn(turn: Turn, limit: int) -> Turn:
    if not any(isinstance(part, ToolCall) and len(part.name) > limit for part in turn.parts):
        return turn
    return msgspec.structs.replace(turn, parts=tuple(_short_part(part, limit) for part in turn.parts))


def _short_part(part: Part, limit: int) -> Part:
    return msgspec.structs.replace(part, name=short_name(part.name, limit)) if isinstance(part, ToolCall) else part
