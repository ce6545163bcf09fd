"""JSON that passes through as text (tool inputs, schemas, engine options), and JSON that we write.

The client's bytes stay as they are, because they decide whether the engine's prefix cache is hit; here they are only
checked (an object where one is needed, not nested too deeply) and, where a client wrote something else, replaced.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from qiao.core.fault import Fault, invalid

MAX_DEPTH: Final = 256
"""Levels of nesting in one tool input, schema or option. Engines and their JSON readers give up at about 1000."""

UNREADABLE_KEY: Final = "__unparsed"
"""Key of the object that stands for a tool input which is not a JSON object: its value is the text as it was."""

_CLAUDE_CODE_KEY: Final = "__unparsedToolInput"
_CLAUDE_CODE_MARK: Final = b'"__unparsedToolInput"'

_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_STRING_OR_BRACKET = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[{]|[\]}]', re.DOTALL)


class _UnparsedInput(msgspec.Struct):
    raw: str


_ABSENT: Final = (msgspec.Raw(b"null"), msgspec.Raw(b""))

_MEMBERS: msgspec.json.Decoder[dict[str, msgspec.Raw]] = msgspec.json.Decoder(dict[str, msgspec.Raw])
_STRING: msgspec.json.Decoder[str] = msgspec.json.Decoder(str)
_UNPARSED: msgspec.json.Decoder[_UnparsedInput] = msgspec.json.Decoder(_UnparsedInput)


def mend_surrogates(body: bytes) -> bytes:
    """`body` with every escape of a lone surrogate replaced by U+FFFD.

    JavaScript cuts strings between the two halves of a character and sends the halves; no JSON reader takes them.
    """
    if b"\\ud" not in body and b"\\uD" not in body:
        return body
    pieces: list[bytes] = []
    copied = 0
    escapes = [match.start() for match in _SURROGATE_ESCAPE.finditer(body) if _is_escape(body, match.start())]
    position = 0
    while position < len(escapes):
        start = escapes[position]
        following = escapes[position + 1] if position + 1 < len(escapes) else -1
        if _is_high(body, start) and following == start + 6 and not _is_high(body, following):
            position += 2
            continue
        pieces += (body[copied:start], rb"\ufffd")
        copied = start + 6
        position += 1
    return b"".join(pieces) + body[copied:] if pieces else body


def _is_escape(body: bytes, start: int) -> bool:
    """The backslash at `start` opens an escape, that is, it is not itself escaped."""
    first = start
    while first and body[first - 1] == 0x5C:
        first -= 1
    return (start - first) % 2 == 0


def _is_high(body: bytes, start: int) -> bool:
    return body[start + 3 : start + 4] in b"89abAB"


def check_depth(text: bytes, path: str) -> None:
    """Raise a Fault at `path` when the JSON `text` is nested deeper than MAX_DEPTH."""
    if _is_too_deep(text):
        raise too_deep(path)


def too_deep(path: str) -> Fault:
    return invalid(path, f"JSON nested deeper than {MAX_DEPTH} levels is not supported")


def _is_too_deep(text: bytes) -> bool:
    # Fewer opening brackets than levels allowed: no need to look where they stand. True for nearly every text.
    if text.count(b"{") + text.count(b"[") <= MAX_DEPTH:
        return False
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(text):
        first = text[match.start()]
        if first in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif first in b"]}":
            depth -= 1
    return False


def is_null(raw: msgspec.Raw) -> bool:
    """Not sent, or sent as null."""
    return raw in _ABSENT


def is_object(text: str) -> bool:
    """Whether it is the JSON of an object."""
    try:
        _MEMBERS.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def object_text(raw: msgspec.Raw, path: str) -> str:
    """The JSON text of the object that has to stand at `path`."""
    if is_null(raw):
        raise invalid(path, "Field required")
    text = bytes(raw)
    if text[:1] != b"{":
        raise invalid(path, f"expected an object, got {kind_of(text)}")
    check_depth(text, path)
    return text.decode()


def kind_of(text: bytes) -> str:
    """What the valid JSON `text` is, in a word for people."""
    match text[:1]:
        case b"{":
            return "an object"
        case b"[":
            return "an array"
        case b'"':
            return "a string"
        case b"t" | b"f":
            return "a boolean"
        case b"n":
            return "null"
        case _:
            return "a number"


def arguments_text(raw: msgspec.Raw, path: str) -> str:
    """The JSON text of an object for the `input` of a tool_use block, whatever the client sent there.

    Chat templates take the items of the arguments, so that anything but an object breaks every later request.
    Claude Code sends back what it could not parse as `{"__unparsedToolInput": {"raw": …}}`, or as a string.
    """
    if is_null(raw):
        return "{}"
    text = bytes(raw)
    match text[:1]:
        case b"{":
            check_depth(text, path)
            return _unwrapped(text) if _CLAUDE_CODE_MARK in text else text.decode()
        case b'"':
            return _object_or_wrapped(_STRING.decode(text))
        case _:
            return _wrapped(text.decode())


def _unwrapped(text: bytes) -> str:
    members = _MEMBERS.decode(text)
    if members.keys() != {_CLAUDE_CODE_KEY}:
        return text.decode()
    try:
        unparsed = _UNPARSED.decode(members[_CLAUDE_CODE_KEY])
    except msgspec.ValidationError:
        return text.decode()
    return _object_or_wrapped(unparsed.raw)


def _object_or_wrapped(text: str) -> str:
    """`text` if it is a JSON object, else an object that keeps it."""
    candidate = text.strip()
    if not candidate:
        return "{}"
    if not candidate.startswith("{"):
        return _wrapped(text)
    mended = mend_surrogates(candidate.encode())
    try:
        _MEMBERS.decode(mended)  # only to see that it is one
    except (msgspec.DecodeError, RecursionError):
        return _wrapped(text)
    return _wrapped(text) if _is_too_deep(mended) else mended.decode()


def _wrapped(text: str) -> str:
    return msgspec.json.encode({UNREADABLE_KEY: text}).decode()


def encode_json(value: Any) -> bytes:
    """JSON bytes; half surrogates, which have no UTF-8, become U+FFFD."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return msgspec.json.encode(_clean(value))


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        return {key: _clean(item) for key, item in value.items()}
    return value
