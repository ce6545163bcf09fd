"""What there is to know of a conversation's turns before any policy takes them apart: looked at once a turn."""

from __future__ import annotations

from typing import Final

import msgspec

from qiao.core.beginnings import Beginnings
from qiao.core.conversation import Role, Turn

Turns = tuple[Turn, ...]


class Course(msgspec.Struct, frozen=True):
    """What decides which policies have something to do.

    * `kinds`: of the parts and blocks that occur.
    * `is_well`: nothing is to be mended, as in nearly every history. False: it may need mending; a turn that only a
      closer look can judge counts as such.
    """

    kinds: frozenset[type]
    is_well: bool


class _Walk:
    """The turns so far."""

    def __init__(self) -> None:
        self._kinds: set[type] = set()
        self._is_plain = True
        self._waiting: tuple[str, ...] = ()
        self._ids: set[str] = set()
        self._previous: Role = "assistant"

    def take(self, turn: Turn) -> None:
        outline = turn.outline
        self._kinds |= outline.kinds
        self._is_plain = (
            self._is_plain
            and outline.is_plain
            and turn.role != self._previous
            and outline.answers == self._waiting
            and self._ids.isdisjoint(outline.calls)
            and len(set(outline.calls)) == len(outline.calls)
        )
        self._ids.update(outline.calls)
        self._waiting, self._previous = outline.calls, turn.role

    def course(self) -> Course:
        return Course(frozenset(self._kinds), self._is_plain and bool(self._kinds) and not self._waiting)


_WALKS: Final = Beginnings(_Walk, _Walk.take, _Walk.course)


def course(turns: Turns) -> Course:
    """The course of `turns`."""
    return _WALKS.of(turns)
