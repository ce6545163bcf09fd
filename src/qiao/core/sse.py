"""Bytes ↔ server-sent events (WHATWG HTML, section 9.2).

Lines end at CR, LF or CRLF and nowhere else: splitting decoded text at every Unicode line break would cut a JSON
string that holds U+2028 in two. Work per chunk is proportional to the chunk; a line that is still open is kept in
pieces and joined once.
"""

from __future__ import annotations

import msgspec

from qiao.core.fault import Fault

DEFAULT_EVENT_LIMIT = 64 * 1024 * 1024
"""Bytes of one event that may pile up before its end is seen. An engine that sends more is broken."""

_BOM = b"\xef\xbb\xbf"


class ServerSentEvent(msgspec.Struct, frozen=True, gc=False):
    """One dispatched event: `name` is empty when the server gave none; `data` lines are joined by LF."""

    name: bytes
    data: bytes


class Decoder:
    """feed(bytes) → events that the bytes complete; close() → nothing, because an unfinished event is discarded."""

    def __init__(self, limit: int = DEFAULT_EVENT_LIMIT) -> None:
        self._limit = limit
        self._open: list[bytes] = []
        self._open_size = 0
        self._name = b""
        self._data: list[bytes] = []
        self._data_size = 0
        self._at_start = True

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """Events completed by `chunk`. Raises `Fault` (upstream) when one event outgrows the limit."""
        if not chunk:
            return []
        if (
            chunk.startswith(b"data: ")
            and not self._open
            and not self._data
            and (data := _only_event(chunk)) is not None
        ):
            self._at_start = False
            name, self._name = self._name, b""
            return [ServerSentEvent(name, data)]
        if b"\n" not in chunk and b"\r" not in chunk and not (self._open and self._open[-1].endswith(b"\r")):
            self._keep(chunk)
            return []
        if self._open:
            self._open.append(chunk)
            chunk = b"".join(self._open)
            self._open.clear()
            self._open_size = 0
        if self._at_start:
            chunk = chunk.removeprefix(_BOM)
            self._at_start = False
        if b"\r" in chunk:
            # A CR at the very end may be the first half of a CRLF: it waits for the next byte.
            held = chunk.endswith(b"\r")
            chunk = (chunk[:-1] if held else chunk).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            lines = chunk.split(b"\n")
            if held:
                lines[-1] += b"\r"
        else:
            lines = chunk.split(b"\n")
        rest = lines.pop()
        if rest:
            self._keep(rest)
        return self._dispatch(lines)

    def close(self) -> list[ServerSentEvent]:
        """The end of the bytes. An event without its empty line is incomplete and not dispatched (the standard)."""
        if self._open and self._open[-1].endswith(b"\r"):
            line = b"".join(self._open)[:-1]
            self._open.clear()
            return self._dispatch([line])
        return []

    @property
    def has_partial(self) -> bool:
        """Whether bytes are held that no event has carried yet."""
        return bool(self._open or self._data)

    def _keep(self, piece: bytes) -> None:
        self._open.append(piece)
        self._open_size += len(piece)
        self._check()

    def _check(self) -> None:
        if self._open_size + self._data_size > self._limit:
            raise Fault("api", f"the engine sent one event of more than {self._limit} bytes", party="upstream")

    def _dispatch(self, lines: list[bytes]) -> list[ServerSentEvent]:
        events: list[ServerSentEvent] = []
        data = self._data
        for line in lines:
            if not line:
                if data:
                    events.append(ServerSentEvent(self._name, data[0] if len(data) == 1 else b"\n".join(data)))
                    data.clear()
                    self._data_size = 0
                self._name = b""
            elif line.startswith(b"data:"):
                value = line[6:] if line.startswith(b"data: ") else line[5:]
                data.append(value)
                self._data_size += len(value)
                if self._data_size > self._limit:
                    self._check()
            elif line.startswith(b"event:"):
                self._name = line[7:] if line.startswith(b"event: ") else line[6:]
            elif line == b"data":
                data.append(b"")
        return events


def _only_event(chunk: bytes) -> bytes | None:
    """The data of `chunk` if it is exactly one event of one data line, as nearly every chunk of an engine is."""
    end = len(chunk) - 2
    if chunk.find(b"\n") == end and chunk.endswith(b"\n\n") and b"\r" not in chunk:
        return chunk[6:end]
    return None


def encode(name: str, data: bytes) -> bytes:
    """One event as bytes. `data` is JSON on one line."""
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"
