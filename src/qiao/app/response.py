"""An answer of unknown length as the server library sees it, written by hand: a person waits on every piece.

The library's own response builds its head from a dictionary of headers and writes through coroutines: before the first
token of an agent's request that costs more than reading the 70 KB that were asked (docs/performance.md). Only what the
library says in public is used: a response's `prepare`, `prepared`, `keep_alive` and `write_eof`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from email.utils import formatdate
from functools import lru_cache

from aiohttp import HttpVersion11, web

_END = b"0\r\n\r\n"


@lru_cache(2)
def _date(seconds: int) -> str:
    return f"Date: {formatdate(seconds, usegmt=True)}\r\n"


class GrowingResponse(web.StreamResponse):
    """The answer to `request`, status 200. `open` sends the head, `send` the rest, `write_eof` the end."""

    def __init__(self, request: web.BaseRequest, headers: Mapping[str, str]) -> None:
        super().__init__()
        self._request = request
        self._transport: asyncio.Transport | None = None
        # HTTP/1.0 knows no chunks: the end of the connection is the end of the answer.
        self._is_framed = request.version >= HttpVersion11
        self._is_ended = False
        self._head = self._written(headers)

    @property
    def prepared(self) -> bool:
        return self._transport is not None

    @property
    def keep_alive(self) -> bool | None:
        return self._is_framed and self._request.keep_alive

    async def prepare(self, request: web.BaseRequest) -> None:
        """Nothing: the head was sent by `open`."""

    def _written(self, headers: Mapping[str, str]) -> bytes:
        lines = ["HTTP/1.1 200 OK\r\n", _date(int(time.time()))]
        lines += [f"{name}: {value}\r\n" for name, value in headers.items()]
        if self._is_framed:
            lines.append("Transfer-Encoding: chunked\r\n")
        if not self.keep_alive:
            lines.append("Connection: close\r\n")
        return "".join((*lines, "\r\n")).encode("ascii")

    def open(self) -> None:
        """Send the head, together with what is sent at once. Raises ConnectionError if the client is gone."""
        transport = self._request.transport
        if transport is None:
            raise ConnectionResetError("the client is gone")
        self._transport = transport
        # By this the library knows that it is too late for an error of its own.
        self._request.writer.output_size += len(self._head)
        asyncio.get_running_loop().call_soon(self._send_head)

    def send(self, data: bytes, *, is_last: bool = False) -> int:
        """Send `data` now; returns the bytes that the client has not taken yet.

        A piece is written at once and as one: every write wakes the client. A client that has gone is not told: its
        request is being cancelled.
        """
        if self._is_ended:
            return 0
        self._is_ended = is_last
        if self._is_framed:
            framed = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
            data = framed + _END if is_last else framed
        if self._head:
            data, self._head = self._head + data, b""
        transport = self._transport
        if not data or transport is None or transport.is_closing():
            return 0
        transport.write(data)
        return transport.get_write_buffer_size()

    def break_off(self) -> None:
        """Close the connection before the answer's end, so that it cannot be taken for a whole one."""
        self._is_ended = True
        if self._transport is not None:
            self._transport.close()

    async def write_eof(self, data: bytes = b"") -> None:
        """Send the end, once; the library asks for it again."""
        self.send(data, is_last=True)

    def _send_head(self) -> None:
        if self._head and self._transport is not None:
            self.send(b"")
