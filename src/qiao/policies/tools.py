"""Which tools an engine is shown, and how a tool that was found later reaches the model.

The tool list stands before all messages in the prompt, so it never changes within a conversation: a tool that a client
deferred stays out of the list, and its definition is written where the client's search found it. What is called is not
checked against the list by the engine, except under a grammar: then the found tools are listed for that request.
"""

from __future__ import annotations

from functools import lru_cache

import msgspec

from qiao.core.conversation import (
    Conversation,
    Part,
    ResultPart,
    Text,
    Tool,
    ToolChoice,
    ToolReference,
    ToolResult,
    Turn,
)
from qiao.core.openai.request import function_tool

# Claude Code's stand-in for "there are deferred tools"; not a tool that anybody can call.
_PLACEHOLDER = "DeferredToolPlaceholder"
# Anthropic's own search, which would find the deferred tools; without it they are reachable only when shown.
_SERVER_SEARCH = "tool_search_tool_"


def expand_references(turns: tuple[Turn, ...], tools: tuple[Tool, ...]) -> tuple[tuple[Turn, ...], tuple[str, ...]]:
    """Every `ToolReference` replaced by the full definition of its tool."""
    by_name = {tool.name: tool for tool in tools if tool.name != _PLACEHOLDER}
    expanded = 0
    unknown: list[str] = []
    result: list[Turn] = []
    for turn in turns:
        if not any(isinstance(part, ToolResult) and _references(part) for part in turn.parts):
            result.append(turn)
            continue
        parts: list[Part] = []
        for part in turn.parts:
            if not isinstance(part, ToolResult) or not _references(part):
                parts.append(part)
                continue
            inner: list[ResultPart] = []
            for block in part.parts:
                if not isinstance(block, ToolReference):
                    inner.append(block)
                elif (tool := by_name.get(block.name)) is not None:
                    expanded += 1
                    inner.append(Text(_loaded(tool)))
                else:
                    unknown.append(block.name)
                    inner.append(Text(f'[The tool "{block.name}" is not available.]'))
            parts.append(msgspec.structs.replace(part, parts=tuple(inner)))
        result.append(msgspec.structs.replace(turn, parts=tuple(parts)))
    notes = []
    if expanded:
        notes.append(f"tools: references expanded: {expanded}")
    if unknown:
        notes.append(f"tools: references to unknown tools: {', '.join(sorted(set(unknown)))}")
    return tuple(result), tuple(notes)


def offer(
    conversation: Conversation, arrived: frozenset[str] = frozenset()
) -> tuple[tuple[Tool, ...], ToolChoice, tuple[str, ...]]:
    """The tools to list in this request and the choice among them. `conversation` still holds its references.

    `arrived`: deferred tools whose definitions stand in the turns without a reference.
    """
    if _is_plain(conversation.tools) and conversation.tool_choice.mode != "tool":
        return conversation.tools, conversation.tool_choice if conversation.tools else ToolChoice(), ()
    tools = [tool for tool in conversation.tools if tool.name != _PLACEHOLDER]
    search = [tool for tool in tools if (tool.builtin or "").startswith(_SERVER_SEARCH)]
    listed = [tool for tool in tools if not tool.deferred and tool not in search]
    deferred = [tool for tool in tools if tool.deferred and tool not in search]
    notes: list[str] = []
    if deferred and (search or not listed):
        # Nobody could find them: Anthropic's search does not run here, or there is no tool to search with.
        listed += deferred
        deferred = []
        notes.append("tools: deferred tools listed, the client has no search of its own")
    choice = conversation.tool_choice
    if deferred:
        added = _needed_by_grammar(conversation, listed, deferred, arrived)
        if added:
            listed += added
            notes.append(f"tools: listed for this request: {', '.join(tool.name for tool in added)}")
        hidden = len(deferred) - len(added)
        if hidden:
            notes.append(f"tools: deferred: {hidden}")
    if choice.mode == "tool" and all(tool.name != choice.name for tool in listed):
        notes.append(f"tool_choice: {choice.name} is not among the tools, left to the model")
        choice = msgspec.structs.replace(choice, mode="auto", name=None)
    if not listed:
        return (), ToolChoice(), tuple(notes)
    shown = tuple(msgspec.structs.replace(tool, deferred=False) if tool.deferred else tool for tool in listed)
    return shown, choice, tuple(notes)


@lru_cache(16)  # a conversation brings the same list with every request
def _is_plain(tools: tuple[Tool, ...]) -> bool:
    """Whether all of them are simply shown."""
    return not any(tool.deferred or tool.name == _PLACEHOLDER or tool.builtin for tool in tools)


def loaded(conversation: Conversation, arrived: frozenset[str] = frozenset()) -> tuple[Tool, ...]:
    """Deferred tools that were found, so that the model may call them. Like `offer`, for `conversation`."""
    deferred = [tool for tool in conversation.tools if tool.deferred]
    if not deferred:
        return ()  # most conversations: their history need not be walked through
    names = arrived | _found(conversation)
    return tuple(tool for tool in deferred if tool.name in names)


def _found(conversation: Conversation) -> frozenset[str]:
    return frozenset(
        block.name
        for turn in conversation.turns
        for part in turn.parts
        if isinstance(part, ToolResult)
        for block in _references(part)
    )


def _needed_by_grammar(
    conversation: Conversation, listed: list[Tool], deferred: list[Tool], arrived: frozenset[str]
) -> list[Tool]:
    """Deferred tools that the engine has to know because it will only let listed names be written."""
    choice = conversation.tool_choice
    if choice.mode == "none":
        return []
    by_grammar = choice.mode in ("any", "tool") or any(tool.strict for tool in listed)
    found = arrived | _found(conversation)
    return [
        tool
        for tool in deferred
        if (tool.name in found and (by_grammar or tool.strict)) or (choice.mode == "tool" and tool.name == choice.name)
    ]


def _references(result: ToolResult) -> list[ToolReference]:
    return [block for block in result.parts if isinstance(block, ToolReference)]


def _loaded(tool: Tool) -> str:
    if not tool.deferred:
        return f'[The tool "{tool.name}" is in the list of tools; call it by its name.]'
    definition = msgspec.json.encode(function_tool(tool)).decode()
    return f'The tool "{tool.name}" is loaded and can be called like every other. Its definition:\n{definition}'
