"""What was made of a conversation, gone on with when it comes again: with every request it is a little longer.

Work over all turns of a long session would be done again for each of its requests, while a person waits for the first
token; here it is done once a turn.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Generic, TypeAlias, TypeVar

from qiao.core.conversation import Turn

State = TypeVar("State")
Said = TypeVar("Said")
Turns: TypeAlias = tuple[Turn, ...]

MOST: Final = 256
"""Conversations that are kept; the one that was used least recently goes first."""

MOST_CHARACTERS: Final = 8 * 2**20
"""Characters of all that are kept."""


class Beginnings(Generic[State, Said]):
    """`of(turns)`: what there is to say after all of them.

    * `start()`: the state before the first turn.
    * `step(state, turn)`: takes one more into it, in place. It may depend on nothing else.
    * `say(state)`: what is told of a state. It must not change with it.

    Conversations are told apart by their first turn; two that share it take turns in being forgotten.
    """

    def __init__(
        self,
        start: Callable[[], State],
        step: Callable[[State, Turn], None],
        say: Callable[[State], Said],
        *,
        most: int = MOST,
        most_characters: int = MOST_CHARACTERS,
    ) -> None:
        self._start = start
        self._step = step
        self._say = say
        self._most = most
        self._most_characters = most_characters
        self._characters = 0
        self._known: OrderedDict[Turn, tuple[Turns, State, int]] = OrderedDict()
        # Several policies ask the same of one request, one after the other.
        self._last: tuple[Turns, Said] | None = None

    def __len__(self) -> int:
        return len(self._known)

    def of(self, turns: Turns) -> Said:
        """What there is to say after `turns`. Raises what `step` raises."""
        if not turns:
            return self._say(self._start())
        last = self._last
        if last is not None and last[0] is turns:
            return last[1]
        self._last = None
        # Taken out: nothing is left of a state that breaks on the way, and nobody else goes on with it meanwhile.
        known = self._known.pop(turns[0], None)
        if known is not None:
            self._characters -= known[2]
        if known is not None and turns[: len(known[0])] == known[0]:
            begun, state, characters = known
        else:
            begun, state, characters = (), self._start(), 0
        for turn in turns[len(begun) :]:
            self._step(state, turn)
            characters += turn.outline.characters
        said = self._say(state)
        if characters <= self._most_characters // 4:
            self._known[turns[0]] = turns, state, characters
            self._characters += characters
            while len(self._known) > self._most or self._characters > self._most_characters:
                self._characters -= self._known.popitem(last=False)[1][2]
            self._last = turns, said
        return said
