"""A byte relay between a client and a server that keeps what passed, for judging it afterwards.

It changes nothing: bytes, packet boundaries, ends and resets go through as they come. HTTP is read only afterwards,
from the kept bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import h11

from tests.support.listening import speaking

PIECE = 65536


@dataclass
class Exchange:
    """One request and its answer, as the client saw them. `is_complete`: the answer's end was seen."""

    method: str
    target: str
    request_headers: dict[str, str]
    request: bytes
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    is_complete: bool = False

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def asked(self) -> Any:
        """The request's JSON."""
        return json.loads(self.request)

    @property
    def answer(self) -> Any:
        """The answer's JSON."""
        return json.loads(self.body)

    @property
    def is_stream(self) -> bool:
        return self.headers.get("content-type", "").startswith("text/event-stream")


@dataclass
class _Connection:
    """The bytes of one connection. `arrived`: when the server's pieces came (`time.monotonic`)."""

    up: bytearray = field(default_factory=bytearray)
    down: bytearray = field(default_factory=bytearray)
    arrived: list[tuple[float, bytes]] = field(default_factory=list)
    is_over: bool = False


@dataclass
class Tap:
    """Keeps what passed. `url` is what the client is given instead of the server's own."""

    host: str
    port: int
    url: str = ""
    _connections: list[_Connection] = field(default_factory=list)
    _open: set[asyncio.StreamWriter] = field(default_factory=set)

    def forget(self) -> None:
        """Begin anew. A connection that a client keeps stays open; only what passed on it is dropped."""
        self._connections = [connection for connection in self._connections if not connection.is_over]
        for connection in self._connections:
            connection.up.clear()
            connection.down.clear()
            connection.arrived.clear()

    def hang_up(self) -> None:
        """Abort every connection that is open."""
        for writer in self._open:
            writer.transport.abort()

    @property
    def exchanges(self) -> list[Exchange]:
        """Everything so far, connection by connection."""
        return [exchange for connection in self._connections for exchange in _read(connection)]

    @property
    def arrivals(self) -> list[tuple[float, bytes]]:
        """The pieces that came from the server, with their times."""
        return sorted(piece for connection in self._connections for piece in connection.arrived)

    async def relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection()
        self._connections.append(connection)
        self._open.add(writer)
        try:
            await self._relay(connection, reader, writer)
        except asyncio.CancelledError:
            writer.transport.abort()
            raise
        finally:
            self._open.discard(writer)

    async def _relay(self, connection: _Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream, downstream = await asyncio.open_connection(self.host, self.port)
        except OSError:
            writer.transport.abort()
            return

        async def upward() -> None:
            while data := await reader.read(PIECE):
                connection.up += data
                downstream.write(data)
                await downstream.drain()

        async def downward() -> None:
            while data := await upstream.read(PIECE):
                connection.arrived.append((time.monotonic(), data))
                connection.down += data
                writer.write(data)
                await writer.drain()

        ways = {asyncio.ensure_future(upward()), asyncio.ensure_future(downward())}
        abrupt = True
        try:
            done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            abrupt = any(way.exception() is not None for way in done)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            connection.is_over = True
            for side in (writer, downstream):
                if abrupt:
                    side.transport.abort()
                else:
                    side.close()


@contextlib.asynccontextmanager
async def tapping(url: str) -> AsyncIterator[Tap]:
    """A relay to the server at `url`."""
    host, _, port = url.removeprefix("http://").rstrip("/").partition(":")
    tap = Tap(host, int(port))
    async with speaking(tap.relay) as tap.url:
        try:
            yield tap
        finally:
            tap.hang_up()


def _read(connection: _Connection) -> list[Exchange]:
    exchanges = list(_requests(bytes(connection.up)))
    _add_answers(exchanges, bytes(connection.down), connection.is_over)
    return exchanges


def _requests(data: bytes) -> Iterator[Exchange]:
    server = h11.Connection(h11.SERVER)
    server.receive_data(data)
    current: Exchange | None = None
    while True:
        event = server.next_event()
        if isinstance(event, h11.Request):
            headers = {name.decode(): value.decode() for name, value in event.headers}
            current = Exchange(event.method.decode(), event.target.decode(), headers, b"")
        elif isinstance(event, h11.Data) and current is not None:
            current.request += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage) and current is not None:
            yield current
            # The library wants to see an answer before it reads the next request.
            server.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
            server.send(h11.EndOfMessage())
            if server.our_state is not h11.DONE:
                return
            server.start_next_cycle()
        else:
            return


def _add_answers(exchanges: list[Exchange], data: bytes, is_over: bool) -> None:
    client = h11.Connection(h11.CLIENT)
    client.receive_data(data)
    if is_over:
        client.receive_data(b"")
    for exchange in exchanges:
        client.send(h11.Request(method=exchange.method, target=exchange.target, headers=[("host", "gateway")]))
        client.send(h11.EndOfMessage())
        while True:
            try:
                event = client.next_event()
            except h11.RemoteProtocolError:
                return
            if isinstance(event, h11.Response):
                exchange.status = event.status_code
                exchange.headers = {name.decode(): value.decode() for name, value in event.headers}
            elif isinstance(event, h11.Data):
                exchange.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                exchange.is_complete = True
                break
            else:
                return
        if client.their_state is not h11.DONE:
            return
        client.start_next_cycle()
