"""Repair that a tool's schema guides: values of the wrong type, and names that are nearly right.

A value is changed only where the schema forbids what stands there and exactly one reading is left; what fits, and what
nobody can read, stays as the model wrote it. Every change has a name: `string_to_number`, `string_to_boolean`,
`string_to_array`, `string_to_object`, `string_to_null`, `scalar_to_string`, `wrapped_in_array`, `enum_case`,
`dropped_null`, `dropped_key`, `near_name`, and, round parameters written as tags, `quoted_value`, `quoted_key`.

`Guide` does it while the arguments stream: it holds back a value whose type does not fit until it closes, and nothing
else. `typed_json` writes the text of an XML parameter as JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

from qiao.core.json_lexemes import WHITESPACE, read_scalar
from qiao.core.json_reader import Kind, ObjectReader
from qiao.core.shape import Shape, type_names

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?\Z")
_NULLS = ("null", "None")
_LONGEST_NUMBER = 512
_LARGEST_EXACT = 2**53
_SHORTEST_NEAR_NAME = 4

_FROM_STRING = {
    bool: "string_to_boolean", type(None): "string_to_null", list: "string_to_array", dict: "string_to_object",
}  # fmt: skip

Note = Callable[[str], None]


class _Unknown:
    """Stands for: no value could be read."""


_UNKNOWN = _Unknown()


# -- names ------------------------------------------------------------------------------------------------------------


def near_name(name: str, declared: Iterable[str]) -> str | None:
    """The declared tool that `name` can only mean: other case, other or no marks between words, or one letter wrong."""
    names = list(declared)
    if name in names:
        return name
    for same in (str.casefold, _folded, _letters):
        found = [candidate for candidate in names if same(candidate) == same(name)]
        if found:
            return found[0] if len(found) == 1 else None
    if len(name) < _SHORTEST_NEAR_NAME:
        return None
    found = [candidate for candidate in names if _is_one_edit_away(name, candidate)]
    return found[0] if len(found) == 1 else None


def _folded(name: str) -> str:
    return name.strip().casefold().replace("-", "_")


def _letters(name: str) -> str:
    """Without what stands between words: `todo_write` and `TodoWrite` are the same name in two styles."""
    return _folded(name).replace("_", "").replace(" ", "")


def _is_one_edit_away(one: str, other: str) -> bool:
    shorter, longer = sorted((one, other), key=len)
    if len(longer) - len(shorter) > 1 or len(shorter) < _SHORTEST_NEAR_NAME - 1:
        return False
    place = next((at for at, pair in enumerate(zip(shorter, longer, strict=False)) if pair[0] != pair[1]), len(shorter))
    rest = shorter[place:] if len(shorter) < len(longer) else shorter[place + 1 :]
    return rest == longer[place + 1 :]


# -- values -----------------------------------------------------------------------------------------------------------


def mend(value: Any, shape: Shape | None, note: Note) -> Any:
    """`value` as the schema wants it, as far as that can be done without guessing."""
    if shape is None:
        return value
    if not shape.allows_type(*type_names(value)):
        changed = _convert(value, shape, note)
        return value if changed is _UNKNOWN else changed
    if isinstance(value, dict):
        return _mend_members(value, shape, note)
    if isinstance(value, list):
        return [mend(item, shape.item(index), note) for index, item in enumerate(value)]
    if isinstance(value, str) and shape.choices is not None and not shape.allows(value):
        return _mend_choice(value, shape.choices, note)
    return value


def is_surplus_null(value: object, key: str, parent: Shape, shape: Shape | None) -> bool:
    """A null that says no more than leaving out an optional key, and that the schema forbids."""
    if shape is None or not parent.declares(key) or key in parent.required or shape.allows(None):
        return False
    return value is None or (value in _NULLS and not shape.allows_type("string"))


def _mend_members(value: dict[str, Any], shape: Shape, note: Note) -> dict[str, Any]:
    mended: dict[str, Any] = {}
    for key, member in value.items():
        if shape.forbids(key):
            note("dropped_key")
            continue
        at = shape.property(key)
        new = mend(member, at, note)
        if is_surplus_null(new, key, shape, at):
            note("dropped_null")
            continue
        mended[key] = new
    return mended


def _mend_choice(value: str, choices: tuple[Any, ...], note: Note) -> Any:
    for same in (str.casefold, _folded):
        found = [choice for choice in choices if isinstance(choice, str) and same(choice) == same(value)]
        if len(found) == 1:
            note("enum_case")
            return found[0]
    for choice in choices:
        if not isinstance(choice, str) and json.dumps(choice) == value.strip():
            note(_FROM_STRING.get(type(choice), "string_to_number"))
            return choice
    return value


def _convert(value: Any, shape: Shape, note: Note) -> Any:
    if isinstance(value, str):
        found = _from_string(value.strip(), shape, note)
        if found is not _UNKNOWN:
            return found
    elif isinstance(value, bool | int | float) and shape.allows_type("string"):
        text = json.dumps(value)
        if shape.allows(text):
            note("scalar_to_string")
            return text
    if value is not None and not isinstance(value, list) and shape.allows_type("array"):
        notes: list[str] = []
        at = shape.item(0)
        item = mend(value, at, notes.append)
        if at is None or at.allows(item):
            for name in (*notes, "wrapped_in_array"):
                note(name)
            return [item]
    return _UNKNOWN


def _from_string(text: str, shape: Shape, note: Note) -> Any:
    """The value that a string holds, where the schema forbids a string."""
    if shape.allows_type("boolean") and text.lower() in ("true", "false"):
        found: Any = text.lower() == "true"
        name = "string_to_boolean"
    elif shape.allows_type("integer", "number") and (number := _number(text, shape)) is not _UNKNOWN:
        found, name = number, "string_to_number"
    elif text in _NULLS and shape.allows_type("null"):
        found, name = None, "string_to_null"
    elif text.startswith("[") and shape.allows_type("array"):
        found, name = loads_loosely(text, note), "string_to_array"
    elif text.startswith("{") and shape.allows_type("object"):
        found, name = loads_loosely(text, note), "string_to_object"
    else:
        return _UNKNOWN
    if found is _UNKNOWN or (shape.choices is not None and not shape.allows(found)):
        return _UNKNOWN
    note(name)
    return mend(found, shape, note)


def _number(text: str, shape: Shape) -> Any:
    """The number that `text` is; where it has to be whole, `5.0` is 5."""
    if len(text) >= _LONGEST_NUMBER or not _NUMBER.match(text):
        return _UNKNOWN
    found = json.loads(text)
    if found in (float("inf"), float("-inf")):
        return _UNKNOWN
    if isinstance(found, float) and not shape.allows_type("number"):
        return int(found) if found.is_integer() and abs(found) < _LARGEST_EXACT else _UNKNOWN
    return found


def loads_loosely(text: str, note: Note) -> Any:
    """The value of JSON text, mended where models write it wrong; `_UNKNOWN` if it is none."""
    reader = ObjectReader()
    rest = reader.feed('{"v":' + text + "}")
    if not reader.is_done or rest:
        return _UNKNOWN
    try:
        found = json.loads("".join(reader.out))["v"]
    except (ValueError, RecursionError):
        return _UNKNOWN
    for name in reader.repairs:
        note(name)
    return found


# -- while the arguments stream ---------------------------------------------------------------------------------------


class _Frame:
    """An object or array that is open. `count`: members that came; `written`: members that went out."""

    __slots__ = ("count", "shape", "written")

    def __init__(self, shape: Shape | None) -> None:
        self.shape = shape
        self.count = 0
        self.written = 0


class Guide:
    """Watches an `ObjectReader` and mends what the schema forbids, value by value.

    A value whose JSON type fits goes straight through. One that does not, one of a fixed set of choices, and one whose
    key is forbidden are held until they are complete. `notes` names what was done, without repeats.
    """

    def __init__(self, reader: ObjectReader, shape: Shape) -> None:
        self.notes: list[str] = []
        self._reader = reader
        self._root = shape
        self._out = reader.out
        self._frames: list[_Frame] = []
        self._depth = 0
        self._prefix = ""
        self._key: str | None = None
        self._shape: Shape | None = None
        self._drops = False
        reader.observer = self

    def begin(self, kind: Kind, key: str | None, prefix: str) -> None:
        if self._depth:
            self._depth += 1
            self._reader.out.append(prefix)
            return
        if not self._frames:
            self._frames.append(_Frame(self._root))
            return
        frame = self._frames[-1]
        frame.count += 1
        parent = frame.shape
        if parent is None:
            self._pass(frame, prefix, None)
            return
        name = None if key is None else str(json.loads(f'"{key}"'))
        shape = parent.item(frame.count - 1) if name is None else parent.property(name)
        drops = name is not None and parent.forbids(name)
        if not drops and _fits(kind, shape):
            self._pass(frame, prefix, shape)
            return
        self._depth = 1
        self._prefix, self._key, self._shape, self._drops = prefix, name, shape, drops
        self._reader.out = []

    def end(self) -> None:
        if not self._depth:
            self._frames.pop()
            return
        self._depth -= 1
        if self._depth == 0:
            text = "".join(self._reader.out)
            self._reader.out = self._out
            self._settle(text)

    def _pass(self, frame: _Frame, prefix: str, shape: Shape | None) -> None:
        self._write_prefix(frame, prefix)
        self._frames.append(_Frame(shape))

    def _write_prefix(self, frame: _Frame, prefix: str) -> None:
        if not frame.written and prefix.lstrip(WHITESPACE).startswith(","):
            prefix = prefix.replace(",", "", 1)
        frame.written += 1
        self._out.append(prefix)

    def _settle(self, text: str) -> None:
        """What was held is complete: write it, mended or as it is, or leave it out."""
        frame = self._frames[-1]
        if self._drops:
            self._note("dropped_key")
            return
        notes: list[str] = []
        try:
            value = json.loads(text)
            mended = mend(value, self._shape, notes.append)
        except (ValueError, RecursionError):
            value = mended = text
            notes.clear()
        parent = frame.shape
        if self._key is not None and parent is not None and is_surplus_null(mended, self._key, parent, self._shape):
            self._note("dropped_null")
            return
        self._write_prefix(frame, self._prefix)
        for name in notes:
            self._note(name)
        self._out.append(json.dumps(mended, ensure_ascii=False) if notes else text)

    def _note(self, repair: str) -> None:
        if repair not in self.notes:
            self.notes.append(repair)


def _fits(kind: Kind, shape: Shape | None) -> bool:
    if shape is None:
        return True
    if shape.choices is not None and kind not in ("object", "array"):
        return False
    return shape.allows_type(kind)


# -- parameters written as text ---------------------------------------------------------------------------------------


def typed_json(text: str, shape: Shape | None, note: Note | None = None) -> str:
    """The JSON of a parameter that was written without quotes: read as what the schema allows, else as a string.

    Where the schema says nothing, JSON is read as JSON. `note` is told what had to be mended; None: nothing is.
    """
    as_string = json.dumps(text, ensure_ascii=False)
    if shape is not None and shape.choices is None and shape.types == frozenset({"string"}):
        return as_string
    word = text.strip()
    try:
        value = json.loads(word, parse_constant=_no_constant)
        written = word
    except (ValueError, RecursionError):
        value, written = _loose_value(word, shape, note)
    if value is _UNKNOWN:
        return as_string
    if shape is None or shape.types is None:
        return written
    if isinstance(value, str):
        return (None if note is None else _unquoted(value, word, shape, note)) or as_string
    return written if shape.allows_type(*type_names(value)) else as_string


def _unquoted(value: str, word: str, shape: Shape, note: Note) -> str | None:
    """The JSON that is meant by a quoted parameter whose schema wants no quotes; None if it may want them."""
    if shape.choices is not None and shape.allows(value) and not shape.allows(word):
        note("quoted_value")
        return word
    if shape.allows_type("string"):
        return None
    notes: list[str] = []
    meant = mend(value, shape, notes.append)
    for name in notes:
        note(name)
    return json.dumps(meant, ensure_ascii=False) if notes else None


def _loose_value(word: str, shape: Shape | None, note: Note | None) -> tuple[Any, str]:
    """A Python literal, or, where the schema forbids a string, an array or object that needs mending."""
    if word in ("True", "False", "None"):
        scalar = read_scalar(word)
        written = scalar.text if scalar is not None else "null"
        return json.loads(written), written
    if note is None or word[:1] not in ("[", "{", "`") or shape is None or shape.allows_type("string"):
        return _UNKNOWN, ""
    notes: list[str] = []
    value = loads_loosely(word, notes.append)
    if value is _UNKNOWN or not shape.allows_type(*type_names(value)):
        return _UNKNOWN, ""
    for name in notes:
        note(name)
    return value, json.dumps(value, ensure_ascii=False)


def _no_constant(word: str) -> Any:
    raise ValueError(word)
