"""Tools that come and go while a conversation runs: the first list stays, and what changes is written where it changed.

The tool list stands before all messages in the prompt, so a list that grows by one tool makes the engine compute the
whole conversation again. A client that sends its later tools undeferred (Claude Code under an old model's name or
without its tool search, and most other agents) does not tell which were there first; who carries a `ToolHistory` from
request to request (`app.conversations`) does. Without one a list is taken as it is sent.
"""

from __future__ import annotations

from functools import lru_cache

import msgspec

from qiao.core.conversation import Conversation, Part, Text, Tool, ToolChoice, Turn
from qiao.core.openai.request import function_tool


class Arrival(msgspec.Struct, frozen=True):
    """What a request changed in its conversation's tools. `place`: the number of turns it had; `mark`: a hash of the
    last of them, by which its conversation is told from others that began with the same words."""

    place: int
    mark: int
    tools: tuple[Tool, ...] = ()
    gone: tuple[str, ...] = ()


class ToolHistory(msgspec.Struct, frozen=True):
    """The tools of one conversation so far.

    * `first`: the list of its first request, which is listed in all.
    * `arrivals`: what changed since, in the order of its turns.
    * `last`: the list of its latest request.
    * `deferred`: every tool that was sent deferred, as it was at first: its definition may stand where a search found
      it, and has to stay there when its server goes away or comes back another.
    """

    first: tuple[Tool, ...]
    last: tuple[Tool, ...]
    arrivals: tuple[Arrival, ...] = ()
    deferred: tuple[Tool, ...] = ()


def offered(conversation: Conversation) -> tuple[Tool, ...]:
    """The tools that the client wants listed."""
    return _divided(conversation.tools)[0]


def _deferred(conversation: Conversation) -> tuple[Tool, ...]:
    return _divided(conversation.tools)[1]


@lru_cache(16)
def _divided(tools: tuple[Tool, ...]) -> tuple[tuple[Tool, ...], tuple[Tool, ...]]:
    """(listed, deferred). A conversation brings the same list with every request."""
    return tuple([tool for tool in tools if not tool.deferred]), tuple([tool for tool in tools if tool.deferred])


def follow(history: ToolHistory | None, conversation: Conversation) -> ToolHistory | None:
    """The history with this request in it; None where the request's own list is to be taken.

    `history`: that of the same conversation up to here; None for its first request, or where nothing is known of it.
    """
    now = offered(conversation)
    if not now:
        return None
    deferred = _deferred(conversation)
    if history is None or not history.first:
        return ToolHistory(first=now, last=now, deferred=deferred)
    if deferred != history.deferred:
        names = {tool.name for tool in history.deferred}
        if found := tuple(tool for tool in deferred if tool.name not in names):
            history = msgspec.structs.replace(history, deferred=(*history.deferred, *found))
    place = len(conversation.turns)
    if now == history.last and all(_stands(arrival, conversation) for arrival in history.arrivals):
        return history
    # A client may take turns back, or ask the same turn again with another list: what came with them did not come.
    arrivals = tuple(
        arrival for arrival in history.arrivals if arrival.place < place and _stands(arrival, conversation)
    )
    known = _known(history.first, arrivals)
    present = {tool.name for tool in now}
    came = tuple(tool for tool in now if known.get(tool.name) != tool)
    gone = tuple(name for name in known if name not in present)
    if came or gone:
        arrivals = (*arrivals, Arrival(place, _mark(conversation, place), came, gone))
    return ToolHistory(history.first, now, arrivals, history.deferred)


def _stands(arrival: Arrival, conversation: Conversation) -> bool:
    """Whether the conversation still has the turn with which it came."""
    return arrival.place <= len(conversation.turns) and arrival.mark == _mark(conversation, arrival.place)


def _mark(conversation: Conversation, place: int) -> int:
    return hash(conversation.turns[place - 1])


def missing(history: ToolHistory, conversation: Conversation) -> int:
    """How many tools of its conversation's list this request no longer has."""
    if conversation.tools == history.last:
        return 0
    names = {tool.name for tool in conversation.tools}
    return sum([tool.name not in names for tool in history.first])


def settle(conversation: Conversation, history: ToolHistory | None) -> tuple[Conversation, tuple[str, ...]]:
    """The conversation with its first list, what came later deferred and written in its place, and a note."""
    if history is None:
        return conversation, ()
    if not history.arrivals and history.last is history.first and history.deferred == _deferred(conversation):
        return conversation, ()
    later: dict[str, Tool] = {}
    turns = list(conversation.turns)
    for arrival in history.arrivals:
        for name in arrival.gone:
            later.pop(name, None)
        later.update({tool.name: tool for tool in arrival.tools})
        _write(turns, arrival)
    listed = {tool.name for tool in history.first}
    deferred = [tool for tool in history.deferred if tool.name not in listed | later.keys()]
    arrived = [msgspec.structs.replace(tool, deferred=True) for name, tool in later.items() if name not in listed]
    choice = conversation.tool_choice
    if choice.mode == "tool" and all(tool.name != choice.name for tool in conversation.tools):
        choice = ToolChoice(parallel=choice.parallel)
    settled = msgspec.structs.replace(
        conversation, turns=tuple(turns), tools=(*history.first, *arrived, *deferred), tool_choice=choice
    )
    changed = sum(len(arrival.tools) + len(arrival.gone) for arrival in history.arrivals)
    return settled, ((f"tools: came later, changed or went, told in their place: {changed}",) if changed else ())


def arrived_names(history: ToolHistory | None) -> frozenset[str]:
    """The tools whose definitions stand in the conversation and not in the list."""
    if history is None:
        return frozenset()
    return frozenset(tool.name for arrival in history.arrivals for tool in arrival.tools)


def _known(first: tuple[Tool, ...], arrivals: tuple[Arrival, ...]) -> dict[str, Tool]:
    known = {tool.name: tool for tool in first}
    for arrival in arrivals:
        for name in arrival.gone:
            known.pop(name, None)
        known.update({tool.name: tool for tool in arrival.tools})
    return known


def _write(turns: list[Turn], arrival: Arrival) -> None:
    """At the end of the last turn that the request had, before an answer that it had begun."""
    place = arrival.place - 1
    while place > 0 and turns[place].role == "assistant":
        place -= 1
    turn = turns[place]
    words = "\n\n".join([*map(_came, arrival.tools), *map(_went, arrival.gone)])
    part: Part = Text(words if turn.role == "system" else f"<system-reminder>\n{words}\n</system-reminder>")
    turns[place] = msgspec.structs.replace(turn, parts=(*turn.parts, part))


def _came(tool: Tool) -> str:
    definition = msgspec.json.encode(function_tool(tool)).decode()
    return (
        f'The tool "{tool.name}" is available from now on and can be called like every other. '
        f"Its definition:\n{definition}"
    )


def _went(name: str) -> str:
    return f'The tool "{name}" is no longer available; do not call it.'
