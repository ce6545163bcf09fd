"""Neutral events → Anthropic's server-sent events, in the canonical order.

message_start, then each block as start / deltas / stop with indexes 0, 1, 2 … and one block open at a time, then
message_delta and message_stop; a failure is one `error` event instead. Blocks are opened by their first content, so
no empty block is ever sent. The input is a sequenced stream (`core.sequence`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, assert_never

import msgspec

from qiao.core.anthropic.answer import Frame, stop_fields, usage_object
from qiao.core.anthropic.errors import error_object
from qiao.core.anthropic.ids import to_client
from qiao.core.anthropic.signature import seal
from qiao.core.events import (
    Event,
    Failed,
    Finished,
    ReasoningAdded,
    TextAdded,
    ToolArgumentsAdded,
    ToolCallEnded,
    ToolCallStarted,
    Usage,
    UsageSeen,
)
from qiao.core.json_text import encode_json

PING = b'event: ping\ndata: {"type": "ping"}\n\n'

_encode = msgspec.json.encode


def _delta(kind: str, field: str) -> bytes:
    """A content_block_delta with gaps for the index and the JSON of one string; the hot path only fills them."""
    data = f'{{"type":"content_block_delta","index":%d,"delta":{{"type":"{kind}","{field}":%b}}}}'
    return f"event: content_block_delta\ndata: {data}\n\n".encode()


_TEXT_HEAD, _, _TEXT_END = _delta("text_delta", "text").partition(b"%b")
_THINKING_DELTA = _delta("thinking_delta", "thinking")
_INPUT_DELTA = _delta("input_json_delta", "partial_json")
_SIGNATURE = _delta("signature_delta", "signature")
_BLOCK_START = b'event: content_block_start\ndata: {"type":"content_block_start","index":%d,"content_block":%b}\n\n'
_BLOCK_STOP = b'event: content_block_stop\ndata: {"type":"content_block_stop","index":%d}\n\n'


class Encoder:
    """encode(events) → bytes. After a Finished or Failed the stream is over and nothing more comes out."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._beginning = _message_start(frame)
        self._usage: Usage | None = None
        self._is_started = False
        self._is_over = False
        self._index = -1
        self._open: Literal["text", "thinking", "tool"] | None = None
        self._text_head = b""
        self._sealed: list[str] = []
        self._characters = 0

    @property
    def is_over(self) -> bool:
        return self._is_over

    @property
    def has_started(self) -> bool:
        """`message_start` was written."""
        return self._is_started

    def encode(self, events: Sequence[Event]) -> bytes:
        out: list[bytes] = []
        for event in events:
            if self._is_over:
                break
            if self._open == "text" and type(event) is TextAdded:
                out.append(self.add_text(event.text))
            elif self._is_started and type(event) is UsageSeen:
                self._usage = event.usage
            else:
                self._event(event, out)
        return out[0] if len(out) == 1 else b"".join(out)

    def add_text(self, text: str) -> bytes:
        """As encode([TextAdded(text)]), for the piece that comes most often."""
        if self._open != "text" or self._is_over:
            return self.encode((TextAdded(text),))
        self._characters += len(text)
        return self._text_head + _json(text) + _TEXT_END

    def _event(self, event: Event, out: list[bytes]) -> None:
        if isinstance(event, UsageSeen):
            self._usage = event.usage
            self._start(out)
            return
        if isinstance(event, Failed):
            self._fail(event, out)
            return
        if not self._is_started:
            self._start(out)
        if self._frame.warm_only and not isinstance(event, Finished):
            return
        match event:
            case TextAdded():
                if self._open != "text":
                    self._open_block("text", b'{"type":"text","text":""}', out)
                    self._text_head = _TEXT_HEAD % self._index
                out.append(self.add_text(event.text))
            case ReasoningAdded():
                self._reasoning(event, out)
            case ToolCallStarted():
                block = {"type": "tool_use", "id": to_client(event.id), "name": event.name, "input": {}}
                self._open_block("tool", encode_json(block), out)
            case ToolArgumentsAdded():
                self._characters += len(event.text)
                out.append(_INPUT_DELTA % (self._index, _json(event.text)))
            case ToolCallEnded():
                self._close_block(out)
            case Finished():
                self._finish(event, out)
            case _:
                assert_never(event)

    def _start(self, out: list[bytes]) -> None:
        self._is_started = True
        usage = usage_object(self._usage, self._frame)
        usage["output_tokens"] = 0
        out.append(self._beginning + encode_json(usage) + b"}}\n\n")

    def _reasoning(self, event: ReasoningAdded, out: list[bytes]) -> None:
        self._characters += len(event.text)
        if self._open != "thinking":
            self._open_block("thinking", b'{"type":"thinking","thinking":"","signature":""}', out)
        if self._frame.show_thinking:
            out.append(_THINKING_DELTA % (self._index, _json(event.text)))
        else:
            self._sealed.append(event.text)

    def _open_block(self, kind: Literal["text", "thinking", "tool"], block: bytes, out: list[bytes]) -> None:
        if self._open is not None:
            self._close_block(out)
        self._index += 1
        self._open = kind
        out.append(_BLOCK_START % (self._index, block))

    def _close_block(self, out: list[bytes]) -> None:
        if self._open is None:
            return
        if self._open == "thinking":
            out.append(_SIGNATURE % (self._index, _json(seal("".join(self._sealed)))))
            self._sealed.clear()
        self._open = None
        out.append(_BLOCK_STOP % self._index)

    def _finish(self, event: Finished, out: list[bytes]) -> None:
        self._close_block(out)
        if self._frame.warm_only:
            event = Finished("length")
        delta = {
            "type": "message_delta",
            "delta": {**stop_fields(event), "container": None},
            "usage": usage_object(self._usage, self._frame, output_estimate=-(-self._characters // 4)),
        }
        if self._frame.applied_edits is not None:
            delta["context_management"] = {"applied_edits": list(self._frame.applied_edits)}
        out.append(_event_bytes("message_delta", delta))
        out.append(b'event: message_stop\ndata: {"type":"message_stop"}\n\n')
        self._is_over = True

    def _fail(self, event: Failed, out: list[bytes]) -> None:
        """The blocks that are open stay open: a closed block would pass for a complete one."""
        out.append(_event_bytes("error", {"type": "error", "error": error_object(event.fault)}))
        self._is_over = True


def _message_start(frame: Frame) -> bytes:
    """The event up to its usage, which the engine's first words tell. They must not wait for the rest to be made."""
    message: dict[str, Any] = {
        "id": frame.message_id,
        "type": "message",
        "role": "assistant",
        "model": frame.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "stop_details": None,
        "container": None,
        "diagnostics": None,
    }
    written = encode_json({"type": "message_start", "message": message})
    return b"event: message_start\ndata: " + written.removesuffix(b"}}") + b',"usage":'


def _json(text: str) -> bytes:
    try:
        return _encode(text)
    except UnicodeEncodeError:
        return encode_json(text)


def _event_bytes(name: str, value: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), encode_json(value))
