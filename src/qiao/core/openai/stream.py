"""Chat-completion answers, streamed or whole, → neutral events.

Read from vLLM 0.32 on the wire (chunk order, usage in the last chunk after the finish, an error object followed by
`[DONE]` when the engine dies); SGLang, llama.cpp and DeepSeek name the reasoning `reasoning_content`, SGLang the
matched stop string `matched_stop`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from qiao.core.events import (
    Event,
    Failed,
    Finished,
    FinishReason,
    ReasoningAdded,
    TextAdded,
    ToolArgumentsAdded,
    ToolCallStarted,
    Usage,
    UsageSeen,
    Words,
)
from qiao.core.fault import Fault
from qiao.core.openai import chunk as wire
from qiao.core.openai.recurring import Pattern, pattern_of
from qiao.core.sse import Decoder as SseDecoder

_TRIES = 8
"""Patterns in a row that may turn out to hold for no second chunk; an engine may write each chunk another way."""

_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}


class Decoder:
    """feed(bytes) → events; close() → the end. Server-sent events, or one JSON body if `whole`.

    An engine may answer whole what was asked for as a stream: `whole` may be set until the first byte came.

    `Finished` is held until the bytes end, `[DONE]`, or the usage that follows it has come, so that usage always
    precedes it. Raises nothing: garbage becomes a `Failed` event.
    """

    def __init__(self, *, whole: bool = False) -> None:
        self._sse = SseDecoder()
        self.whole = whole
        self._body: list[bytes] = []
        self._calls: dict[int, _OpenCall] = {}
        self._latest = -1
        self._finished: Finished | None = None
        self._is_over = False
        self._before: tuple[bytes, Words] | None = None
        self._pattern: Pattern | None = None
        self._kind: Callable[[str], Words] = TextAdded
        self._tries = _TRIES
        self._counts: wire.Usage | None = None

    @property
    def untold(self) -> Usage | None:
        """Counts that came with words and that no event has told yet; the next `feed` or `close` tells them first."""
        return None if self._counts is None else _usage(self._counts, None)

    @property
    def is_over(self) -> bool:
        """A `Finished` or `Failed` was yielded; later bytes are ignored."""
        return self._is_over

    def feed(self, data: bytes) -> list[Event]:
        out: list[Event] = []
        if self._is_over:
            return out
        if self.whole:
            self._body.append(data)
            return out
        self._tell(out)
        told = len(out)
        try:
            events = self._sse.feed(data)
        except Fault as fault:
            return self._fail(fault, out)
        for event in events:
            if event.data == b"[DONE]":
                self._done(out)
            else:
                self._chunk(event.data, out)
        words = _only_words(out[told:]) if len(events) == 1 and self._tries else None
        self._before = None if words is None else (data, words)
        return out

    def close(self) -> list[Event]:
        """The upstream's bytes ended."""
        out: list[Event] = []
        self._tell(out)
        if self.whole:
            self._chunk(b"".join(self._body), out)
        else:
            for event in self._sse.close():
                self._chunk(event.data, out)
        self._done(out)
        return out

    # -- chunks like the one before ---------------------------------------------------------------------------------

    def more(self, data: bytes) -> Words | None:
        """What `data` adds, if all else in it is as in the chunk before; None: feed it. Its counts are told later."""
        pattern = self._pattern
        if pattern is None and (pattern := self._learned()) is None:
            return None
        read = pattern.read(data)
        if read is None or not read[0] or self._is_over:
            self._pattern = None
            return None
        text, self._counts = read
        if self._pattern is None:
            self._pattern, self._tries = pattern, _TRIES
        kind = self._kind
        return TextAdded(text) if kind is TextAdded else kind(text)

    def _learned(self) -> Pattern | None:
        """The pattern of the chunk before. Only now: the first word does not wait for it."""
        if self._before is None:
            return None
        data, words = self._before
        self._before = None
        self._tries -= 1
        if isinstance(words, ToolArgumentsAdded):
            self._kind = partial(ToolArgumentsAdded, words.index)
        else:
            self._kind = type(words)
        return pattern_of(data, words)

    def _tell(self, out: list[Event]) -> None:
        if self._counts is not None:
            out.append(UsageSeen(_usage(self._counts, None)))
            self._counts = None

    # -- one chunk --------------------------------------------------------------------------------------------------

    def _done(self, out: list[Event]) -> None:
        if self._is_over:
            return
        self._start_calls(out)
        if self._finished is None:
            self._fail(Fault("api", "the engine ended its answer without a finish reason", party="upstream"), out)
            return
        out.append(self._finished)
        self._is_over = True

    def _fail(self, fault: Fault, out: list[Event]) -> list[Event]:
        out.append(Failed(fault))
        self._is_over = True
        return out

    def _chunk(self, data: bytes, out: list[Event]) -> None:
        if self._is_over:
            return
        try:
            chunk = wire.decode(data)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            lenient = _decode_leniently(data)
            if lenient is None:
                self._fail(
                    Fault(
                        "api",
                        f"the engine sent something that is no chat-completion chunk: {error}",
                        party="upstream",
                    ),
                    out,
                )
                return
            chunk = lenient
        if chunk.error or (not chunk.choices and chunk.usage is None and (chunk.detail or chunk.object == "error")):
            self._fail(_engine_fault(chunk), out)
            return
        choices = chunk.choices
        usage = None if chunk.usage is None else _usage(chunk.usage, chunk.timings)
        if usage is not None and not choices:
            out.append(UsageSeen(usage))
            return
        if choices:
            choice = choices[0]
            delta = choice.delta or choice.message
            if usage is not None:
                out.append(UsageSeen(usage))
            if delta is not None:
                self._delta(delta, out)
            if choice.finish_reason is not None:
                self._finish(choice, out)

    def _delta(self, delta: wire.Delta, out: list[Event]) -> None:
        reasoning = delta.reasoning or delta.reasoning_content
        if reasoning:
            out.append(ReasoningAdded(reasoning))
        content = delta.content
        if content:
            if isinstance(content, str):
                out.append(TextAdded(content))
            else:
                out.extend(TextAdded(part.text) for part in content if part.text)
        if delta.refusal:
            out.append(TextAdded(delta.refusal))
        if delta.tool_calls:
            for call in delta.tool_calls:
                self._tool_call(call, out)
        if delta.function_call is not None:
            self._tool_call(wire.ToolCall(0, None, delta.function_call), out)

    def _tool_call(self, call: wire.ToolCall, out: list[Event]) -> None:
        index = call.index
        if index is None:
            index = self._latest + 1 if call.id or call.function is None or call.function.name else max(self._latest, 0)
        open_call = self._calls.get(index)
        if open_call is not None and call.id and open_call.id and call.id != open_call.id and open_call.is_started:
            # Some engines number every call 0; a new id with a name is a new call all the same.
            index = max(self._calls) + 1
            open_call = None
        if open_call is None:
            self._start_calls(out)
            open_call = self._calls[index] = _OpenCall()
            self._latest = index
        if call.id and not open_call.id:
            open_call.id = call.id
        function = call.function
        if function is None:
            return
        if function.name and not open_call.is_started and function.name != open_call.name:
            open_call.name += function.name
        arguments = function.arguments
        if arguments is None:
            return
        if not open_call.is_started and open_call.name:
            open_call.is_started = True
            out.append(ToolCallStarted(index, open_call.id, open_call.name))
        text = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()
        if not open_call.is_started:
            open_call.early += text
        elif open_call.early or text:
            out.append(ToolArgumentsAdded(index, open_call.early + text))
            open_call.early = ""

    def _start_calls(self, out: list[Event]) -> None:
        """Calls whose name has come but no arguments: there will be none. Without a name it is no call, but words."""
        for index, call in self._calls.items():
            if call.is_started:
                continue
            call.is_started = True
            if call.name:
                out.append(ToolCallStarted(index, call.id, call.name))
            if call.early:
                out.append(ToolArgumentsAdded(index, call.early) if call.name else TextAdded(call.early))
                call.early = ""

    def _finish(self, choice: wire.Choice, out: list[Event]) -> None:
        self._start_calls(out)
        reason = choice.finish_reason or ""
        matched = choice.stop_reason if isinstance(choice.stop_reason, str) else choice.matched_stop
        if reason in ("abort", "error"):
            self._fail(Fault("api", f"the engine gave up on its answer ({reason})", party="upstream"), out)
        elif isinstance(matched, str) and reason in ("stop", "tool_calls"):
            # The tail of a call that a stop string cut must not pass for a complete call, hence never "tool_calls".
            self._finished = Finished("stop_sequence", matched)
        else:
            self._finished = Finished(_REASONS.get(reason, "stop"))


def _only_words(events: list[Event]) -> Words | None:
    """The last of `events`, if it is words and the others are counts: the next chunk may be like this one."""
    if not events or not isinstance(words := events[-1], Words):
        return None
    return words if all(type(event) is UsageSeen for event in events[:-1]) else None


class _OpenCall:
    __slots__ = ("early", "id", "is_started", "name")

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.early = ""
        self.is_started = False


def _cached(counted: wire.Usage, timings: wire.Timings | None) -> int:
    """Tokens of the prompt that the engine did not have to compute, under the name that it has for them."""
    details = counted.prompt_tokens_details
    counts = (
        details.cached_tokens if details is not None else None,  # OpenAI, vLLM, SGLang, newer llama.cpp
        counted.prompt_cache_hit_tokens,  # DeepSeek
        counted.cached_tokens,  # Moonshot
        counted.num_cached_tokens,  # Mistral
        counted.cache_read_input_tokens,  # gateways that speak both protocols
        timings.cache_n if timings is not None else None,  # llama.cpp
    )
    most = 0
    for count in counts:
        if count is not None and count > most:
            most = count
    return most


def _usage(counted: wire.Usage, timings: wire.Timings | None) -> Usage:
    details = counted.prompt_tokens_details
    created = 0
    if details is not None:
        created = details.created_cache_tokens or details.cache_write_tokens or 0
    reasoning = counted.reasoning_tokens
    if counted.completion_tokens_details is not None:
        reasoning = counted.completion_tokens_details.reasoning_tokens
    return Usage(
        prompt=counted.prompt_tokens,
        completion=counted.completion_tokens,
        cached=_cached(counted, timings),
        created=created,
        reasoning=reasoning,
    )


def _engine_fault(chunk: wire.Chunk) -> Fault:
    error = chunk.error
    message, status = "", None
    if isinstance(error, dict):
        message = str(error.get("message") or error.get("type") or "")
        code = error.get("code")
        status = code if isinstance(code, int) else None
    elif error:
        message = str(error)
    message = message or chunk.message or str(chunk.detail or "") or "unknown error"
    overloaded = status in (503, 529) or "overloaded" in message.lower()
    return Fault(
        "overloaded" if overloaded else "api",
        f"the engine failed while it was answering: {message[:2000]}",
        party="upstream",
        upstream_status=status,
    )


def _decode_leniently(data: bytes) -> wire.Chunk | None:
    """For JSON that the strict reader refuses (half surrogates, wrong types in fields that do not matter)."""
    try:
        loose = json.loads(data.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(loose, dict):
        return None
    try:
        return msgspec.convert(_without_half_surrogates(loose), wire.Chunk, strict=False)
    except (msgspec.ValidationError, RecursionError, UnicodeError):
        return None


def _without_half_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_without_half_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {key: _without_half_surrogates(item) for key, item in value.items()}
    return value
