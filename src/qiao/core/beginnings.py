"""What was made of a conversation, gone on with when it comes again: with every request it is a little longer.

Work over all turns of a long session would be done again for each of its requests, while a person waits for the first
token; here it is done once a turn.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Generic, TypeAlias, TypeVar

from qiao.core.conversation import (
    Document,
    Image,
    Reasoning,
    ResultPart,
    Text,
    ToolCall,
    ToolReference,
    ToolResult,
    Turn,
)

State = TypeVar("State")
Turns: TypeAlias = tuple[Turn, ...]

MOST: Final = 256
"""Conversations that are kept; the one that was used least recently goes first."""

MOST_CHARACTERS: Final = 8 * 2**20
"""Characters of all that are kept."""


class Beginnings(Generic[State]):
    """`of(turns)`: the state after all of them.

    * `start()`: the state before the first turn.
    * `step(state, turn)`: takes one more into it, in place. It may depend on nothing else.

    Conversations are told apart by their first turn; two that share it take turns in being forgotten. A state belongs
    here: whoever asked may look at it until the next call.
    """

    def __init__(
        self,
        start: Callable[[], State],
        step: Callable[[State, Turn], None],
        *,
        most: int = MOST,
        most_characters: int = MOST_CHARACTERS,
    ) -> None:
        self._start = start
        self._step = step
        self._most = most
        self._most_characters = most_characters
        self._characters = 0
        self._known: OrderedDict[Turn, tuple[Turns, State, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def of(self, turns: Turns) -> State:
        """The state after `turns`. Raises what `step` raises."""
        if not turns:
            return self._start()
        # Taken out, so that nothing is left of a state that breaks on the way.
        begun, state, characters = self._known.pop(turns[0], ((), None, 0))
        self._characters -= characters
        if state is None or (begun is not turns and turns[: len(begun)] != begun):
            begun, state, characters = (), self._start(), 0
        for turn in turns[len(begun) :]:
            self._step(state, turn)
            characters += _characters(turn)
        self._keep(turns, state, characters)
        return state

    def _keep(self, turns: Turns, state: State, characters: int) -> None:
        if characters > self._most_characters // 4:
            return
        self._known[turns[0]] = turns, state, characters
        self._characters += characters
        while len(self._known) > self._most or self._characters > self._most_characters:
            _, (_, _, gone) = self._known.popitem(last=False)
            self._characters -= gone


def _characters(turn: Turn) -> int:
    return sum(map(_length, turn.parts))


def _length(part: Text | Reasoning | ToolCall | ToolResult | ResultPart) -> int:
    match part:
        case Text() | Reasoning():
            return len(part.text)
        case ToolCall():
            return len(part.arguments)
        case ToolResult():
            return sum(map(_length, part.parts))
        case Image():
            return len(part.data or part.url or "")
        case Document():
            return len(part.data)
        case ToolReference():
            return len(part.name)
