"""Tags in text that comes in pieces, and the Markdown around them: what is a tag, what may become one, what is code."""

from __future__ import annotations

import re
from collections.abc import Iterable

from qiao.core.json_lexemes import WHITESPACE


class Tags:
    """A set of fixed strings to look for. `partial` tells how much of a text's end may be the beginning of one."""

    def __init__(self, tags: Iterable[str]) -> None:
        longest_first = sorted(set(tags), key=len, reverse=True)
        self._pattern = re.compile("|".join(re.escape(tag) for tag in longest_first) if longest_first else r"(?!)")
        self._beginnings = frozenset(tag[:size] for tag in longest_first for size in range(1, len(tag)))
        self._longest = len(longest_first[0]) if longest_first else 0

    def search(self, text: str, position: int = 0) -> re.Match[str] | None:
        """The first tag from `position` on; of two that begin there, the longer."""
        return self._pattern.search(text, position)

    def match(self, text: str, position: int = 0) -> str | None:
        """The tag that stands at `position`."""
        found = self._pattern.match(text, position)
        return None if found is None else found.group()

    def may_begin(self, text: str, position: int = 0) -> bool:
        """All that is left of `text` may be the beginning of a tag."""
        return text[position:] in self._beginnings if len(text) - position < self._longest else False

    def partial(self, text: str) -> int:
        """Length of the longest end of `text` that a tag begins with; 0 if none does."""
        for size in range(min(self._longest - 1, len(text)), 0, -1):
            if text[-size:] in self._beginnings:
                return size
        return 0


_FENCE_LINE = re.compile(r"[ \t]*(`{3,}|~{3,})([^\n]*)")
_LONGEST_FENCE_LINE = 200


class Markdown:
    """Where in the prose's Markdown we are: `in_fence` (a fenced code block is open), and where on the line."""

    def __init__(self) -> None:
        self._fence = ""
        self._line = ""
        self._is_blank = True

    def feed(self, text: str) -> None:
        self._is_blank = self._is_blank and not text.strip(WHITESPACE)
        lines = text.split("\n")
        for line in lines[:-1]:
            # Cut as a line is that comes in pieces: how it came must not matter.
            self._end_line((self._line + line)[:_LONGEST_FENCE_LINE])
            self._line = ""
        self._line = (self._line + lines[-1])[:_LONGEST_FENCE_LINE]

    @property
    def in_fence(self) -> bool:
        """A fence that stands on the present line counts."""
        return bool(self._after_line(self._line))

    @property
    def at_line_start(self) -> bool:
        """Nothing but white space stands before on this line."""
        return not self._line.strip()

    @property
    def at_margin(self) -> bool:
        """Nothing stands before on this line; white space may, as long as there was nothing else at all."""
        return not self._line or self._is_blank

    def _end_line(self, line: str) -> None:
        self._fence = self._after_line(line)

    def _after_line(self, line: str) -> str:
        """The fence that is open after `line`, or nothing."""
        if "`" not in line and "~" not in line:
            return self._fence
        found = _FENCE_LINE.match(line)
        if found is None:
            return self._fence
        marks, rest = found.groups()
        if self._fence:
            closes = marks[0] == self._fence[0] and len(marks) >= len(self._fence) and not rest.strip()
            return "" if closes else self._fence
        # A line such as ```` ```code``` ```` holds inline code.
        return "" if "`" in rest and marks[0] == "`" else str(marks)
