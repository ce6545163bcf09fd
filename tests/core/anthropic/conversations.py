"""A Conversation or a Fault as stable, readable JSON, for golden cases and failing tests."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from qiao.core.conversation import Edit, Part, ToolReference
from qiao.core.fault import Fault

# One of several things may stand in their place, so that they say what they are.
_NAMED = (Part | Edit | ToolReference).__args__


def render(value: object) -> str:
    """JSON text of `value`: fields in the order of the structs, those with their default left out."""
    return json.dumps(_plain(value), indent=2, ensure_ascii=False)


def _plain(value: object) -> Any:
    match value:
        case Fault():
            fault = {"fault": value.message, "kind": value.kind, "party": value.party}
            return fault | ({"error_code": value.error_code} if value.error_code else {})
        case msgspec.Struct():
            name = {"kind": type(value).__name__} if isinstance(value, _NAMED) else {}
            return name | {
                field.name: _plain(getattr(value, field.name))
                for field in msgspec.structs.fields(value)
                if getattr(value, field.name) != _default(field)
            }
        case msgspec.Raw():
            return bytes(value).decode()
        case tuple() | list():
            return [_plain(item) for item in value]
        case dict():
            return {key: _plain(item) for key, item in value.items()}
        case _:
            return value


def _default(field: msgspec.structs.FieldInfo) -> object:
    return field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
