"""Neutral events → OpenAI's server-sent chunks, in the order in which vLLM sends them.

The role, then deltas of reasoning, content and tool calls as they come (a call's id and name first, then its
arguments), then a chunk with the finish reason, the usage if it was asked for, and `[DONE]`. A failure is one error
object and `[DONE]`, without a finish reason. The input is a sequenced stream (`core.sequence`), so calls never mix.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, assert_never

import msgspec

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
from qiao.core.openai.answer import Frame, call_object, finish_fields, usage_object
from qiao.core.openai.errors import error_object
from qiao.core.sequence import as_text

PING = b": ping\n\n"
"""A comment: every reader of server-sent events skips it."""

_DONE = b"data: [DONE]\n\n"

_encode = msgspec.json.encode


class Encoder:
    """encode(events) → bytes. After a Finished or Failed the stream is over and nothing more comes out.

    What repeats in every chunk is written once; the hot path puts the JSON of one string between two constants.
    """

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._usage: Usage | None = None
        self._is_started = False
        self._is_over = False
        self._calls = 0
        self._characters = 0
        self._held: ToolCallStarted | None = None
        self._pieces: list[str] = []
        head = {
            "id": frame.completion_id,
            "object": "chat.completion.chunk",
            "created": frame.created,
            "model": frame.model,
        }
        self._head = b"data: " + encode_json(head)[:-1] + b","
        self._delta = self._head + b'"choices":[{"index":0,"delta":{'
        self._content = self._delta + b'"content":'
        self._tail = b'},"finish_reason":null}]}\n\n'

    @property
    def is_over(self) -> bool:
        return self._is_over

    def encode(self, events: Sequence[Event]) -> bytes:
        out: list[bytes] = []
        for event in events:
            if self._is_over:
                break
            if type(event) is TextAdded and self._is_started:
                self._characters += len(event.text)
                out += (self._content, _json(event.text), self._tail)
            else:
                self._event(event, out)
        return b"".join(out)

    def add_text(self, text: str) -> bytes:
        """As encode([TextAdded(text)])."""
        return self.encode((TextAdded(text),))

    def _event(self, event: Event, out: list[bytes]) -> None:
        if isinstance(event, Failed):
            out += (b"data: ", encode_json({"error": error_object(event.fault)}), b"\n\n", _DONE)
            self._is_over = True
            return
        if not self._is_started:
            self._is_started = True
            out += (self._delta, b'"role":"assistant","content":""', self._tail)
        match event:
            case UsageSeen():
                self._usage = event.usage
            case TextAdded():
                self._characters += len(event.text)
                out += (self._content, _json(event.text), self._tail)
            case ReasoningAdded():
                self._characters += len(event.text)
                if self._frame.show_reasoning:
                    text = _json(event.text)
                    out += (self._delta, b'"reasoning_content":', text, b',"reasoning":', text, self._tail)
            case ToolCallStarted():
                if event.name in self._frame.free_text:
                    self._held = event
                else:
                    self._start_call(event, "", out)
            case ToolArgumentsAdded():
                self._characters += len(event.text)
                if self._held is not None:
                    self._pieces.append(event.text)
                    return
                call_head = b'"tool_calls":[{"index":%d,"function":{"arguments":' % (self._calls - 1)
                out += (self._delta, call_head, _json(event.text), b"}}]", self._tail)
            case ToolCallEnded():
                if self._held is not None:
                    self._end_held(self._held, event, out)
            case Finished():
                self._finish(event, out)
            case _:
                assert_never(event)

    def _start_call(self, event: ToolCallStarted, arguments: str, out: list[bytes]) -> None:
        call = {"index": self._calls, **call_object(event.id, event.name, arguments, self._frame)}
        self._calls += 1
        out += (self._delta, b'"tool_calls":[', encode_json(call), b"]", self._tail)

    def _end_held(self, started: ToolCallStarted, ended: ToolCallEnded, out: list[bytes]) -> None:
        """The text of a call is inside its JSON, so that it goes out when the JSON is complete; a call that was cut
        goes out as the words that it was, as in a whole answer."""
        arguments = "".join(self._pieces)
        self._held = None
        self._pieces.clear()
        if ended.complete:
            self._start_call(started, arguments, out)
        else:
            words = ended.raw or as_text(started.name, arguments, closed=False)
            out += (self._content, _json(words), self._tail)

    def _finish(self, event: Finished, out: list[bytes]) -> None:
        choice: dict[str, Any] = {"index": 0, "delta": {}, **finish_fields(event)}
        out += (self._head, b'"choices":[', encode_json(choice), b"]}\n\n")
        if self._frame.usage_in_stream:
            usage = usage_object(self._usage, self._frame, output_estimate=-(-self._characters // 4))
            out += (self._head, b'"choices":[],"usage":', encode_json(usage), b"}\n\n")
        out.append(_DONE)
        self._is_over = True


def _json(text: str) -> bytes:
    try:
        return _encode(text)
    except UnicodeEncodeError:
        return encode_json(text)
