"""One request and its answer as an object without I/O: engine bytes in, client bytes out.

    exchange = Exchange(decoder, encoder, …)
    client_bytes = exchange.receive(engine_bytes)   # any number of times
    client_bytes = exchange.eof()                   # or exchange.fail(fault)

For a whole answer receive() returns nothing and `answer()` gives the folded events after eof(). The same pipeline
serves both: decoder → stop scanner → text tools → sequencer → unwanted reasoning → (encoder | folder).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

import msgspec

from qiao.core.conversation import Tool
from qiao.core.dialects import TextTools
from qiao.core.events import Event, Failed, Finished, TextAdded, Usage, UsageSeen, Words
from qiao.core.fault import Fault
from qiao.core.fold import Answer, Folder, of_whole
from qiao.core.reasoning import UnwantedReasoning
from qiao.core.sequence import Sequencer
from qiao.core.stops import StopScanner


class Decoder(Protocol):
    """What reads an engine's bytes. Contract: feed yields events as they complete, close the rest; neither raises.

    `more(data)`: what `data` adds, where it adds words to those before, at most newer counts, and that is known at a
    glance; None: `data` was not taken, feed it. `untold`: such counts, until the next feed or close tells them.
    """

    @property
    def untold(self) -> Usage | None: ...

    def more(self, data: bytes, /) -> Words | None: ...

    def feed(self, data: bytes) -> list[Event]: ...

    def close(self) -> list[Event]: ...


class StreamEncoder(Protocol):
    """What writes a client's stream. `add_text(text)`: as `encode` of one `TextAdded`."""

    def encode(self, events: Sequence[Event]) -> bytes: ...

    def add_text(self, text: str) -> bytes: ...


class Limits(msgspec.Struct, frozen=True):
    """What tells a full window from a reached `max_tokens`: both end with finish reason "length".

    `window`: tokens of prompt and answer together, None if unknown. `max_tokens`: what the client asked for.
    `is_full`: the limit that was sent is what the window leaves, and less than the client asked for.
    """

    window: int | None = None
    max_tokens: int | None = None
    is_full: bool = False


class Facts(msgspec.Struct):
    """What the exchange saw, for the record. Grows until the end."""

    usage: Usage | None = None
    finish: Finished | None = None
    fault: Fault | None = None
    repairs: list[tuple[str, str]] = []
    calls: int = 0


class Exchange:
    """One request. `is_over` after a Finished or Failed: later bytes are ignored and the engine may be let go.

    * `text_tools`: reads reasoning and calls out of the text; None: the engine has, and text is text.
    * `tools`, `names`, `repair`: what guides the repair of calls, see `Sequencer`.
    * `hide_reasoning`: the client switched thinking off.
    * `explain` gives a fault that the engine told within its answer the words that clients act on.
    """

    def __init__(
        self,
        decoder: Decoder,
        encoder: StreamEncoder | None,
        *,
        id_prefix: str,
        stops: Sequence[str] = (),
        one_call: bool = False,
        keep_leading_space: bool = True,
        text_tools: TextTools | None = None,
        tools: Sequence[Tool] = (),
        names: Mapping[str, str] = MappingProxyType({}),
        repair: bool = True,
        hide_reasoning: bool = False,
        limits: Limits | None = None,
        explain: Callable[[Fault], Fault] | None = None,
    ) -> None:
        self._facts = Facts()
        self.is_over = False
        self._explain = explain
        self._decoder = decoder
        self._encoder = encoder
        self._folder = Folder() if encoder is None else None
        self._scanner = StopScanner(stops) if stops else None
        self._text_tools = text_tools
        self._sequencer = Sequencer(
            id_prefix=id_prefix,
            one_call=one_call,
            keep_leading_space=keep_leading_space,
            tools=tools,
            names=names,
            repair=repair,
        )
        self._unwanted = UnwantedReasoning() if hide_reasoning else None
        self._limits = limits or Limits()
        self._is_in_text = False

    @property
    def facts(self) -> Facts:
        usage = self._decoder.untold
        if usage is not None:
            self._facts.usage = usage
        return self._facts

    def receive(self, data: bytes) -> bytes:
        """Bytes of the engine; returns bytes for the client (nothing for a whole answer)."""
        if self.is_over:
            return b""
        # A stop string ends the answer at some word, with the counts that came with it.
        words = self._decoder.more(data) if self._scanner is None else None
        if words is None:
            return self._pass_on(self._decoder.feed(data))
        if not self._is_in_text or self._encoder is None or type(words) is not TextAdded:
            return self._pass_on([words])
        # As `_pass_on`, where no stage has more to do than that: nearly every chunk of an answer is such.
        text = words.text if self._text_tools is None else self._text_tools.more_text(words.text)
        return self._encoder.add_text(text) if text else b""

    def eof(self) -> bytes:
        """The engine's bytes ended."""
        if self.is_over:
            return b""
        events = self._decoder.close()
        if not events or not isinstance(events[-1], Finished | Failed):
            events = [
                *events,
                Failed(Fault("api", "the engine closed its answer before the end", party="upstream")),
            ]
        return self._pass_on(events)

    def fail(self, fault: Fault) -> bytes:
        """Reading from the engine failed."""
        if self.is_over:
            return b""
        return self._pass_on([Failed(fault)])

    def abort(self, fault: Fault) -> bytes:
        """The end of a stream when the exchange itself broke: past everything that may be in no state to go on."""
        self.is_over, self._facts.fault = True, fault
        return self._encoder.encode([Failed(fault)]) if self._encoder is not None else b""

    def answer(self) -> Answer:
        """The whole answer, after eof() or fail()."""
        if self._folder is None:
            raise ValueError("a streamed exchange has no whole answer")
        return self._folder.answer()

    def _pass_on(self, events: list[Event]) -> bytes:
        if self._scanner is not None:
            events = self._scanner.feed(events)
        if self._text_tools is not None:
            events = self._text_tools.feed(events)
        events = self._sequencer.feed(events)
        self._is_in_text = self._sequencer.is_in_text and (self._text_tools is None or self._text_tools.is_in_text)
        if self._unwanted is not None:
            events = self._unwanted.feed(events)
        for place, event in enumerate(events):
            kind = type(event)
            if kind is UsageSeen:
                self._facts.usage = event.usage  # type: ignore[union-attr]
            elif kind is Finished:
                events[place] = self._finished(event)  # type: ignore[arg-type]
            elif kind is Failed:
                events[place] = self._failed(event)  # type: ignore[arg-type]
        if self._folder is not None:
            self._folder.feed(events)
            return b""
        return self._encoder.encode(events) if events and self._encoder is not None else b""

    def _finished(self, event: Finished) -> Finished:
        if self._folder is not None:
            event = of_whole(event)
        if event.reason == "length" and event.of_whole is None and self._window_was_full():
            event = Finished("context")
        self._end()
        self._facts.finish = event
        return event

    def _failed(self, event: Failed) -> Failed:
        if self._explain is not None:
            event = Failed(self._explain(event.fault))
        self._end()
        self._facts.fault = event.fault
        return event

    def _window_was_full(self) -> bool:
        if self._limits.is_full:
            return True
        usage, window, asked = self._facts.usage, self._limits.window, self._limits.max_tokens
        if usage is None or usage.prompt is None or usage.completion is None or window is None or not asked:
            return False
        return usage.prompt + usage.completion >= window and usage.completion < asked

    def _end(self) -> None:
        self.is_over = True
        from_text = self._text_tools.repairs if self._text_tools is not None else []
        self._facts.repairs = [*from_text, *self._sequencer.repairs]
        self._facts.calls = self._sequencer.call_count
