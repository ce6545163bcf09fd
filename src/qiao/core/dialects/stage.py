"""Text tools as a stage of the exchange: between what reads the engine's bytes and what sequences the answer.

    tools = TextTools(lambda: Hermes(declared), ReasoningSplitter())
    events = tools.feed(decoder.feed(data))        # after a StopScanner, before the Sequencer

Structured events pass; text is split into reasoning and words, and the words into text and calls. White space next to
a tag, a call or the end of the answer is layout and is dropped. `Finished` and `Failed` close what is open first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import assert_never

import msgspec

from qiao.core.dialects.base import Dialect, Layout, Piece
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
from qiao.core.reasoning import EarlyEnd, ReasoningSplitter
from qiao.core.sequence import CUT_REASONS


class TextTools:
    """feed(events) → events.

    * `dialect` makes a reader of calls; None: call-shaped text stays text (no tools, or the client chose none).
    * `reasoning` splits reasoning off the text; None: the engine did, or the model has none.
    * `keep_leading_space`: the answer continues a prefilled one, so white space at its beginning counts.
    * `doubts_engine`: an engine that splits the reasoning itself may end it at the first `<tool_call>` (vLLM); what
      follows so is held until the closing tag shows that it was reasoning, or the end that it was none.

    A call in reasoning is not executed, unless the reasoning is never closed and the call is the last thing in an
    answer that the model ended by itself: then only the closing tag was forgotten.
    """

    def __init__(
        self,
        dialect: Callable[[], Dialect] | None,
        reasoning: ReasoningSplitter | None,
        *,
        keep_leading_space: bool = False,
        doubts_engine: bool = False,
    ) -> None:
        self._new_dialect = dialect
        self._early_end = EarlyEnd() if doubts_engine and dialect is not None else None
        self._splitter = reasoning
        self._dialect: Dialect | None = None
        self._watch: _ReasoningWatch | None = None
        self._seams = _Seams(keep_leading_space=keep_leading_space)
        self._numbers: dict[int, int] = {}
        self._next = 0
        self._base = 0
        self.repairs: list[tuple[str, str]] = []

    @property
    def is_in_text(self) -> bool:
        """Text is open, and nobody looks for anything in it: `more_text` may be used until the next `feed`."""
        is_past = self._splitter is None or self._splitter.is_past
        return self._new_dialect is None and is_past and self._seams.is_in_text

    def more_text(self, text: str) -> str:
        """The text that `feed` would yield for a `TextAdded`."""
        return self._seams.more(text)

    def feed(self, events: Sequence[Event]) -> list[Event]:
        out: list[Event] = []
        for event in events:
            self._take(event, out)
        return out

    def _take(self, event: Event, out: list[Event]) -> None:
        match event:
            case TextAdded():
                if self._early_end is not None and self._early_end.is_behind_reasoning:
                    self._parts(self._early_end.feed(event.text), out)
                elif self._splitter is None:
                    self._text(event.text, out)
                else:
                    self._parts(self._splitter.feed(event.text), out)
            case ReasoningAdded():
                if self._splitter is not None:
                    self._parts(self._splitter.leave(), out)
                if self._early_end is not None:
                    self._parts(self._early_end.close(), out)
                    self._early_end.is_behind_reasoning = True
                self._reasoning(event.text, out)
            case ToolCallStarted():
                self._interrupt(out)
                self._numbers[event.index] = self._next
                self._next += 1
                self._seams.put(msgspec.structs.replace(event, index=self._numbers[event.index]), out)
            case ToolArgumentsAdded() | ToolCallEnded():
                number = self._numbers.get(event.index, event.index)
                self._seams.put(msgspec.structs.replace(event, index=number), out)
            case UsageSeen():
                out.append(event)
            case Finished():
                self._close(out, cut=event.reason in CUT_REASONS)
                out.append(event)
            case Failed():
                self._close(out, cut=True)
                out.append(event)
            case _:
                assert_never(event)

    def _parts(self, parts: Sequence[ReasoningAdded | TextAdded], out: list[Event]) -> None:
        for part in parts:
            if isinstance(part, ReasoningAdded):
                self._reasoning(part.text, out)
            else:
                self._text(part.text, out)

    def _reasoning(self, text: str, out: list[Event]) -> None:
        self._end_dialect(out, cut=True)
        if self._new_dialect is None:
            self._seams.put(ReasoningAdded(text), out)
            return
        if self._watch is None:
            self._watch = _ReasoningWatch(self._new_dialect())
        self._watch.feed(text)
        self._put_all(self._watch.take(), out)

    def _text(self, text: str, out: list[Event]) -> None:
        if self._watch is not None:
            self._end_watch(out, closed=True)
        if self._new_dialect is None:
            self._seams.words(TextAdded(text), out)
            return
        if self._dialect is None:
            self._begin_dialect(self._new_dialect())
        if self._dialect is not None:
            self._put_pieces(self._dialect.read(text), out)

    def _interrupt(self, out: list[Event]) -> None:
        """The engine yields a call of its own: what the text has held comes before it."""
        if self._splitter is not None:
            self._parts(self._splitter.leave(), out)
        if self._early_end is not None:
            self._parts(self._early_end.close(), out)
        self._end_watch(out, closed=True)
        self._end_dialect(out, cut=True)

    def _close(self, out: list[Event], *, cut: bool) -> None:
        if self._splitter is not None:
            self._parts(self._splitter.close(), out)
        if self._early_end is not None:
            self._parts(self._early_end.close(), out)
        self._end_watch(out, closed=cut)
        self._end_dialect(out, cut=cut)
        # Without calls in the text nothing but the split is ours: what the engine wrote at the end stays.
        self._seams.close(out if self._new_dialect is None else None)

    def _end_watch(self, out: list[Event], *, closed: bool) -> None:
        """Reasoning is over. `closed`: by its tag or by a cut, so that calls in it are words."""
        watch, self._watch = self._watch, None
        if watch is None:
            return
        watch.end(closed=closed)
        self._put_all(watch.take(), out)
        calls = [] if closed else watch.calls
        self._base = self._next
        self._put_pieces(calls, out)
        if calls:
            self.repairs += watch.dialect.repairs

    def _begin_dialect(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._base = self._next

    def _end_dialect(self, out: list[Event], *, cut: bool) -> None:
        dialect, self._dialect = self._dialect, None
        if dialect is not None:
            self._put_pieces(dialect.finish(cut=cut), out)
            self.repairs += dialect.repairs

    def _put_pieces(self, pieces: Sequence[Piece], out: list[Event]) -> None:
        for piece in pieces:
            match piece:
                case Layout():
                    pass
                case TextAdded():
                    self._seams.put(piece, out)
                case _:
                    number = self._base + piece.index
                    self._next = max(self._next, number + 1)
                    self._seams.put(msgspec.structs.replace(piece, index=number), out)

    def _put_all(self, events: Sequence[Event], out: list[Event]) -> None:
        for event in events:
            self._seams.put(event, out)


class _ReasoningWatch:
    """Reasoning that may end with a call: passes it on, but holds calls back until it is clear what they are."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.calls: list[Piece] = []
        self._held: list[str] = []
        self._out: list[Event] = []

    def feed(self, text: str) -> None:
        self._sort(self.dialect.read(text))

    def end(self, *, closed: bool) -> None:
        """`closed`: nothing in the reasoning is a call."""
        self._sort(self.dialect.finish(cut=closed))
        if closed or not self._ends_with_call():
            self._release()

    def take(self) -> list[Event]:
        out, self._out = self._out, []
        return out

    def _sort(self, pieces: Sequence[Piece]) -> None:
        for piece in pieces:
            match piece:
                case TextAdded() | Layout():
                    if self.calls and (isinstance(piece, Layout) or not piece.text.strip()):
                        self._held.append(piece.text)
                        continue
                    self._release()
                    self._out.append(ReasoningAdded(piece.text))
                case ToolCallEnded():
                    self.calls.append(piece)
                    self._held.append(piece.raw)
                case _:
                    self.calls.append(piece)

    def _ends_with_call(self) -> bool:
        return bool(self.calls) and all(call.complete for call in self.calls if isinstance(call, ToolCallEnded))

    def _release(self) -> None:
        """The calls were words."""
        self.calls.clear()
        if self._held:
            self._out.append(ReasoningAdded("".join(self._held)))
            self._held.clear()


class _Seams:
    """Drops white space at the beginning and end of every block of text or reasoning."""

    def __init__(self, *, keep_leading_space: bool) -> None:
        self._kind: type[TextAdded] | type[ReasoningAdded] | None = None
        self._keeps = keep_leading_space
        self._space: list[str] = []
        self._before_call = ""

    @property
    def is_in_text(self) -> bool:
        return self._kind is TextAdded

    def put(self, event: Event, out: list[Event]) -> None:
        match event:
            case TextAdded() | ReasoningAdded():
                self.words(event, out)
            case ToolCallStarted():
                self._before_call = "".join(self._space) if self._kind is TextAdded else ""
                self._end_block()
                out.append(event)
            case ToolCallEnded() if not event.complete and event.raw:
                self._keeps = True
                out.append(msgspec.structs.replace(event, raw=self._before_call + event.raw))
            case _:
                out.append(event)

    def close(self, out: list[Event] | None) -> None:
        """The end. `out`: where white space at the end of the text goes; None: it is layout."""
        if out is not None and self._kind is TextAdded and (space := "".join(self._space)):
            out.append(TextAdded(space))
        self._end_block()

    def words(self, event: TextAdded | ReasoningAdded, out: list[Event]) -> None:
        kind = type(event)
        if self._kind is not kind:
            begun = event.text if self._keeps and self._kind is None else event.text.lstrip()
            if not begun:
                return
            self._space.clear()
            self._kind = kind
            text = begun
        else:
            text = event.text
        if words := self.more(text):
            out.append(kind(words))

    def more(self, text: str) -> str:
        """More of the open block: `text` behind the white space that was held; that at its own end is held now."""
        words = text.rstrip()
        if not words:
            self._space.append(text)
            return ""
        self._keeps = False
        whole = words
        if self._space:
            whole = "".join(self._space) + words
            self._space.clear()
        if len(words) < len(text):
            self._space.append(text[len(words) :])
        return whole

    def _end_block(self) -> None:
        self._kind = None
        self._space.clear()
        self._keeps = False
