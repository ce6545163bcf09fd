"""JSON objects of which one field is a list that grows: the requests of a conversation, whose messages are that list.

JSON is read from left to right. A text that begins as a known one did up to the end of an element, and that ends as the
known one did behind the list, means the same in both places: only what stands between is read, which is little beside
the tools and the messages that come again with every request.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final, Generic, NamedTuple, TypeVar

import msgspec

from qiao.core.body import fields_of
from qiao.core.fields import read
from qiao.core.json_text import is_null

Rest = TypeVar("Rest")

MOST: Final = 64
"""Objects that are kept; the one that was used least recently goes first."""

MOST_BYTES: Final = 32 * 2**20
"""Bytes of all that are kept."""

_SPACE = re.compile(rb"[ \t\r\n]*")

_LIST: msgspec.json.Decoder[list[msgspec.Raw]] = msgspec.json.Decoder(list[msgspec.Raw])


class _Known(NamedTuple, Generic[Rest]):
    """`before`, `listed`, the list's end, `after`: that was the text. `listed` goes from the list's bracket to the end
    of the last element, `ends[i]` is where in it element i ends, and `first` is the part up to `ends[0]`."""

    before: bytes
    first: bytes
    listed: bytes
    after: bytes
    elements: tuple[bytes, ...]
    ends: tuple[int, ...]
    rest: Rest

    @property
    def size(self) -> int:
        return len(self.before) + 2 * len(self.listed) + len(self.after)

    def is_like(self, body: bytes) -> bool:
        """Whether `body` has the same first element, and the same before and behind the list."""
        place = len(self.before)
        return body.startswith(self.first, place) and body.startswith(self.before) and body.endswith(self.after)

    def shared(self, body: bytes) -> int:
        """How many elements the list of `body` begins with, which is like this."""
        start = len(self.before)
        low, high = 1, len(self.ends)
        while low < high:
            middle = (low + high + 1) // 2
            begin, end = self.ends[low - 1], self.ends[middle - 1]
            if body[start + begin : start + end] == self.listed[begin:end]:
                low = middle
            else:
                high = middle - 1
        return low


class Growing(Generic[Rest]):
    """`of(body)`: what the other fields say, and the text of every element of the list in `field`.

    `read_rest(fields)` reads the other fields; what it raises is raised. What it returns is handed out again for as
    long as nothing but the list changes, and so may not be changed.
    """

    def __init__(
        self,
        field: str,
        read_rest: Callable[[dict[str, msgspec.Raw]], Rest],
        *,
        most: int = MOST,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._field = field
        self._read_rest = read_rest
        self._most = most
        self._most_bytes = most_bytes
        self._bytes = 0
        self._known: list[_Known[Rest]] = []

    def __len__(self) -> int:
        return len(self._known)

    def of(self, body: bytes) -> tuple[Rest, tuple[bytes, ...] | None]:
        """The list is None where it was not sent, or sent as null. An element that is known is the same object.

        Raises `Fault`, and `UnicodeDecodeError` as `fields_of` does.
        """
        known = self._taken(body)
        if known is not None and (longer := _longer(known, body)) is not None:
            self._keep(longer)
            return longer.rest, longer.elements
        fields = fields_of(body)
        raw = fields.get(self._field)
        rest = self._read_rest({name: value for name, value in fields.items() if name != self._field})
        if raw is None or is_null(raw):
            return rest, None
        listed = read(_LIST, raw, self._field)
        elements = tuple(map(bytes, listed))
        place = _place(body, fields, self._field) if elements else None
        if place is not None:
            self._keep(_cut(body, place, len(raw), elements, rest))
        return rest, elements

    def _taken(self, body: bytes) -> _Known[Rest] | None:
        for place, known in enumerate(self._known):
            if known.is_like(body):
                self._bytes -= known.size
                return self._known.pop(place)
        return None

    def _keep(self, known: _Known[Rest]) -> None:
        if known.size > self._most_bytes // 4:
            return
        self._known.insert(0, known)
        self._bytes += known.size
        while len(self._known) > self._most or self._bytes > self._most_bytes:
            self._bytes -= self._known.pop().size


def _longer(known: _Known[Rest], body: bytes) -> _Known[Rest] | None:
    """`body`, which is like `known`, with only what is new in it read; None where it has to be read as a whole."""
    shared = known.shared(body)
    start, end = len(known.before), len(body) - len(known.after)
    # Behind an element stands a comma or the list's end. Anything else is part of a longer element (a number's digits).
    new = body[start + known.ends[shared - 1] : end].lstrip()
    if new.startswith(b",") and new.endswith(b"]"):
        try:
            more = tuple(map(bytes, _LIST.decode(b"[" + new[1:])))
        except (msgspec.DecodeError, RecursionError):
            return None
    elif new == b"]":
        more = ()
    else:
        return None
    listed = body[start:end]
    ends = (*known.ends[:shared], *_ends(listed, more, known.ends[shared - 1]))
    return known._replace(listed=listed[: ends[-1]], elements=(*known.elements[:shared], *more), ends=ends)


def _cut(body: bytes, place: int, length: int, elements: tuple[bytes, ...], rest: Rest) -> _Known[Rest]:
    listed = body[place : place + length]
    ends = _ends(listed, elements, 1)
    return _Known(
        before=body[:place],
        first=listed[: ends[0]],
        listed=listed[: ends[-1]],
        after=body[place + length :],
        elements=elements,
        ends=ends,
        rest=rest,
    )


def _ends(listed: bytes, elements: tuple[bytes, ...], place: int) -> tuple[int, ...]:
    """Where each of `elements` ends in `listed`, the first of them beginning behind `place`: between two are only a
    comma and white space, with which none begins."""
    ends: list[int] = []
    for element in elements:
        place = listed.index(element[:1], place) + len(element)
        ends.append(place)
    return tuple(ends)


def _place(body: bytes, fields: Mapping[str, msgspec.Raw], wanted: str) -> int | None:
    """Where in `body` the value of the field `wanted` begins; None if the fields do not stand there as they were read:
    one came twice, a name is written with escapes, the text was mended."""
    found: int | None = None
    place = 0
    mark = b"{"
    for name, raw in fields.items():
        for text in (mark, b'"%b"' % name.encode(), b":"):
            place = _behind_space(body, place)
            if not body.startswith(text, place):
                return None
            place += len(text)
        place = _behind_space(body, place)
        if not body.startswith(bytes(raw), place):
            return None
        if name == wanted:
            found = place
        place += len(raw)
        mark = b","
    return found if body[place:].strip() == b"}" else None


def _behind_space(body: bytes, place: int) -> int:
    match = _SPACE.match(body, place)
    assert match is not None
    return match.end()
