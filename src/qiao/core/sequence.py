"""One open block at a time, and only what is fit to be sent.

Engines may interleave: text while a call's arguments are still coming, two calls at once, arguments that are no
object, white space that belongs to the layout round a call. `Sequencer` brings their events into the order that
`events` promises and guards each call's arguments (`arguments`). Nothing is lost: what is no call becomes text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import assert_never

from qiao.core.arguments import Arguments
from qiao.core.conversation import Tool
from qiao.core.events import (
    Event,
    Failed,
    Finished,
    ReasoningAdded,
    TextAdded,
    ToolArgumentsAdded,
    ToolCallEnded,
    ToolCallStarted,
    UsageSeen,
)
from qiao.core.json_lexemes import WHITESPACE
from qiao.core.repair import near_name
from qiao.core.shape import read_shape

_NO_NAMES: Mapping[str, str] = MappingProxyType({})

CUT_REASONS = frozenset({"length", "context", "stop_sequence", "content_filter"})
"""Finish reasons that may have cut a call in two."""


_ENVELOPE_KEYS = frozenset({"name", "id", "type", "index"})


class _Call:
    """A call of the engine that has not ended yet."""

    __slots__ = ("arguments", "follows_text", "id", "index", "is_open", "name", "written_name")

    def __init__(self, index: int, call_id: str, name: str, written_name: str, arguments: Arguments) -> None:
        self.index = index
        self.id = call_id
        self.name = name
        self.written_name = written_name
        self.arguments = arguments
        self.is_open = False
        self.follows_text = False


class Sequencer:
    """feed(events) → events in order; close() for the end without a Finished.

    `one_call`: keep the first call of the answer, drop the others (`disable_parallel_tool_use`).
    `id_prefix`: for calls to which the engine gave no id; unique within the client's conversation.
    `tools`: what the client declared; their schemas and names guide the repair.
    `names`: the client's names of tools by those that were sent for them.
    `repair` False: only calls that are right as they are become calls.
    After the end, `repairs` holds (call name, repair) pairs and `dropped_calls` counts calls that `one_call` removed.
    """

    def __init__(
        self,
        *,
        id_prefix: str,
        one_call: bool = False,
        keep_leading_space: bool = True,
        tools: Sequence[Tool] = (),
        names: Mapping[str, str] = _NO_NAMES,
        repair: bool = True,
    ) -> None:
        self.repairs: list[tuple[str, str]] = []
        self.dropped_calls = 0
        self.call_count = 0
        self._id_prefix = id_prefix
        self._one_call = one_call
        self._schemas = {tool.name: tool.parameters for tool in tools}
        # A model may also know the client's own name, from a text.
        self._schemas |= {own: self._schemas[sent] for sent, own in names.items() if sent in self._schemas}
        self._names = names
        self._repair = repair
        self._complete = 0
        self._incomplete = 0
        self._call: _Call | None = None
        self._waiting: list[Event] = []
        self._space = ""
        self._in_text = False
        self._in_reasoning = False
        self._keep_space = keep_leading_space
        self._ids: set[str] = set()

    @property
    def is_in_text(self) -> bool:
        """More text goes out as it comes in."""
        return self._in_text and self._call is None

    def feed(self, events: Sequence[Event]) -> list[Event]:
        """The events that may be sent now."""
        out: list[Event] = []
        for event in events:
            self._take(event, out)
        if self._waiting:
            self._drain(out)
        return out

    def close(self) -> list[Event]:
        """The engine's stream ended without a finish: what was held comes out, open calls are cut."""
        out: list[Event] = []
        self._end_all(out, cut=True)
        return out

    def _take(self, event: Event, out: list[Event]) -> None:
        # The two that come with every chunk are asked for first.
        if type(event) is TextAdded and self._call is None:
            self._text(event, out)
            return
        if isinstance(event, UsageSeen):
            out.append(event)
            return
        match event:
            case TextAdded() | ReasoningAdded():
                if self._call is not None:
                    if not self._call.arguments.is_done or self._waiting:
                        self._waiting.append(event)
                        return
                    self._end_call(out, cut=False)
                if isinstance(event, TextAdded):
                    self._text(event, out)
                else:
                    self._reasoning(event, out)
            case ToolCallStarted():
                self._start(event, out)
            case ToolArgumentsAdded():
                self._arguments(event, out)
            case ToolCallEnded():
                if self._call is not None and self._call.index == event.index:
                    self._end_call(out, cut=not event.complete, raw=event.raw)
                elif self._waiting:
                    self._waiting.append(event)
            case Finished():
                self._finish(event, out)
            case Failed():
                self._end_all(out, cut=True)
                out.append(event)
            case _:
                assert_never(event)

    # -- text and reasoning ---------------------------------------------------------------------------------------

    def _text(self, event: TextAdded, out: list[Event]) -> None:
        if self._in_text:
            if event.text:
                out.append(event)
            return
        text = self._space + event.text
        if not text.strip():
            self._space = text
            return
        # White space right after reasoning or a call is the template's layout, not the model's words.
        out.append(TextAdded(text if self._keep_space else text.lstrip()))
        self._space = ""
        self._in_text = True
        self._in_reasoning = False

    def _reasoning(self, event: ReasoningAdded, out: list[Event]) -> None:
        if self._in_reasoning:
            if event.text:
                out.append(event)
            return
        text = self._space + event.text if not self._in_text else event.text
        if not text.strip():
            if not self._in_text:
                self._space = text
            return
        out.append(ReasoningAdded(text.lstrip()))
        self._space = ""
        self._in_text = False
        self._in_reasoning = True
        self._keep_space = False

    # -- calls ----------------------------------------------------------------------------------------------------

    def _start(self, event: ToolCallStarted, out: list[Event]) -> None:
        if self._call is not None:
            if not self._call.arguments.is_done or self._waiting:
                self._waiting.append(event)
                return
            self._end_call(out, cut=False)
        name = event.name
        if self._repair and name not in self._schemas and (near := near_name(name, self._schemas)) is not None:
            self.repairs.append((self._names.get(near, near), "near_name"))
            name = near
        schema = self._schemas.get(name)
        arguments = Arguments(None if schema is None else read_shape(schema), mend=self._repair)
        own, written = self._names.get(name, name), self._names.get(event.name, event.name)
        self._call = _Call(event.index, self._unique_id(event.id), own, written, arguments)

    def _arguments(self, event: ToolArgumentsAdded, out: list[Event]) -> None:
        call = self._call
        if call is None or call.index != event.index:
            if self._waiting or call is not None:
                self._waiting.append(event)
            return
        text = call.arguments.feed(event.text)
        if text:
            self._send(call, text, out)

    def _send(self, call: _Call, text: str, out: list[Event]) -> None:
        if self._one_call and self.call_count > 0 and not call.is_open:
            return
        if not call.is_open:
            call.is_open = True
            self.call_count += 1
            call.follows_text = self._in_text
            self._space = ""
            self._in_text = self._in_reasoning = False
            self._keep_space = False
            out.append(ToolCallStarted(call.index, call.id, call.name))
        out.append(ToolArgumentsAdded(call.index, text))

    def _end_call(self, out: list[Event], *, cut: bool, raw: str = "") -> None:
        call = self._call
        if call is None:
            return
        self._call = None
        closed = call.arguments.close(cut=cut)
        self.repairs.extend((call.name, repair) for repair in call.arguments.repairs)
        if self._one_call and self.call_count > 0 and not call.is_open:
            self.dropped_calls += 1
            return
        if closed.outcome == "text" and not call.is_open:
            self.repairs.append((call.name, "returned_as_text"))
            self._text(TextAdded(raw or as_text(call.written_name, call.arguments.raw, closed=not cut)), out)
            return
        if closed.text:
            self._send(call, closed.text, out)
        is_complete = closed.outcome == "object"
        self._complete += is_complete
        self._incomplete += not is_complete
        # What follows a call that is none continues its text.
        self._keep_space = not is_complete
        if is_complete:
            raw = ""
        elif not raw:
            words = as_text(call.written_name, call.arguments.raw, closed=not cut)
            raw = f"\n{words}" if call.follows_text else words
        out.append(ToolCallEnded(call.index, complete=is_complete, raw=raw))
        leftover = closed.leftover.strip()
        if leftover and self._repair and _is_rest_of_envelope(leftover):
            self.repairs.append((call.name, "trailing_members"))
        elif leftover:
            self.repairs.append((call.name, "trailing_text"))
            self._text(TextAdded(leftover), out)

    def _drain(self, out: list[Event]) -> None:
        """What waited for the open call to end is taken again, in the order in which it came."""
        while self._waiting:
            if self._call is not None:
                if not self._call.arguments.is_done:
                    return
                self._end_call(out, cut=False)
            waiting, self._waiting = self._waiting, []
            for event in waiting:
                self._take(event, out)
            if len(self._waiting) == len(waiting):
                return

    def _end_all(self, out: list[Event], *, cut: bool) -> None:
        while self._call is not None or self._waiting:
            # Only the call that came last can have been cut: one that another followed was finished by the model.
            is_last = not any(isinstance(event, ToolCallStarted) for event in self._waiting)
            before = len(self._waiting)
            had_call = self._call is not None
            self._end_call(out, cut=cut and is_last)
            self._drain(out)
            if not had_call and len(self._waiting) == before:
                self._waiting.clear()

    def _finish(self, event: Finished, out: list[Event]) -> None:
        self._end_all(out, cut=event.reason in CUT_REASONS)
        reason = event.reason
        if self._incomplete:
            if reason in ("stop", "tool_calls"):
                # A part of a call has gone out that nothing can complete. Only an answer that was cut may look like
                # this: told "tool_calls", a client would run it.
                out.append(Finished("length", of_whole="tool_calls" if self._complete else "stop"))
                return
        elif self._complete and reason in ("stop", "stop_sequence"):
            reason = "tool_calls"
        elif not self._complete and reason == "tool_calls":
            reason = "stop"
        out.append(Finished(reason, event.stop_sequence if reason == "stop_sequence" else None))

    def _unique_id(self, call_id: str) -> str:
        number = len(self._ids)
        candidate = call_id or f"{self._id_prefix}_{number}"
        while candidate in self._ids:
            candidate = f"{candidate}_{number}"
        self._ids.add(candidate)
        return candidate


def _is_rest_of_envelope(text: str) -> bool:
    """An engine took the arguments out of `{"name": …, "arguments": {…}, "id": "x"}` and what follows them along."""
    try:
        members = json.loads("{" + text.removeprefix(",").rstrip("}" + WHITESPACE) + "}")
    except (ValueError, RecursionError):
        return False
    return text.startswith(",") and all(key in _ENVELOPE_KEYS for key in members)


def as_text(name: str, arguments: str, *, closed: bool) -> str:
    """A call that cannot be handed over as one, in the words in which a model would have written it."""
    tail = "}\n</tool_call>" if closed else ""
    return f'<tool_call>\n{{"name": {json.dumps(name, ensure_ascii=False)}, "arguments": {arguments}{tail}'
