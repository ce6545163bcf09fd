"""What is remembered of running conversations between their requests: the tools that each began with.

Memory of the process, bounded; a conversation that was forgotten, or began before the gateway did, is taken as it is
sent (`policies.tool_history`), which costs its engine one prefill.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import msgspec

from qiao.core.body import session_of
from qiao.core.conversation import Conversation, Text, Tool, ToolCall
from qiao.policies.tool_history import ToolHistory, follow, missing

# A conversation is kept by its beginning, and by its first call once it has one; what is not used any more goes first.
_MOST_HISTORIES = 4096
# Characters of tool definitions that may be kept; one list of Claude Code's has 30,000 to 80,000.
_MOST_CHARACTERS = 64 * 2**20
_LARGEST_LIST = 2 * 2**20


SESSION_HEADER = "x-claude-code-session-id"


def in_session(conversation: Conversation, headers: Mapping[str, str]) -> Conversation:
    """The conversation with the session that a header names, where its body names none."""
    name = None if conversation.names_session else headers.get(SESSION_HEADER)
    if not name:
        return conversation
    return msgspec.structs.replace(conversation, session=session_of(name), names_session=True)


class Conversations:
    """The tool histories of the conversations that were used last."""

    def __init__(self, *, most: int = _MOST_HISTORIES, most_characters: int = _MOST_CHARACTERS) -> None:
        self._most = most
        self._most_characters = most_characters
        self._characters = 0
        self._known: OrderedDict[int, tuple[ToolHistory, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def tools(self, tenant: str, conversation: Conversation, *, is_asked: bool = True) -> ToolHistory | None:
        """The history that this request belongs to, itself included; None: its own list is to be taken.

        `tenant`: whose request it is; nobody's tools reach another. `is_asked` False: it is only counted, and leaves
        nothing behind.
        """
        if not conversation.tools:
            return None
        beginning = _key(tenant, conversation)
        mark = _mark(conversation)
        key = beginning if mark is None else hash((beginning, mark))
        known = self._known.get(key)
        history = known[0] if known is not None and mark is not None else self._begun(beginning, conversation)
        following = follow(history, conversation)
        if is_asked and following is not None:
            if known is not None and following is known[0]:
                self._known.move_to_end(key)
            else:
                self._keep(key, following)
        return following

    def _begun(self, beginning: int, conversation: Conversation) -> ToolHistory | None:
        """The history that is known by the beginning alone, which others may share."""
        known = self._known.get(beginning)
        return known[0] if known is not None and _continues(conversation, known[0]) else None

    def _keep(self, key: int, history: ToolHistory) -> None:
        self._drop(key)
        size = _size(history)
        if size > _LARGEST_LIST:
            return
        self._known[key] = history, size
        self._characters += size
        while len(self._known) > self._most or self._characters > self._most_characters:
            self._drop(next(iter(self._known)))

    def _drop(self, key: int) -> None:
        dropped = self._known.pop(key, None)
        if dropped is not None:
            self._characters -= dropped[1]


def _continues(conversation: Conversation, history: ToolHistory) -> bool:
    """Whether a request with the same beginning may go on with the conversation of `history`.

    One without an answer in it is a beginning. Two conversations may begin with the same words: a list that lacks more
    than half of the first one's tools is a list of its own, and where no session is named, one that lacks any.
    """
    if all(turn.role != "assistant" for turn in conversation.turns):
        return False
    gone = missing(history, conversation)
    return gone == 0 if conversation.session is None else 2 * gone <= len(history.first)


def _key(tenant: str, conversation: Conversation) -> int:
    """One number for all requests of a conversation: they begin with the same words. It differs from run to run."""
    first = conversation.turns[0] if conversation.turns else None
    words = () if first is None else [part.text for part in first.parts if type(part) is Text]
    return hash((tenant, conversation.session, conversation.model, conversation.system, *words))


def _mark(conversation: Conversation) -> int | None:
    """What no other conversation has that began with the same words: its first call. None: nothing was called yet.

    The id alone does not do: some engines number the calls of every conversation alike.
    """
    for place, turn in enumerate(conversation.turns):
        if turn.role == "assistant":
            for part in turn.parts:
                if type(part) is ToolCall:
                    return hash((place, part.id, part.name, part.arguments))
    return None


def _size(history: ToolHistory) -> int:
    lists = [history.first, history.deferred, *(arrival.tools for arrival in history.arrivals)]
    if history.last is not history.first:
        lists.append(history.last)
    return sum(map(_characters, lists))


def _characters(tools: tuple[Tool, ...]) -> int:
    return sum([len(tool.description) + len(tool.parameters) + len(tool.name) for tool in tools])
