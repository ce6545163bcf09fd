"""JSON objects of which one field is a list that grows: the requests of a conversation, whose messages are that list.

JSON is read from left to right. A text that begins as a known one did up to the end of an element, and that ends as the
known one did behind the list, means the same in both places: only what stands between is read, which is little beside
the tools and the messages that come again with every request.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final, Generic, TypeVar

import msgspec

from qiao.core.body import fields_of
from qiao.core.fault import invalid
from qiao.core.fields import read
from qiao.core.json_text import is_null

Rest = TypeVar("Rest")
Element = TypeVar("Element")

MOST: Final = 64
"""Objects that are kept; the one that was used least recently goes first."""

MOST_BYTES: Final = 32 * 2**20
"""Bytes of all that are kept."""

MOST_ELEMENTS: Final = 100_000
"""Elements of one list."""

_SPACES: Final = b" \t\r\n"
_SPACE = re.compile(rb"[ \t\r\n]*")

_ELEMENT_SIZE: Final = 128
"""Bytes that an element takes to keep beside its text."""

_MOST_FIELDS: Final = 64

_LIST: msgspec.json.Decoder[list[msgspec.Raw]] = msgspec.json.Decoder(list[msgspec.Raw])


class _Known(Generic[Rest, Element]):
    """`before`, the list, `after`: that was the text. `ends[i]` is where in the list element i ends, and `first` is the
    part up to `ends[0]`. `size`: bytes that it takes to keep."""

    __slots__ = ("after", "before", "elements", "ends", "first", "listed", "rest", "size")

    def __init__(
        self,
        before: bytes,
        listed: bytes,
        after: bytes,
        elements: tuple[Element, ...],
        ends: tuple[int, ...],
        rest: Rest,
    ) -> None:
        self.before = before
        self.after = after
        self.first = listed[: ends[0]]
        self.rest = rest
        self.set(listed, elements, ends)

    def set(self, listed: bytes, elements: tuple[Element, ...], ends: tuple[int, ...]) -> None:
        """Another list with the same first element."""
        self.listed = listed
        self.elements = elements
        self.ends = ends
        self.size = _size(len(self.before) + len(listed) + len(self.after), len(listed), len(elements))

    def is_like(self, body: bytes) -> bool:
        """Whether `body` has the same first element, and the same before and behind the list."""
        place = len(self.before)
        return body.startswith(self.first, place) and body.startswith(self.before) and body.endswith(self.after)

    def take(self, body: bytes, read_element: Callable[[bytes], Element], most: int) -> bool:
        """Become `body`, which is like this. False, and nothing has changed, where it has to be read as a whole."""
        start, end = len(self.before), len(body) - len(self.after)
        shared = self._shared(body, start)
        begun = self.ends[shared - 1]
        listed = body[start:end]
        # Behind an element stands a comma or the list's end. Anything else is part of a longer one (a number's digits).
        new = listed[begun:].lstrip(_SPACES)
        if new.startswith(b",") and new.endswith(b"]"):
            try:
                more = list(map(bytes, _LIST.decode(b"[" + new[1:])))
            except (msgspec.DecodeError, RecursionError):
                return False
            if not more or shared + len(more) > most:
                return False
        elif new == b"]":
            more = []
        else:
            return False
        ends = (*self.ends[:shared], *_ends(listed, more, begun))
        self.set(listed, (*self.elements[:shared], *map(read_element, more)), ends)
        return True

    def _shared(self, body: bytes, start: int) -> int:
        """How many elements the list of `body` begins with."""
        low, high = 1, len(self.ends)
        while low < high:
            middle = (low + high + 1) // 2
            begin, end = self.ends[low - 1], self.ends[middle - 1]
            if body[start + begin : start + end] == self.listed[begin:end]:
                low = middle
            else:
                high = middle - 1
        return low


class Growing(Generic[Rest, Element]):
    """`of(body)`: what the other fields say, and every element of the list in `field`.

    `read_rest(fields)` reads the other fields, `read_element(text)` one element; what they raise is raised. What they
    return is handed out again with every body that says the same there, and so may not be changed.
    """

    def __init__(
        self,
        field: str,
        read_rest: Callable[[dict[str, msgspec.Raw]], Rest],
        read_element: Callable[[bytes], Element],
        *,
        most_elements: int = MOST_ELEMENTS,
        most: int = MOST,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._field = field
        self._read_rest = read_rest
        self._read_element = read_element
        self._most_elements = most_elements
        self._most = most
        self._most_bytes = most_bytes
        self._bytes = 0
        self._known: list[_Known[Rest, Element]] = []

    def __len__(self) -> int:
        return len(self._known)

    def of(self, body: bytes) -> tuple[Rest, tuple[Element, ...] | None]:
        """The list is None where it was not sent, or sent as null.

        Raises `Fault`, and `UnicodeDecodeError` as `fields_of` does.
        """
        known = self._again(body)
        if known is not None:
            return known.rest, known.elements
        fields = fields_of(body)
        raw = fields.get(self._field)
        rest = self._read_rest({name: value for name, value in fields.items() if name != self._field})
        if raw is None or is_null(raw):
            return rest, None
        listed = read(_LIST, raw, self._field)
        if len(listed) > self._most_elements:
            many = f"at most {self._most_elements} {self._field} are allowed, got {len(listed)}"
            raise invalid(self._field, many)
        texts = list(map(bytes, listed))
        elements = tuple(map(self._read_element, texts))
        can_be_kept = elements and _size(len(body), len(raw), len(texts)) <= self._most_bytes // 4
        place = _place(body, fields, self._field) if can_be_kept else None
        if place is not None:
            cut = body[place : place + len(raw)]
            self._keep(_Known(body[:place], cut, body[place + len(raw) :], elements, _ends(cut, texts, 1), rest))
        return rest, elements

    def _again(self, body: bytes) -> _Known[Rest, Element] | None:
        """What is known of `body`, with what is new in it; None where it has to be read as a whole."""
        for place, known in enumerate(self._known):
            if known.is_like(body):
                size = known.size
                if not known.take(body, self._read_element, self._most_elements):
                    return None
                self._known.insert(0, self._known.pop(place))
                self._bytes += known.size - size
                self._bound()
                return known
        return None

    def _keep(self, known: _Known[Rest, Element]) -> None:
        self._known.insert(0, known)
        self._bytes += known.size
        self._bound()

    def _bound(self) -> None:
        if self._known[0].size > self._most_bytes // 4:
            self._bytes -= self._known.pop(0).size
        while len(self._known) > self._most or self._bytes > self._most_bytes:
            self._bytes -= self._known.pop().size


def _size(body: int, listed: int, elements: int) -> int:
    """Bytes that it takes to keep a text of `body` bytes, the list's own once more, as what was read of it."""
    return body + listed + _ELEMENT_SIZE * elements


def _ends(listed: bytes, texts: list[bytes], place: int) -> tuple[int, ...]:
    """Where each of the elements `texts` ends in `listed`, the first of them beginning behind `place`: between two are
    only a comma and white space, with which none begins."""
    ends: list[int] = []
    for text in texts:
        place = listed.index(text[:1], place) + len(text)
        ends.append(place)
    return tuple(ends)


def _place(body: bytes, fields: Mapping[str, msgspec.Raw], wanted: str) -> int | None:
    """Where in `body` the value of the field `wanted` begins; None if the fields do not stand there as they were read:
    one came twice, a name is written with escapes, the text was mended; or if there are many."""
    if len(fields) > _MOST_FIELDS:
        return None
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
    return found if body[place:].strip(_SPACES) == b"}" else None


def _behind_space(body: bytes, place: int) -> int:
    match = _SPACE.match(body, place)
    assert match is not None
    return match.end()
