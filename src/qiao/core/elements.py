"""The elements of a JSON array that comes again and again, each time a little longer, as a conversation's messages do.

JSON is read from left to right, so an array that begins with the same text begins with the same elements: only what
follows is looked through.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

MOST: Final = 64
"""Arrays that are kept; the one that was used least recently goes first."""

MOST_BYTES: Final = 16 * 2**20
"""Bytes of all that are kept."""


class _Array(NamedTuple):
    """`ends[i]` is where element i ends in `raw`; `head` is the text up to `ends[0]`."""

    raw: bytes
    head: bytes
    elements: tuple[bytes, ...]
    ends: tuple[int, ...]

    def same_as(self, raw: bytes) -> int:
        """How many elements `raw` begins with. The first one was compared already."""
        low, high = 1, len(self.ends)
        if raw.startswith(self.raw[: self.ends[-1]]):
            return high
        high -= 1
        while low < high:
            middle = (low + high + 1) // 2
            start, end = self.ends[low - 1], self.ends[middle - 1]
            if raw[start:end] == self.raw[start:end]:
                low = middle
            else:
                high = middle - 1
        return low


class Elements:
    """`of(raw)`: the text of every element. `read(raw)` cuts an array up; what it raises is raised."""

    def __init__(
        self, read: Callable[[msgspec.Raw], list[msgspec.Raw]], *, most: int = MOST, most_bytes: int = MOST_BYTES
    ) -> None:
        self._read = read
        self._most = most
        self._most_bytes = most_bytes
        self._bytes = 0
        self._known: list[_Array] = []

    def __len__(self) -> int:
        return len(self._known)

    def of(self, raw: bytes) -> tuple[bytes, ...]:
        """`raw`: valid JSON, without white space before it. An element that was seen before is the same object."""
        known = self._taken(raw)
        elements, ends = self._begun(raw, known)
        if elements and 2 * len(raw) <= self._most_bytes // 4:
            self._keep(_Array(raw, raw[: ends[0]], elements, ends))
        return elements

    def _begun(self, raw: bytes, known: _Array | None) -> tuple[tuple[bytes, ...], tuple[int, ...]]:
        if known is not None:
            same = known.same_as(raw)
            elements, ends = known.elements[:same], known.ends[:same]
            rest = raw[ends[-1] :].lstrip()
            if rest == b"]":
                return elements, ends
            if rest.startswith(b","):
                more = list(map(bytes, self._read(msgspec.Raw(b"[" + rest[1:]))))
                return (*elements, *more), (*ends, *_ends(raw, more, ends[-1]))
        every = tuple(map(bytes, self._read(msgspec.Raw(raw))))
        return every, _ends(raw, every, 1)

    def _taken(self, raw: bytes) -> _Array | None:
        for place, known in enumerate(self._known):
            if raw.startswith(known.head):
                self._bytes -= 2 * len(known.raw)
                return self._known.pop(place)
        return None

    def _keep(self, array: _Array) -> None:
        self._known.insert(0, array)
        self._bytes += 2 * len(array.raw)
        while len(self._known) > self._most or self._bytes > self._most_bytes:
            self._bytes -= 2 * len(self._known.pop().raw)


def _ends(raw: bytes, elements: tuple[bytes, ...] | list[bytes], place: int) -> tuple[int, ...]:
    """Where each of `elements` ends in `raw`, the first of them beginning behind `place`: between two are only a comma
    and white space, with which none begins."""
    ends: list[int] = []
    for element in elements:
        place = raw.index(element[:1], place) + len(element)
        ends.append(place)
    return tuple(ends)
