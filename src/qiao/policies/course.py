"""What there is to know of a conversation's turns before any policy takes them apart: looked at once a turn."""

from __future__ import annotations

from typing import Final

from qiao.core.beginnings import Beginnings
from qiao.core.conversation import Role, Turn

Turns = tuple[Turn, ...]


class Course:
    """The turns so far.

    * `kinds`: of parts and blocks that occur, so that a step with nothing to do is not walked through.
    * `is_well`: nothing is to be mended, as in nearly every history. False: it may need mending; a turn that only a
      closer look can judge counts as such.
    """

    def __init__(self) -> None:
        self.kinds: set[type] = set()
        self._is_plain = True
        self._waiting: tuple[str, ...] = ()
        self._ids: set[str] = set()
        self._previous: Role = "assistant"

    @property
    def is_well(self) -> bool:
        return self._is_plain and bool(self.kinds) and not self._waiting

    def take(self, turn: Turn) -> None:
        """One turn more."""
        outline = turn.outline
        self.kinds |= outline.kinds
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


_COURSES: Final = Beginnings(Course, Course.take)


def course(turns: Turns) -> Course:
    """The course of `turns`; to be looked at at once."""
    return _COURSES.of(turns)
