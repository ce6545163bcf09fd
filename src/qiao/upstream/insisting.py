"""A call that only words can ask for: an answer without one is asked for once more.

Nothing of the first answer is handed on before there is a call in it. If it ends without one, or talks on and on, the
model is shown what it said and asked again, and what it says then is the answer, whatever it is. Where the engine does
not take the second request, the first answer stands.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from qiao.core.dialects import text_tools
from qiao.core.events import Finished, TextAdded, ToolCallStarted
from qiao.core.exchange import Decoder
from qiao.core.fault import Fault
from qiao.core.openai.stream import Decoder as ChatDecoder
from qiao.core.openai.target import Target
from qiao.policies import text_mode
from qiao.policies.prepare import Prepared
from qiao.policies.quirks import Quirks
from qiao.upstream.base import Answer, Preparation
from qiao.upstream.http import Sink

LONGEST_TALK = 4_000
"""Characters beside reasoning that an answer may have before its call; who says more is not about to call."""


class Insisting:
    """An answer that is worth a second try; see `upstream.base.Answer`. `again(said)` asks once more."""

    def __init__(self, first: Answer, again: Callable[[str], Awaitable[Answer]], *, whole: bool) -> None:
        self._first = first
        self._again = again
        self._whole = whole
        self._current: Answer | None = None
        self._held: list[bytes] = []
        self.notes = first.notes

    @property
    def decoder(self) -> Decoder:
        return self._first.decoder

    @property
    def prepared(self) -> Prepared:
        return self._first.prepared

    @property
    def healed(self) -> tuple[str, ...]:
        return self._first.healed

    @property
    def prompt_estimate(self) -> int:
        return self._first.prompt_estimate

    async def pump(self, sink: Sink) -> bool:
        if self._current is None:
            self._current = await self._listened(sink)
        if self._held:
            held, self._held = b"".join(self._held), []
            if not sink(held):
                return True
        return await self._current.pump(sink)

    def close(self) -> None:
        self._first.close()
        if self._current is not None:
            self._current.close()

    async def _listened(self, sink: Sink) -> Answer:
        """The answer that counts. What was read of the first one is held if it is that."""
        listener = _Listener(self.prepared, whole=self._whole)

        def hear(data: bytes) -> bool:
            self._held.append(data)
            return not listener.has_heard_enough(data)

        try:
            is_settled = await self._first.pump(hear)
        except Fault:
            # What was said until now is not lost.
            held, self._held = b"".join(self._held), []
            sink(held)
            raise
        if not (listener.talks_on if is_settled else listener.ended_without_call()):
            return self._first
        try:
            second = await self._again(listener.text[:LONGEST_TALK].strip())
        except Fault:
            return self._first
        self._first.close()
        self._held.clear()
        return second


class _Listener:
    """Reads along until there is a call, or will be none."""

    def __init__(self, prepared: Prepared, *, whole: bool) -> None:
        self._decoder = ChatDecoder(whole=whole)
        self._tools = text_tools(prepared.dialect, prepared.tools, reasoning=prepared.reasoning, repair=prepared.repair)
        self._words: list[str] = []
        self._length = 0
        self._called = False
        self._stopped = False

    @property
    def text(self) -> str:
        """The words of the answer, without its reasoning."""
        return "".join(self._words).strip()

    @property
    def talks_on(self) -> bool:
        """It has said more than is said before a call."""
        return self._length > LONGEST_TALK and not self._called

    def has_heard_enough(self, data: bytes) -> bool:
        """Whether it is known now that there is a call, or that there will be none."""
        self._take(data)
        return self._called or self.talks_on

    def ended_without_call(self) -> bool:
        """The bytes have ended: whether it was the model that ended its answer, and with no call."""
        self._take(None)
        return self._stopped and not self._called

    def _take(self, data: bytes | None) -> None:
        events = self._decoder.close() if data is None else self._decoder.feed(data)
        for event in self._tools.feed(events):
            match event:
                case TextAdded():
                    self._words.append(event.text)
                    self._length += len(event.text)
                case ToolCallStarted():
                    self._called = True
                case Finished():
                    self._stopped = event.reason == "stop"
                case _:
                    pass


def asking_again(prepare: Preparation, said: str) -> Preparation:
    """The same conversation, and after it what the model said, and that it was no call."""

    def run(quirks: Quirks, target: Target, *, input_tokens: int | None = None, edited: bool = True) -> Prepared:
        prepared = prepare(quirks, target, input_tokens=input_tokens, edited=edited)
        conversation = text_mode.asked_again(prepared.conversation, said)
        return msgspec.structs.replace(prepared, conversation=conversation, insists=False)

    return run
