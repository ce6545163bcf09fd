"""Answers of an endpoint, read as leniently as Claude Code reads them; what it cannot read raises `Failed`."""

from __future__ import annotations

import json
from typing import Any

from qiao.core.sse import Decoder
from qiao.doctor.replay.sheet import Failed, Talk, Unknown
from qiao.policies import refusal
from qiao.upstream.endpoint import Exchange

_BUSY = (429, 529)
_KINDS = ("text", "thinking", "redacted_thinking", "tool_use", "server_tool_use", "web_search_tool_result")


def said(exchange: Exchange) -> str:
    """The server's words in a refusal."""
    return refusal.cleaned(refusal.read(exchange.status, exchange.body).text)[:240] or "(no words)"


def accepted(talk: Talk, exchange: Exchange) -> Exchange:
    """The exchange, where it was answered with 200."""
    if exchange.failure is not None:
        raise Failed(f"no answer: {exchange.failure}")
    if exchange.status in _BUSY and b"cooldown" not in exchange.body:
        raise Unknown(f"the server is busy ({exchange.status}): {said(exchange)}")
    if exchange.status != 200:
        words = said(exchange)
        talk.errors.append(words)
        raise Failed(f"{exchange.status}: {words}")
    return exchange


def whole(talk: Talk, exchange: Exchange) -> dict[str, Any]:
    """A whole message; without usage Claude Code calls it malformed."""
    message = accepted(talk, exchange).json()
    if not isinstance(message, dict) or not isinstance(message.get("content"), list):
        raise Failed("the answer is no message")
    if not isinstance(message.get("usage"), dict):
        raise Failed("the answer has no usage: Claude Code calls it malformed")
    return message


def streamed(talk: Talk, exchange: Exchange) -> dict[str, Any]:
    """The message of a stream, as Claude Code puts it together."""
    accepted(talk, exchange)
    if not exchange.is_stream:
        kind = exchange.headers.get("content-type", "nothing")
        raise Failed(f"asked for a stream, and got {kind}")
    talk.longest_silence = max(talk.longest_silence, exchange.to_first, exchange.silence)
    reader = _Stream()
    decoder = Decoder()
    for event in decoder.feed(exchange.body):
        reader.take(event.name.decode("utf-8", "replace"), event.data.decode("utf-8", "replace"))
    talk.saw_ping = talk.saw_ping or reader.saw_ping
    return reader.message(was_left=exchange.was_left)


class _Stream:
    def __init__(self) -> None:
        self.saw_ping = False
        self._message: dict[str, Any] | None = None
        self._open: dict[int, dict[str, Any]] = {}
        self._blocks: list[dict[str, Any]] = []
        self._ended = False

    def take(self, name: str, data: str) -> None:
        if not name or name == "message":
            raise Failed("events without an `event:` line: Claude Code takes the stream for empty")
        self.saw_ping = self.saw_ping or name == "ping"
        try:
            value = json.loads(data)
        except ValueError:
            raise Failed(f"an event is no JSON: {data[:60]!r}") from None
        match name:
            case "message_start":
                self._message = dict(value.get("message") or {})
            case "content_block_start":
                self._start(value)
            case "content_block_delta":
                self._add(value)
            case "content_block_stop":
                self._stop(value)
            case "message_delta":
                self._delta(value)
            case "message_stop":
                self._ended = True
            case "error":
                raise Failed(f"an error in the stream: {(value.get('error') or {}).get('message', value)}")
            case _:
                pass  # Claude Code ignores unknown events

    def _start(self, value: dict[str, Any]) -> None:
        block = dict(value.get("content_block") or {})
        if self._message is None:
            raise Failed("a block before message_start")
        if block.get("type") not in _KINDS:
            raise Failed(f"a block of the unknown type {block.get('type')!r} ends Claude Code's turn")
        self._open[value.get("index", -1)] = {**block, "json": ""}

    def _add(self, value: dict[str, Any]) -> None:
        block = self._open.get(value.get("index", -1))
        if block is None:
            raise Failed("a delta for a block that is not open")
        delta = value.get("delta") or {}
        for field in ("text", "thinking"):
            if field in delta:
                block[field] = str(block.get(field) or "") + str(delta[field])
        block["json"] += str(delta.get("partial_json") or "")

    def _stop(self, value: dict[str, Any]) -> None:
        block = self._open.pop(value.get("index", -1), None)
        if block is None:
            raise Failed("a block ends that is not open")
        raw = block.pop("json")
        if block["type"] == "tool_use":
            try:
                block["input"] = json.loads(raw or "{}")
            except ValueError:
                raise Failed(f"a tool's input is no JSON: {raw[:80]!r}") from None
        self._blocks.append(block)

    def _delta(self, value: dict[str, Any]) -> None:
        if self._message is not None:
            self._message.update(value.get("delta") or {})
            self._message["usage_at_end"] = value.get("usage")

    def message(self, *, was_left: bool) -> dict[str, Any]:
        if self._message is None:
            raise Failed("the stream has no message_start")
        if was_left:
            return {**self._message, "content": [*self._blocks, *self._open.values()], "stop_reason": "left by us"}
        if self._open:
            raise Failed("a block was never closed: Claude Code loses it")
        if not self._ended:
            raise Failed("the stream ends without message_stop: Claude Code asks again")
        return {**self._message, "content": self._blocks}


def error_of(exchange: Exchange, status: int, kind: str) -> str:
    """The evidence that a refusal is shaped as Anthropic's: status, type and message."""
    if exchange.failure is not None:
        raise Failed(f"no answer: {exchange.failure}")
    body = exchange.json()
    error = body.get("error") if isinstance(body, dict) else None
    if exchange.status != status:
        raise Failed(f"{exchange.status} instead of {status}: {said(exchange)}")
    if not isinstance(body, dict) or body.get("type") != "error" or not isinstance(error, dict):
        raise Failed(f"{status}, but not in Anthropic's shape: {exchange.body[:120].decode('utf-8', 'replace')}")
    if error.get("type") != kind:
        raise Failed(f"{status} with the type {error.get('type')!r} instead of {kind!r}")
    return f"{status} {kind}: {str(error.get('message'))[:100]}"


def text_of(message: dict[str, Any]) -> str:
    """The visible text of a message."""
    return "".join(str(block.get("text") or "") for block in message["content"] if block.get("type") == "text")


def calls_of(message: dict[str, Any]) -> list[dict[str, Any]]:
    """Its tool calls."""
    return [block for block in message["content"] if block.get("type") == "tool_use"]


def kinds_of(message: dict[str, Any]) -> str:
    """Its blocks and how it ended, in a few words."""
    blocks = ", ".join(str(block.get("type")) for block in message["content"]) or "no block"
    return f"{blocks}; {message.get('stop_reason')}"
