"""Events → the whole answer. A non-streamed answer is its stream, folded; there is no second path."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias, assert_never

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
from qiao.core.fault import Fault
from qiao.core.sequence import as_text


class TextBlock(msgspec.Struct, frozen=True):
    text: str


class ReasoningBlock(msgspec.Struct, frozen=True):
    text: str


class CallBlock(msgspec.Struct, frozen=True):
    """`arguments` is the JSON text of an object."""

    id: str
    name: str
    arguments: str


Block: TypeAlias = TextBlock | ReasoningBlock | CallBlock


class Answer(msgspec.Struct, frozen=True):
    """A complete answer. Exactly one of `finish` and `fault` is set."""

    blocks: tuple[Block, ...]
    usage: Usage | None
    finish: Finished | None
    fault: Fault | None

    def estimated_tokens(self) -> int:
        """Tokens of the answer from its characters, for engines that do not tell."""
        characters = sum(
            len(block.arguments) if isinstance(block, CallBlock) else len(block.text) for block in self.blocks
        )
        return -(-characters // 4)


def of_whole(event: Finished) -> Finished:
    """How a whole answer ends that ends in a stream with `event`."""
    return event if event.of_whole is None else Finished(event.of_whole)


class Folder:
    """Takes sequenced events one by one; `answer()` is the sum so far."""

    def __init__(self) -> None:
        self._blocks: list[Block] = []
        self._kind: type[TextAdded | ReasoningAdded] | None = None
        self._pieces: list[str] = []
        self._call: ToolCallStarted | None = None
        self._usage: Usage | None = None
        self._finish: Finished | None = None
        self._fault: Fault | None = None

    def feed(self, events: Iterable[Event]) -> None:
        for event in events:
            self._take(event)

    def answer(self) -> Answer:
        self._flush()
        if self._finish is None and self._fault is None:
            self._fault = Fault("api", "the engine ended its answer without saying why", party="upstream")
        return Answer(tuple(self._blocks), self._usage, self._finish, self._fault)

    def _take(self, event: Event) -> None:
        match event:
            case TextAdded() | ReasoningAdded():
                if self._kind is not type(event):
                    self._flush()
                    self._kind = type(event)
                self._pieces.append(event.text)
            case ToolCallStarted():
                self._flush()
                self._call = event
            case ToolArgumentsAdded():
                self._pieces.append(event.text)
            case ToolCallEnded():
                self._end_call(event.complete, event.raw)
            case UsageSeen():
                self._usage = event.usage
            case Finished():
                self._finish = of_whole(event)
            case Failed():
                self._fault = event.fault
            case _:
                assert_never(event)

    def _end_call(self, complete: bool, raw: str = "") -> None:
        call = self._call
        if call is None:
            return
        arguments = "".join(self._pieces) or "{}"
        self._pieces.clear()
        self._call = None
        if complete:
            self._blocks.append(CallBlock(call.id, call.name, arguments))
        # A cut call is never executed: a whole answer can still give it back as the text it was.
        elif raw:
            self._cut_call(raw)
        else:
            self._blocks.append(TextBlock(as_text(call.name, arguments, closed=False)))

    def _cut_call(self, text: str) -> None:
        """The model's own words: they continue the text before them, and what follows continues them."""
        if self._blocks and isinstance(last := self._blocks[-1], TextBlock):
            self._blocks.pop()
            text = last.text + text
        self._kind = TextAdded
        self._pieces.append(text)

    def _flush(self) -> None:
        if self._call is not None:
            self._end_call(False)
        if self._kind is not None:
            text = "".join(self._pieces)
            self._blocks.append(TextBlock(text) if self._kind is TextAdded else ReasoningBlock(text))
        self._pieces.clear()
        self._kind = None


def fold(events: Iterable[Event]) -> Answer:
    """The whole answer that a sequenced stream amounts to."""
    folder = Folder()
    folder.feed(events)
    return folder.answer()
