"""The strict judge of streams that we emit. Official clients accept broken streams, so they cannot be it.

`Checker.feed(bytes)` raises `GrammarError` at the first event that may not stand where it stands; `close()` at the
end of the bytes raises if the stream is not complete. `ping` may stand anywhere before the end.
"""

from __future__ import annotations

import json
from typing import Any

from qiao.core.sse import Decoder

_STOP_REASONS = frozenset(
    {
        "end_turn",
        "max_tokens",
        "stop_sequence",
        "tool_use",
        "pause_turn",
        "refusal",
        "model_context_window_exceeded",
    }
)
_ERROR_TYPES = frozenset(
    {
        "invalid_request_error", "authentication_error", "billing_error", "permission_error", "not_found_error",
        "request_too_large", "rate_limit_error", "timeout_error", "api_error", "overloaded_error", "conflict_error",
    }
)  # fmt: skip
_DELTA_OF_BLOCK = {
    "text": {"text_delta"},
    "thinking": {"thinking_delta", "signature_delta"},
    "tool_use": {"input_json_delta"},
}
_DELTA_FIELD = {
    "text_delta": "text",
    "thinking_delta": "thinking",
    "signature_delta": "signature",
    "input_json_delta": "partial_json",
}
_START_FIELDS: dict[str, dict[str, Any]] = {
    "text": {"text": ""},
    "thinking": {"thinking": "", "signature": ""},
    "tool_use": {"input": {}},
}


class GrammarError(Exception):
    """The stream breaks a rule; the message names the rule and the event's number."""


class Checker:
    """Checks one stream and rebuilds the message, so that it can be compared with the folded answer.

    `exact_usage`: message_start and message_delta must name the same input total. Engines that tell their usage only at
    the end make that impossible; for them it is False.
    """

    def __init__(self, *, exact_usage: bool = True) -> None:
        self._exact_usage = exact_usage
        self._sse = Decoder()
        self._count = 0
        self._state = "before"
        self._next_index = 0
        self._open: dict[str, Any] | None = None
        self._partial = ""
        self._signed = False
        self._was_cut = False
        self._total = 0
        self.message: dict[str, Any] = {}
        self.error: dict[str, Any] | None = None

    def feed(self, data: bytes) -> None:
        for event in self._sse.feed(data):
            self._count += 1
            try:
                value = json.loads(event.data)
            except ValueError as error:
                raise self._broken(f"data is not JSON: {event.data[:100]!r}") from error
            self._require(isinstance(value, dict), "data is an object")
            self._require(event.name.decode() == value.get("type"), "the event's name equals data.type")
            self._event(value)

    def close(self) -> None:
        self._require(not self._sse.has_partial, "no bytes are left after the last event")
        self._require(self._state == "over", "the stream ends with message_stop or error")

    def _event(self, value: dict[str, Any]) -> None:
        kind = value["type"]
        self._require(self._state != "over", "nothing follows the end")
        match kind:
            case "ping":
                self._require(value == {"type": "ping"}, "a ping carries nothing")
            case "error":
                self._error(value)
            case "message_start":
                self._require(self._state == "before", "message_start comes first and once")
                self._message_start(value["message"])
            case "content_block_start":
                self._require(self._state == "content" and self._open is None, "one block is open at a time")
                self._block_start(value)
            case "content_block_delta":
                self._require(self._open is not None, "a delta needs an open block")
                self._delta(value)
            case "content_block_stop":
                self._require(self._open is not None, "a stop needs an open block")
                self._block_stop(value)
            case "message_delta":
                self._require(self._state == "content" and self._open is None, "message_delta after all blocks")
                self._message_delta(value)
            case "message_stop":
                self._require(self._state == "delta", "message_stop follows message_delta")
                self._require(value == {"type": "message_stop"}, "message_stop carries nothing")
                self._state = "over"
            case _:
                raise self._broken(f"unknown event {kind!r}")

    def _error(self, value: dict[str, Any]) -> None:
        error = value.get("error")
        self._require(isinstance(error, dict), "error has an error object")
        self.error = dict(error or {})
        self._require(self.error.get("type") in _ERROR_TYPES, "error.type is one of Anthropic's")
        self._require(
            isinstance(self.error.get("message"), str) and self.error["message"] != "",
            "error.message says something",
        )
        self._state = "over"

    def _message_start(self, message: dict[str, Any]) -> None:
        for key in ("id", "type", "role", "model", "content", "stop_reason", "stop_sequence", "usage"):
            self._require(key in message, f"message_start.message has {key}")
        self._require(message["content"] == [] and message["stop_reason"] is None, "message_start is empty")
        self._require(message["role"] == "assistant" and message["type"] == "message", "it is an assistant message")
        self._total = self._usage(message["usage"])
        self.message = {**message, "content": []}
        self._state = "content"

    def _usage(self, usage: Any) -> int:
        self._require(isinstance(usage, dict), "usage is an object")
        total = 0
        for key in (
            "input_tokens",
            "cache_creation_input_tokens",
            "cache_read_input_tokens",
            "output_tokens",
        ):
            count = usage.get(key)
            self._require(isinstance(count, int) and count >= 0, f"usage.{key} is a count")
            total += count if key != "output_tokens" else 0
        return total

    def _block_start(self, value: dict[str, Any]) -> None:
        self._require(value.get("index") == self._next_index, "indexes count 0, 1, 2 …")
        block = value["content_block"]
        self._require(block.get("type") in _DELTA_OF_BLOCK, "a block type that clients know")
        for key, empty in _START_FIELDS[block["type"]].items():
            self._require(block.get(key) == empty, f"a {block['type']} block starts with an empty {key}")
        if block["type"] == "tool_use":
            self._require(isinstance(block.get("id"), str) and block["id"] != "", "a tool_use has an id")
            self._require(isinstance(block.get("name"), str) and block["name"] != "", "a tool_use has a name")
        self._open = dict(block)
        self._partial = ""
        self._signed = False

    def _delta(self, value: dict[str, Any]) -> None:
        block = self._open or {}
        self._require(value.get("index") == self._next_index, "a delta belongs to the open block")
        delta = value["delta"]
        kind = delta.get("type")
        self._require(kind in _DELTA_OF_BLOCK[block["type"]], "the delta fits its block")
        field = _DELTA_FIELD[kind]
        text = delta.get(field)
        self._require(isinstance(text, str) and text != "", f"{kind} carries text")
        self._require(not self._signed, "nothing follows a signature")
        if kind == "input_json_delta":
            self._partial += text
        else:
            block[field] += text
            self._signed = kind == "signature_delta"

    def _block_stop(self, value: dict[str, Any]) -> None:
        self._require(value.get("index") == self._next_index, "the stop belongs to the open block")
        block = self._open or {}
        if block["type"] == "tool_use":
            try:
                block["input"] = json.loads(self._partial or "{}")
            except ValueError:
                self._was_cut = True
            self._require(isinstance(block["input"], dict), "tool input is an object")
        elif block["type"] == "thinking":
            self._require(self._signed, "a thinking block is signed")
        else:
            self._require(block["text"].strip() != "", "no text block is empty")
        self.message["content"].append(block)
        self._open = None
        self._next_index += 1

    def _message_delta(self, value: dict[str, Any]) -> None:
        delta = value["delta"]
        for key in ("stop_reason", "stop_sequence"):
            self._require(key in delta, f"message_delta.delta has {key}")
        reason = delta["stop_reason"]
        self._require(reason in _STOP_REASONS, "a stop reason that clients know")
        self._require(
            (delta["stop_sequence"] is not None) == (reason == "stop_sequence"),
            "stop_sequence iff it stopped",
        )
        calls = any(block["type"] == "tool_use" for block in self.message["content"])
        self._require(reason != "tool_use" or calls, "tool_use needs a tool_use block")
        self._require(not (calls and reason == "end_turn"), "calls end with tool_use")
        # A call that the token limit cut is the one thing that may stay incomplete, as with the real API.
        self._require(not self._was_cut or reason not in ("end_turn", "tool_use"), "tool input is JSON")
        total = self._usage(value["usage"])
        self._require(
            total == self._total or not self._exact_usage,
            f"input usage agrees with message_start ({total} != {self._total})",
        )
        self.message.update(delta)
        self.message["usage"] = value["usage"]
        self._state = "delta"

    def _require(self, condition: bool, rule: str) -> None:
        if not condition:
            raise self._broken(rule)

    def _broken(self, rule: str) -> GrammarError:
        return GrammarError(f"event {self._count}: {rule}")


def check(data: bytes, *, exact_usage: bool = True) -> dict[str, Any]:
    """Check a complete stream; return the message that a client would have built. Raises `GrammarError`."""
    checker = Checker(exact_usage=exact_usage)
    checker.feed(data)
    checker.close()
    return checker.message
