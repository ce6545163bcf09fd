"""`input`, the Responses API's form of a conversation, as messages.

Cursor, given a base URL of its own, sends this form to /chat/completions and reads chat completions in return. Each
item becomes one message; that calls and words of one answer belong together is settled where every history is mended.
"""

from __future__ import annotations

import msgspec

from qiao.core.body import optional
from qiao.core.fault import invalid
from qiao.core.fields import shown
from qiao.core.openai import decode_wire as wire

_INPUT: msgspec.json.Decoder[str | list[wire.Item]] = msgspec.json.Decoder(str | list[wire.Item])
_STRING: msgspec.json.Decoder[str] = msgspec.json.Decoder(str)


def messages_of(fields: dict[str, msgspec.Raw]) -> list[wire.Message] | None:
    """The conversation in `input`, with `instructions` at its head; None without an `input`."""
    given = optional(fields, "input", _INPUT)
    if given is None:
        return None
    if optional(fields, "previous_response_id", _STRING):
        raise invalid("previous_response_id", "answers are not kept here; send the whole conversation")
    items = [wire.Item(role="user", content=given)] if isinstance(given, str) else given
    instructions = optional(fields, "instructions", _STRING)
    head = [wire.Message(role="system", content=instructions)] if instructions else []
    return [*head, *(_message(item, f"input.{index}") for index, item in enumerate(items))]


def _message(item: wire.Item, path: str) -> wire.Message:
    match item.type:
        case None | "message":
            if item.role is None:
                raise invalid(f"{path}.role", "Field required")
            return wire.Message(role=item.role, content=item.content)
        case "function_call":
            called = wire.CalledFunction(_name(item, path), item.arguments)
            return _calling(wire.CalledTool(id=item.call_id, type="function", function=called))
        case "custom_tool_call":
            written = wire.CalledCustom(_name(item, path), item.input)
            return _calling(wire.CalledTool(id=item.call_id, type="custom", custom=written))
        case "function_call_output" | "custom_tool_call_output":
            return wire.Message(role="tool", content=item.output, tool_call_id=item.call_id)
        case "reasoning":
            content = item.content if isinstance(item.content, list) else []
            return wire.Message(role="assistant", content=[*(item.summary or ()), *content])
        case other:
            raise invalid(f"{path}.type", f"unsupported item type {shown(other)}")


def _name(item: wire.Item, path: str) -> str:
    if not item.name:
        raise invalid(f"{path}.name", "Field required")
    return item.name


def _calling(call: wire.CalledTool) -> wire.Message:
    return wire.Message(role="assistant", tool_calls=[call])
