"""Chunks that repeat the one before but for a piece of text and the counts, as nearly all of a stream do.

All else in such a chunk is byte for byte what has been decoded before, and means the same: only its two gaps are read.
That costs less than decoding all of it again, and nobody notices but the processor (docs/performance.md). A pattern is
believed only after the gaps, filled otherwise, were seen to decode to those other fillings and nothing else.
"""

from __future__ import annotations

import re

import msgspec

from qiao.core.events import ReasoningAdded, TextAdded, ToolArgumentsAdded, Words
from qiao.core.openai import chunk as wire

LONGEST = 4096
"""Bytes of a chunk from which a pattern is taken."""

_START, _END = b"data: ", b"\n\n"
_TEXT = re.compile(rb'"(?:content|reasoning|reasoning_content|arguments)"\s*:\s*("(?:[^"\\]|\\.)*")')
_COUNTS = re.compile(rb'"usage"\s*:\s*(\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\})')
_OTHER_TEXT, _OTHER_COUNTS = "other words", wire.Usage(prompt_tokens=7, completion_tokens=7_000_007)
_BAD = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_decode_text = msgspec.json.Decoder(str).decode
_decode_counts = msgspec.json.Decoder(wire.Usage).decode


class Pattern(msgspec.Struct, frozen=True, gc=False):
    """One event of a stream around its gaps.

    `head`: up to the text, its quote included; `middle`: from the quote behind it up to the counts, or to the event's
    end; `tail`: from behind the counts to the event's end, empty where there are none.
    """

    head: bytes
    middle: bytes
    tail: bytes

    def read(self, data: bytes) -> tuple[str, wire.Usage | None] | None:
        """The fillings of `data`, if it is one event of this pattern; None: it has to be decoded."""
        head, middle = self.head, self.middle
        if not data.startswith(head):
            return None
        begin = len(head) - 1
        # A quote inside the text has a backslash before it: at the first place that is not the text's end, the text
        # is no whole string.
        end = data.find(middle, begin + 1)
        if end < 0:
            return None
        behind = end + len(middle)
        try:
            text = _decode_text(data[begin : end + 1])
            if not self.tail:
                return (text, None) if behind == len(data) else None
            if not data.endswith(self.tail):
                return None
            counts = data[behind : -len(self.tail)]
            # White space to JSON, the end of a line to server-sent events.
            if b"\n" in counts or b"\r" in counts:
                return None
            return text, _decode_counts(counts)
        except _BAD:
            return None


def pattern_of(data: bytes, words: Words) -> Pattern | None:
    """The pattern of `data`, one whole event that added `words` and nothing else but counts."""
    if len(data) > LONGEST or not data.startswith(_START) or not data.endswith(_END):
        return None
    try:
        chunk = wire.decode(data[len(_START) : -len(_END)])
    except _BAD:
        return None
    # llama.cpp tells cached tokens beside the counts; its chunks differ in their times as well.
    if chunk.timings is not None:
        return None
    for gap in _TEXT.finditer(data):
        head, rest = data[: gap.start(1) + 1], data[gap.end(1) - 1 :]
        counts = _COUNTS.search(rest)
        if counts is None:
            pattern = Pattern(head, rest, b"")
        else:
            pattern = Pattern(head, rest[: counts.start(1)], rest[counts.end(1) :])
        if _is_right(pattern, chunk, words):
            return pattern
    return None


def _is_right(pattern: Pattern, chunk: wire.Chunk, words: Words) -> bool:
    """Whether other fillings decode to `chunk` with those fillings."""
    filled = pattern.head[:-1] + msgspec.json.encode(_OTHER_TEXT) + pattern.middle[1:]
    if pattern.tail:
        filled += msgspec.json.encode(_OTHER_COUNTS) + pattern.tail
    try:
        other = wire.decode(filled[len(_START) : -len(_END)])
    except _BAD:
        return False
    if _exchanged(other, type(words), words.text) != _OTHER_TEXT:
        return False
    if pattern.tail:
        if other.usage != _OTHER_COUNTS:
            return False
        other.usage = chunk.usage
    return other == chunk


def _exchanged(chunk: wire.Chunk, kind: type[Words], text: str) -> str | None:
    """Put `text` where the words of that kind are in `chunk`; returns those that were there. None: not such a chunk."""
    choice = chunk.choices[0] if chunk.choices else None
    delta = None if choice is None else choice.delta or choice.message
    if choice is None or delta is None or choice.finish_reason is not None or delta.function_call is not None:
        return None
    if delta.tool_calls and kind is not ToolArgumentsAdded:
        return None  # part of a call that has no name yet, or a call without arguments: no event tells of it
    place: wire.Delta | wire.Function
    if kind is TextAdded:
        place, name = delta, "content"
    elif kind is ReasoningAdded:
        place, name = delta, "reasoning" if delta.reasoning else "reasoning_content"
    else:
        call = delta.tool_calls[0] if delta.tool_calls and len(delta.tool_calls) == 1 else None
        # An id or a name may begin a call.
        if call is None or call.id or call.function is None or call.function.name:
            return None
        place, name = call.function, "arguments"
    there = getattr(place, name)
    setattr(place, name, text)
    return there if isinstance(there, str) else None
