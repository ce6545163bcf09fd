"""Tools whose input is free text: OpenAI's custom tools (Cursor's ApplyPatch).

Models write calls with JSON arguments, so that such a tool is offered as a function of one string, and the string is
taken out again on the way back. How a client wants the call depends on how it wrote the tool: OpenAI's own form
(`{"type": "custom", "custom": {…}}`) gets a custom call; the flat form, which only Cursor sends here, gets a function
call with the bare text as its arguments, because Cursor reads `function.name` of every call.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias

import msgspec

from qiao.core.conversation import Tool

Form: TypeAlias = Literal["custom", "function"]

FreeText: TypeAlias = Mapping[str, Form]
"""The form of a call by the tool's name, for the tools of one request whose input is free text."""

_PARAMETERS: Final = (
    '{"type":"object","properties":{"input":{"type":"string","description":"The whole input, as plain text."}},'
    '"required":["input"],"additionalProperties":false}'
)


class _Arguments(msgspec.Struct, frozen=True):
    input: str


_ARGUMENTS: msgspec.json.Decoder[_Arguments] = msgspec.json.Decoder(_Arguments)


def as_function(name: str, description: str, grammar: str | None) -> Tool:
    """The tool as a function. `grammar`: what the text has to look like; the engine is told, not bound."""
    if grammar:
        description = f"{description}\n\nThe input has to follow this grammar:\n{grammar}".lstrip()
    return Tool(name=name, description=description, parameters=_PARAMETERS)


def arguments_of(text: str) -> str:
    """The JSON text of the arguments that hold `text`, spaced as models write them."""
    return f'{{"input": {msgspec.json.encode(text).decode()}}}'


def text_of(arguments: str) -> str:
    """The text in the arguments of a call; a model that wrote them in its own way loses nothing."""
    try:
        return _ARGUMENTS.decode(arguments).input
    except (msgspec.DecodeError, UnicodeEncodeError):
        return arguments


def call_object(call_id: str, name: str, arguments: str, form: Form) -> dict[str, Any]:
    """The call as the client wants it."""
    text = text_of(arguments)
    called = {"name": name, "input": text} if form == "custom" else {"name": name, "arguments": text}
    return {"id": call_id, "type": form, form: called}
