"""Reading one value of a request, and saying where it is wrong.

The only place that knows how the wire library words its errors. Paths are dotted, list positions are numbers:
`messages.2.content.0`.
"""

from __future__ import annotations

import re
from typing import Final, TypeVar

import msgspec

from qiao.core.fault import Fault, invalid
from qiao.core.json_text import too_deep

T = TypeVar("T")

_MAX_PROBLEM: Final = 300
"""Characters of a problem that reach the client: a wrong value is shown, but not a megabyte of it."""

_MAX_VALUE: Final = 80
"""Characters of one wrong value in a message of ours."""

_WHERE = re.compile(r"^(?P<problem>.*?)(?: - at `\$(?P<path>[^`]*)`)?$", re.DOTALL)
_MISSING = re.compile(r"^Object missing required field `(?P<name>[^`]+)`$")
_WRONG_TAG = re.compile(r"^Invalid value (?P<value>.*)$", re.DOTALL)


def read(decoder: msgspec.json.Decoder[T], raw: msgspec.Raw, path: str) -> T:
    """The value at `path`, or a Fault that names the wrong part of it."""
    try:
        return decoder.decode(raw)
    except msgspec.DecodeError as error:
        raise fault_at(path, str(error)) from error
    except RecursionError as error:
        raise too_deep(path) from error


def fault_at(path: str, message: str) -> Fault:
    """The library's `message` about the value at `path`, in the words of this API."""
    match = _WHERE.match(message)
    problem, inner = (match["problem"], match["path"] or "") if match else (message, "")
    path += inner.replace("[", ".").replace("]", "")
    path = path.lstrip(".")
    if missing := _MISSING.match(problem):
        return invalid(f"{path}.{missing['name']}", "Field required")
    if (wrong := _WRONG_TAG.match(problem)) and path.endswith(".type"):
        return invalid(path.removesuffix(".type"), _shortened(f"unsupported content block type {wrong['value']}"))
    return invalid(path, _shortened(problem[:1].lower() + problem[1:].replace("`", "")))


def _shortened(problem: str) -> str:
    return problem if len(problem) <= _MAX_PROBLEM else problem[:_MAX_PROBLEM] + "…"


def shown(value: str) -> str:
    """A wrong value as it may stand in a message: quoted, and not a megabyte of it."""
    return repr(value if len(value) <= _MAX_VALUE else value[:_MAX_VALUE] + "…")
