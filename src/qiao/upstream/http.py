"""HTTP/1.1 to one origin: kept connections, answers that are read as they come. Nothing here knows what is said.

The parser is llhttp (`httptools`); what is ours is the connection around it. A general client spends more on a streamed
piece of an answer than the whole translation does (docs/performance.md), and on each one a person waits. Redirects,
cookies and proxies are left out on purpose: they would send prompts where the user did not point.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Protocol, TypeAlias, cast
from urllib.parse import quote, urlsplit

import httptools

# uvicorn, under vLLM and most others, closes idle connections after 5 s: ours are given up before that.
_KEEP_ALIVE_SECONDS = 3.0
# A kept connection that the server closed fails at once; a failure later than this is the engine's own.
_STALE_CONNECTION_SECONDS = 1.0
_MAX_HEAD = 256 * 1024
# Bytes of an answer that may wait for a slow reader before the engine has to wait as well.
_MAX_UNREAD = 1024 * 1024
_UNTIL_CLOSED = frozenset({"content-length", "transfer-encoding"})
_WITHOUT_BODY = frozenset({204, 304})
_PATH_CHARACTERS = "/%:@!$&'()*+,;=~?"
_HEADER_END = re.compile(r"[\r\n\0]")


Sink: TypeAlias = Callable[[bytes], bool]
"""Takes a piece of an answer; False: it wants no more for now."""


class HttpError(Exception):
    """What came over a connection that stood is no answer."""


class MalformedAnswer(HttpError):
    """It breaks HTTP's rules."""


class TruncatedAnswer(HttpError):
    """The connection ended in the middle of it."""


class Disconnected(ConnectionResetError):
    """The connection ended before an answer began."""


class ConnectTimeout(TimeoutError):
    """No connection in time."""


class Origin:
    """Where to connect. `url`: http or https, with a path that every request's path is appended to.

    Raises ValueError for anything else.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is no http URL")
        self.is_tls = parts.scheme == "https"
        self.host = parts.hostname
        self.port = parts.port or (443 if self.is_tls else 80)
        self.base = quote(parts.path.rstrip("/"), safe=_PATH_CHARACTERS)
        host = self.host if self.host.isascii() else self.host.encode("idna").decode()
        host = f"[{host}]" if ":" in host else host
        is_usual = self.port == (443 if self.is_tls else 80)
        self.authority = host if is_usual else f"{host}:{self.port}"


class Response:
    """An answer whose head has come. `headers`: names in lower case. Close it, read to its end or not."""

    __slots__ = ("_connection", "_inflate", "headers", "status")

    def __init__(self, connection: _Connection, status: int, headers: Mapping[str, str]) -> None:
        coding = headers.get("content-encoding", "").lower()
        if coding not in ("", "identity", "gzip", "deflate"):
            raise MalformedAnswer(f"it is encoded as {coding[:40]!r}, which was not asked for")
        self.status = status
        self.headers = headers
        self._connection: _Connection | None = connection
        # Not asked for either, but there are proxies that compress whatever passes.
        self._inflate = _Inflate() if coding in ("gzip", "deflate") else None

    async def read(self) -> bytes:
        """The next bytes of the body, as many as have come; empty at its end. Raises OSError or HttpError."""
        while self._connection is not None:
            data = await self._connection.read()
            if self._inflate is None or not data:
                return data
            if words := self._inflate(data):
                return words
        return b""

    async def read_all(self, limit: int | None = None) -> bytes:
        """The rest of the body, cut after `limit` bytes."""
        pieces: list[bytes] = []
        size = 0
        while (limit is None or size < limit) and (piece := await self.read()):
            pieces.append(piece)
            size += len(piece)
        return b"".join(pieces)[:limit]

    async def pump(self, sink: Sink) -> bool:
        """Hand the body to `sink`, piece by piece, in the very moment in which it comes.

        True: the sink wants no more for now; call again for the rest. False: it was handed over to its end.
        Raises OSError or HttpError, and whatever the sink raises.
        """
        if self._connection is None:
            return False
        inflate = self._inflate
        if inflate is None:
            return await self._connection.pump(sink)
        return await self._connection.pump(lambda data: sink(words) if (words := inflate(data)) else True)

    def close(self) -> None:
        """Give the connection back, or end it where the answer is not over. Safe to call any number of times."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.release()


class _Inflate:
    """Compressed pieces → plain ones. Raises MalformedAnswer."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)  # tells gzip and zlib apart by itself

    def __call__(self, data: bytes) -> bytes:
        try:
            return self._inflate.decompress(data)
        except zlib.error as error:
            raise MalformedAnswer("its body cannot be decompressed") from error


class _Pool(Protocol):
    def opened(self, connection: _Connection) -> None: ...
    def keep(self, connection: _Connection) -> None: ...
    def lost(self, connection: _Connection) -> None: ...


class _Connection(asyncio.Protocol):
    """One connection, one exchange at a time. Methods without underscore and `on_…` are for asyncio and the parser."""

    __slots__ = (
        "_error",
        "_head",
        "_headers",
        "_is_complete",
        "_is_paused",
        "_is_reused",
        "_keeps",
        "_loop",
        "_parser",
        "_pieces",
        "_pool",
        "_seen",
        "_sink",
        "_sink_is_full",
        "_transport",
        "_unread",
        "_waiter",
        "idle_since",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, pool: _Pool) -> None:
        self._loop = loop
        self._pool = pool
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self._is_reused = False
        self.idle_since = 0.0
        self._begin()

    def _begin(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._head: Response | None = None
        self._headers: dict[str, str] = {}
        self._pieces: list[bytes] = []
        self._sink: Sink | None = None
        self._sink_is_full = False
        self._unread = self._seen = 0
        self._is_complete = self._is_paused = self._keeps = False

    # -- one exchange ---------------------------------------------------------------------------------------------

    async def exchange(self, request: Sequence[bytes], meanwhile: Callable[[], None] | None) -> Response:
        """Send the pieces of `request` and wait for the answer's head. Whatever goes wrong ends the connection.

        `meanwhile` is called once it is sent.
        """
        assert self._transport is not None
        if self._error is not None:
            raise self._error
        self._begin()
        self._transport.writelines(request)
        is_answered = False
        try:
            if meanwhile is not None:
                if self._transport.get_write_buffer_size():
                    await asyncio.sleep(0)  # the rest is sent when the event loop goes on
                meanwhile()
            while self._head is None:
                await self._wait()
            is_answered = True
            return self._head
        finally:
            # Not by the head: it may have come, and a time limit struck before this task could run and take it.
            if not is_answered:
                self.abort()

    async def read(self) -> bytes:
        while not self._pieces:
            if self._is_complete:
                return b""
            await self._wait()
        return self._taken()

    async def pump(self, sink: Sink) -> bool:
        while True:
            if self._pieces and not sink(self._taken()):
                return True
            if self._is_complete:
                return False
            self._sink, self._sink_is_full = sink, False
            try:
                await self._wait()
            finally:
                self._sink = None
            if self._sink_is_full:
                return True

    def _taken(self) -> bytes:
        pieces = self._pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._unread = 0
        if self._is_paused and self._transport is not None:
            self._is_paused = False
            self._transport.resume_reading()
        return data

    def release(self) -> None:
        if self._is_complete and self._keeps and self._error is None:
            self._pool.keep(self)
        else:
            self.abort()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    @property
    def is_usable(self) -> bool:
        return self._error is None and self._transport is not None and not self._transport.is_closing()

    async def _wait(self) -> None:
        if self._error is not None:
            raise self._error
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _fail(self, error: Exception) -> None:
        if self._error is None:
            self._error = error
        self.abort()
        self._wake()

    # -- asyncio's side -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        # What is written leaves at once; uvloop would keep up to 64 KiB until the end of its round.
        self._transport.set_write_buffer_limits(high=0)
        connected = transport.get_extra_info("socket")
        if connected is not None:
            # A prefill may be silent for many minutes: routers on the way forget connections that carry nothing.
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._pool.opened(self)

    def data_received(self, data: bytes) -> None:
        if self._is_complete:
            # More than the answer: nobody could tell whose it is.
            self._keeps = False
            self.abort()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(MalformedAnswer(str(error) or "not HTTP"))
            return
        except MalformedAnswer as error:
            self._fail(error)
            return
        if self._head is None:
            self._seen += len(data)
            if self._seen > _MAX_HEAD:
                self._fail(MalformedAnswer(f"its head is longer than {_MAX_HEAD // 1024} KiB"))
            return
        sink = self._sink
        if sink is not None and not self._is_complete:
            if self._pieces and not sink(self._taken()):
                self._sink, self._sink_is_full = None, True
                self._wake()
            return
        if self._unread > _MAX_UNREAD and not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._error is None:
            if exc is not None and not isinstance(exc, OSError):
                self._error = exc  # a sink raised it
            elif self._head is None:
                self._error = exc if isinstance(exc, OSError) else Disconnected("closed without an answer")
            elif not self._is_complete and self._ends_with_connection() and exc is None:
                self._is_complete = True
                self._error = Disconnected("closed")
            else:
                self._error = TruncatedAnswer("closed in the middle")
        self._wake()
        self._pool.lost(self)

    def _ends_with_connection(self) -> bool:
        return _UNTIL_CLOSED.isdisjoint(self._headers)

    # -- the parser's side ----------------------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        known = self._headers.get(key)
        self._headers[key] = text if known is None else f"{known}, {text}"

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            self._headers = {}  # "100 Continue", "103 Early Hints": the answer is still to come
            return
        self._head = Response(self, status, self._headers)
        if status in _WITHOUT_BODY:
            self._is_complete = True

    def on_body(self, body: bytes) -> None:
        self._pieces.append(body)
        self._unread += len(body)

    def on_message_complete(self) -> None:
        if self._head is None:
            return
        self._is_complete = True
        self._keeps = self._parser.should_keep_alive()


class Connections:
    """Kept connections to one origin. Use it inside one running loop; `close()` it at the end.

    `headers` are sent with every request. `connect_timeout`: seconds, TLS included. `was_closed`: the server closed a
    kept connection since somebody set this to False.
    """

    def __init__(self, origin: Origin, *, headers: Mapping[str, str], connect_timeout: float) -> None:
        self._origin = origin
        self._headers = "".join(_line(name, value) for name, value in {"Host": origin.authority, **headers}.items())
        self._connect_timeout = connect_timeout
        self._tls: ssl.SSLContext | None = None
        self._open: set[_Connection] = set()
        self._idle: list[_Connection] = []
        self._reaper: asyncio.TimerHandle | None = None
        self._is_closed = False
        self.was_closed = False
        self._none_open = asyncio.Event()
        self._none_open.set()

    async def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        meanwhile: Callable[[], None] | None = None,
    ) -> Response:
        """Returns when the answer's head has come. Raises OSError (also TimeoutError and ssl.SSLError) or HttpError.

        A request that a kept connection took to its grave is sent once more, over a new one. `meanwhile` is called
        whenever it was sent, for work that need not be done before.
        """
        request = self._written(method, path, body, headers)
        connection = self._kept()
        if connection is not None:
            started = asyncio.get_running_loop().time()
            try:
                return await connection.exchange(request, meanwhile)
            except OSError:
                if asyncio.get_running_loop().time() - started > _STALE_CONNECTION_SECONDS:
                    raise
        return await (await self._connected()).exchange(request, meanwhile)

    async def close(self) -> None:
        """End every connection, also one in use. When this returns, their sockets are closed."""
        self._is_closed = True
        if self._reaper is not None:
            self._reaper.cancel()
        self._idle.clear()
        for connection in tuple(self._open):
            connection.abort()
        await self._none_open.wait()

    def opened(self, connection: _Connection) -> None:
        self._open.add(connection)
        self._none_open.clear()
        if self._is_closed:
            connection.abort()

    @property
    def is_connected(self) -> bool:
        return bool(self._open)

    def lost(self, connection: _Connection) -> None:
        self._open.discard(connection)
        if connection in self._idle:  # what we give up ourselves is taken out before
            self._idle.remove(connection)
            self.was_closed = True
        if not self._open:
            self._none_open.set()

    def keep(self, connection: _Connection) -> None:
        """A connection whose answer was read to its end."""
        if self._is_closed or not connection.is_usable:
            connection.abort()
            return
        loop = asyncio.get_running_loop()
        connection.idle_since = loop.time()
        self._idle.append(connection)
        if self._reaper is None:
            self._reaper = loop.call_later(_KEEP_ALIVE_SECONDS, self._reap)

    def _kept(self) -> _Connection | None:
        """The one that was used last."""
        deadline = asyncio.get_running_loop().time() - _KEEP_ALIVE_SECONDS
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable and connection.idle_since > deadline:
                return connection
            connection.abort()
        return None

    def _reap(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() - _KEEP_ALIVE_SECONDS
        kept = []
        for connection in self._idle:
            if connection.is_usable and connection.idle_since > deadline:
                kept.append(connection)
            else:
                connection.abort()
        self._idle = kept
        self._reaper = loop.call_at(kept[0].idle_since + _KEEP_ALIVE_SECONDS, self._reap) if kept else None

    async def _connected(self) -> _Connection:
        loop = asyncio.get_running_loop()
        origin = self._origin
        if origin.is_tls and self._tls is None:
            self._tls = ssl.create_default_context()
        try:
            async with asyncio.timeout(self._connect_timeout):
                _, connection = await loop.create_connection(
                    lambda: _Connection(loop, self), origin.host, origin.port, ssl=self._tls
                )
        except TimeoutError as error:
            raise ConnectTimeout(f"no connection in {self._connect_timeout:g} seconds") from error
        return connection

    def _written(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str] | None
    ) -> tuple[bytes, ...]:
        """Head and body, apart: a body of an agent is long, and copying it takes time."""
        lines = [f"{method} {self._origin.base}{_quoted(path)} HTTP/1.1\r\n", self._headers]
        if headers:
            lines += [_line(name, value) for name, value in headers.items()]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}\r\n")
        lines.append("\r\n")
        head = "".join(lines).encode()
        return (head, body) if body else (head,)


@lru_cache(64)
def _quoted(path: str) -> str:
    return quote(path, safe=_PATH_CHARACTERS)


def _line(name: str, value: str) -> str:
    """A header. Raises ValueError where its name or value would end it."""
    line = f"{name}: {value}"
    if _HEADER_END.search(line):
        raise ValueError("a header holds a line break")
    return line + "\r\n"
