"""Reasoning: split off a text that holds it (`<think>…</think>`), and kept from a client that wants none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from qiao.core.events import Event, Finished, ReasoningAdded, TextAdded, ToolCallStarted
from qiao.core.tags import Tags

THINK = ("<think>", "</think>")
CALL = "<tool_call>"

Part: TypeAlias = ReasoningAdded | TextAdded


class ReasoningSplitter:
    """feed(text) → parts; close() → what was held.

    Reasoning begins with the opening tag at the start of the output, or before it (`is_open`: the chat template wrote
    the tag into the prompt; one that the model writes all the same is dropped). It ends with the first closing tag,
    which yields a `TextAdded` even when no text follows. Any other think tag is text.
    """

    def __init__(self, *, is_open: bool = False, tags: tuple[str, str] = THINK) -> None:
        self._open, self._close = tags
        self._closing = Tags([self._close])
        self._state = "start"
        self._is_open = is_open
        self._space: list[str] = []
        self._held = ""

    @property
    def is_inside(self) -> bool:
        """Reasoning has begun and has not been closed."""
        return self._state == "inside" or (self._state == "start" and self._is_open)

    @property
    def is_past(self) -> bool:
        """What comes is text, whatever is in it."""
        return self._state == "text"

    def leave(self) -> list[Part]:
        """The engine has split the answer itself: from here on, text is text."""
        parts = self.close()
        self._state = "text"
        return parts

    def feed(self, text: str) -> list[Part]:
        parts: list[Part] = []
        if self._state == "start":
            text = self._start(text)
        if self._state == "inside":
            text = self._inside(text, parts)
        if self._state == "text" and text:
            parts.append(TextAdded(text))
        return parts

    def close(self) -> list[Part]:
        held = "".join(self._space) + self._held
        self._space.clear()
        self._held = ""
        if not held:
            return []
        return [ReasoningAdded(held) if self.is_inside else TextAdded(held)]

    def _start(self, text: str) -> str:
        if not self._held:
            stripped = text.lstrip()
            self._space.append(text[: len(text) - len(stripped)])
            text = stripped
        text = self._held + text
        self._held = ""
        if not text:
            return ""
        if text.startswith(self._open):
            self._space.clear()
            self._state = "inside"
            return text[len(self._open) :]
        if self._open.startswith(text):
            self._held = text
            return ""
        text = "".join(self._space) + text
        self._space.clear()
        self._state = "inside" if self._is_open else "text"
        return text

    def _inside(self, text: str, parts: list[Part]) -> str:
        text = self._held + text
        self._held = ""
        end = text.find(self._close)
        if end >= 0:
            if end:
                parts.append(ReasoningAdded(text[:end]))
            self._state = "text"
            text = text[end + len(self._close) :]
            if not text:
                parts.append(TextAdded(""))
            return text
        keep = self._closing.partial(text)
        if keep < len(text):
            parts.append(ReasoningAdded(text[: len(text) - keep]))
        self._held = text[len(text) - keep :]
        return ""


class EarlyEnd:
    """feed(text) → parts; close() → what was held: the text behind reasoning that the engine has split off.

    vLLM's parsers take the first `<tool_call>` in the reasoning for its end. Text that begins with one, without the
    line break that models write behind their closing tag, is held until that tag comes, and then it was reasoning; if
    it never comes, it was not. `is_behind_reasoning`: set it when the engine has sent some.
    """

    def __init__(self) -> None:
        self.is_behind_reasoning = False
        self._close = Tags([THINK[1]])
        self._begun = ""
        self._held: list[str] = []
        self._end = ""

    def feed(self, text: str) -> list[Part]:
        if not self._held:
            self._begun += text
            if CALL.startswith(self._begun) and self._begun != CALL:
                return []
            text, self._begun = self._begun, ""
            if not text.startswith(CALL):
                self.is_behind_reasoning = False
                return [TextAdded(text)]
        seen = self._end + text
        found = self._close.search(seen)
        self._held.append(text)
        if found is None:
            keep = self._close.partial(seen)
            self._end = seen[len(seen) - keep :]
            return []
        whole = "".join(self._held)
        behind = len(seen) - found.end()
        self._forget()
        inside = whole[: len(whole) - behind - len(found.group())]
        return [ReasoningAdded(inside), TextAdded(whole[len(whole) - behind :])]

    def close(self) -> list[Part]:
        text = self._begun + "".join(self._held)
        self._forget()
        return [TextAdded(text)] if text else []

    def _forget(self) -> None:
        self.is_behind_reasoning = False
        self._begun = self._end = ""
        self._held.clear()


class UnwantedReasoning:
    """feed(events) → events without reasoning, for a client that switched thinking off.

    An answer that has nothing else ends with it as its text: an engine that cannot stop reasoning, or takes a whole
    answer for it, must not leave the client with nothing.
    """

    def __init__(self) -> None:
        self._held: list[str] | None = []

    def feed(self, events: Sequence[Event]) -> list[Event]:
        out: list[Event] = []
        for event in events:
            match event:
                case ReasoningAdded():
                    if self._held is not None:
                        self._held.append(event.text)
                    continue
                case Finished():
                    if self._held and event.reason == "stop":
                        out.append(TextAdded("".join(self._held).strip()))
                case TextAdded() | ToolCallStarted():
                    self._held = None
                case _:
                    pass
            out.append(event)
        return out
