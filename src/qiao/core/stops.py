"""Stop sequences that the engine does not watch for us: more than it takes, or none that it reports."""

from __future__ import annotations

from collections.abc import Sequence

from qiao.core.events import Event, Finished, ReasoningAdded, TextAdded, UsageSeen


class StopScanner:
    """feed(events) → events up to the first stop sequence in text or reasoning, then `Finished("stop_sequence", …)`.

    The earliest match wins, as if the engine had watched token by token. Text that could be the beginning of a match
    is held back, and no more. Usage that comes after the match is lost with the engine's work.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._longest = max((len(stop) for stop in stops), default=0)
        self._held = ""
        self._kind: type[TextAdded] | type[ReasoningAdded] = TextAdded
        self.matched: str | None = None

    def feed(self, events: Sequence[Event]) -> list[Event]:
        out: list[Event] = []
        for event in events:
            if self.matched is not None:
                break
            if isinstance(event, TextAdded | ReasoningAdded):
                if type(event) is not self._kind:
                    self._release(out)
                    self._kind = type(event)
                self._scan(event.text, out)
            else:
                # vLLM's running usage stands between any two pieces of the text and does not end it.
                if not isinstance(event, UsageSeen):
                    self._release(out)
                out.append(event)
        return out

    def close(self) -> list[Event]:
        out: list[Event] = []
        self._release(out)
        return out

    def _scan(self, text: str, out: list[Event]) -> None:
        text = self._held + text
        self._held = ""
        found = min(
            ((place, stop) for stop in self._stops if (place := text.find(stop)) >= 0),
            key=lambda match: (match[0] + len(match[1]), match[0]),
            default=None,
        )
        if found is not None:
            place, stop = found
            if place:
                out.append(self._kind(text[:place]))
            self.matched = stop
            out.append(Finished("stop_sequence", stop))
            return
        keep = self._overlap(text)
        if keep < len(text):
            out.append(self._kind(text[: len(text) - keep]))
        self._held = text[len(text) - keep :]

    def _overlap(self, text: str) -> int:
        """Length of the longest end of `text` that begins a stop sequence."""
        for size in range(min(self._longest - 1, len(text)), 0, -1):
            end = text[-size:]
            if any(stop.startswith(end) for stop in self._stops):
                return size
        return 0

    def _release(self, out: list[Event]) -> None:
        if self._held:
            out.append(self._kind(self._held))
            self._held = ""
