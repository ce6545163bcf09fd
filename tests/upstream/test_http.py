"""HTTP/1.1 to one origin: framing, kept connections, and what is done with servers that break the rules."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from qiao.upstream import http
from qiao.upstream.http import Connections, Disconnected, MalformedAnswer, Origin, Response, TruncatedAnswer
from tests.support.listening import speaking

OK = b"HTTP/1.1 200 OK\r\n"
Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Runs `script` for every connection. `requests`: the heads that came; `connections`: how many were made."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.connections = 0
        self.requests: list[bytes] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        # Some tests want the client to end the connection.
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await self._script(reader, writer)


@asynccontextmanager
async def serving(script: Script) -> AsyncIterator[tuple[Server, Connections]]:
    server = Server(script)
    async with speaking(server.serve) as server.url:
        connections = Connections(Origin(server.url), headers={"User-Agent": "qiao"}, connect_timeout=2.0)
        try:
            async with asyncio.timeout(10):
                yield server, connections
        finally:
            await connections.close()


async def request_of(reader: asyncio.StreamReader) -> bytes:
    """One request, head and body."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return head + (await reader.readexactly(int(length[0][15:])) if length else b"")


def answers(*pieces: bytes, keep: bool = True) -> Script:
    """Every request is answered with these pieces, a moment apart."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await request_of(reader)
            for piece in pieces:
                writer.write(piece)
                await asyncio.sleep(0.005)
            if not keep:
                return

    return script


FRAMED = [
    pytest.param((OK + b"content-length: 5\r\n\r\nhello",), True, id="length"),
    pytest.param((OK + b"content-le", b"ngth: 5\r\n\r\nhe", b"llo"), True, id="length in pieces"),
    pytest.param((OK + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",), True, id="chunked"),
    pytest.param(
        (OK + b"Transfer-Encoding: Chunked\r\n\r\n2;x=y\r", b"\nhe\r\n3\r\nllo\r\n", b"0\r\nx: y\r\n\r\n"),
        True,
        id="chunked in pieces, with an extension and a trailer",
    ),
    pytest.param((b"HTTP/1.1 100 Continue\r\n\r\n", OK + b"content-length: 5\r\n\r\nhello"), True, id="after a 100"),
    pytest.param((OK + b"connection: close\r\ncontent-length: 5\r\n\r\nhello",), False, id="length, then closed"),
    pytest.param((OK + b"connection: close\r\n\r\nhel", b"lo"), False, id="until closed"),
    pytest.param((b"HTTP/1.0 200 OK\r\n\r\nhello",), False, id="HTTP/1.0"),
]


@pytest.mark.parametrize(("pieces", "keeps"), FRAMED)
async def test_an_answer_is_read_however_it_is_framed(pieces: tuple[bytes, ...], keeps: bool) -> None:
    async with serving(answers(*pieces, keep=keeps)) as (server, connections):
        for _ in range(3):
            response = await connections.request("POST", "/v1/chat/completions", b"{}")
            assert response.status == 200
            assert await response.read_all() == b"hello"
            assert await response.read() == b""
            response.close()
        assert server.connections == (1 if keeps else 3)


@pytest.mark.parametrize(("pieces", "keeps"), FRAMED)
async def test_a_pumped_answer_is_the_same(pieces: tuple[bytes, ...], keeps: bool) -> None:
    async with serving(answers(*pieces, keep=keeps)) as (_, connections):
        for enough in (1, 2, 100):
            response = await connections.request("POST", "/", b"{}")
            got = bytearray()
            waits: list[int] = []

            def take(data: bytes, got: bytearray = got, waits: list[int] = waits, enough: int = enough) -> bool:
                got.extend(data)
                waits.append(len(data))
                return len(waits) % enough != 0

            while await response.pump(take):
                await asyncio.sleep(0.01)
            assert bytes(got) == b"hello"
            response.close()


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_without_a_body(status: int) -> None:
    async with serving(answers(b"HTTP/1.1 %d Nothing\r\n\r\n" % status)) as (server, connections):
        for _ in range(2):
            response = await connections.request("GET", "/")
            assert (response.status, await response.read_all()) == (status, b"")
            response.close()
        assert server.connections == 1


async def test_what_is_sent() -> None:
    seen: list[bytes] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await request_of(reader))
        writer.write(OK + b"content-length: 0\r\n\r\n")

    async with serving(script) as (server, _):
        connections = Connections(Origin(server.url + "/a b/"), headers={"User-Agent": "qiao"}, connect_timeout=2.0)
        response = await connections.request("POST", "/v1/x?y=1", b'{"a":1}', {"X-Request-Id": "req_1"})
        assert response.status == 200
        await connections.close()
    head, _, body = seen[0].partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /a%20b/v1/x?y=1 HTTP/1.1"
    assert set(lines[1:]) == {
        b"Host: " + server.url.removeprefix("http://").encode(),
        b"User-Agent: qiao",
        b"X-Request-Id: req_1",
        b"Content-Length: 7",
    }
    assert body == b'{"a":1}'


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\nb", "a\0b"])
async def test_a_header_cannot_be_smuggled_in(value: str) -> None:
    async with serving(answers(OK + b"content-length: 0\r\n\r\n")) as (server, connections):
        with pytest.raises(ValueError, match="line break"):
            await connections.request("GET", "/", headers={"X": value})
        assert server.connections == 0


@pytest.mark.parametrize("url", ["engine:8000/v1", "ftp://engine/", "http://", "/v1"])
def test_an_origin_is_an_http_url(url: str) -> None:
    with pytest.raises(ValueError, match="no http URL"):
        Origin(url)


def test_origins() -> None:
    found = Origin("https://[::1]:8443/api/")
    assert (found.is_tls, found.host, found.port, found.base, found.authority) == (
        True,
        "::1",
        8443,
        "/api",
        "[::1]:8443",
    )
    assert Origin("http://engine").authority == "engine"
    assert Origin("http://bücher.example").authority == "xn--bcher-kva.example"


async def test_a_connection_that_the_server_closed_is_not_used_again() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(OK + b"content-length: 2\r\n\r\nok")
        await asyncio.sleep(0.05)

    async with serving(script) as (server, connections):
        for _ in range(2):
            response = await connections.request("GET", "/")
            assert await response.read_all() == b"ok"
            response.close()
            await asyncio.sleep(0.15)
        assert server.connections == 2


async def test_who_closed_a_kept_connection_is_told() -> None:
    closing = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(OK + b"content-length: 0\r\n\r\n")
        await closing.wait()

    async with serving(script) as (_, connections):
        (await connections.request("GET", "/")).close()
        assert connections.is_connected
        closing.set()
        while connections.is_connected:
            await asyncio.sleep(0.01)
        assert connections.was_closed
    async with serving(answers(OK + b"connection: close\r\ncontent-length: 0\r\n\r\n", keep=False)) as (_, connections):
        (await connections.request("GET", "/")).close()
        while connections.is_connected:
            await asyncio.sleep(0.01)
        assert not connections.was_closed  # it said so


async def test_a_request_that_a_kept_connection_took_to_its_grave_is_sent_again() -> None:
    """The server's close is only seen once the next request is under way."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(OK + b"content-length: 2\r\n\r\nok")
        await request_of(reader)

    sent: list[int] = []
    async with serving(script) as (server, connections):
        for _ in range(3):
            response = await connections.request("POST", "/", b"{}", meanwhile=lambda: sent.append(1))
            assert await response.read_all() == b"ok"
            response.close()
        assert server.connections == 3
    assert len(sent) == 5  # once for every time that it was sent


async def test_a_new_connection_that_dies_is_not_tried_again() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)

    async with serving(script) as (server, connections):
        with pytest.raises(ConnectionResetError):
            await connections.request("POST", "/", b"{}")
        assert server.connections == 1


async def test_idle_connections_are_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_KEEP_ALIVE_SECONDS", 0.1)
    ended = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(OK + b"content-length: 0\r\n\r\n")
        assert await reader.read() == b""
        ended.set()

    async with serving(script) as (_, connections):
        (await connections.request("GET", "/")).close()
        await ended.wait()


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        OK + b"content-length: x\r\n\r\n",
        OK + b"transfer-encoding: chunked\r\n\r\nzz\r\n",
        OK + b"content-encoding: br\r\ncontent-length: 1\r\n\r\nx",
        OK + b"x: " + b"y" * 300_000,
    ],
    ids=["not HTTP", "a wrong length", "a wrong chunk", "an encoding that was not asked for", "an endless head"],
)
async def test_what_is_no_answer_is_said_to_be_none(answer: bytes) -> None:
    async with serving(answers(answer)) as (_, connections):
        with pytest.raises(MalformedAnswer):
            await (await connections.request("GET", "/")).read_all()


async def test_a_broken_compression() -> None:
    async with serving(answers(OK + b"content-encoding: gzip\r\ncontent-length: 5\r\n\r\nhello")) as (_, connections):
        with pytest.raises(MalformedAnswer, match="decompressed"):
            await (await connections.request("GET", "/")).read_all()


async def test_an_answer_that_ends_too_early() -> None:
    head = OK + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"
    async with serving(answers(head, keep=False)) as (_, connections):
        response = await connections.request("GET", "/")
        got: list[bytes] = []
        with pytest.raises(TruncatedAnswer):
            await response.pump(lambda data: got.append(data) is None)
        assert got == [b"hello"]


async def test_bytes_after_an_answer_end_the_connection() -> None:
    ended = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(OK + b"content-length: 2\r\n\r\nok")
        await asyncio.sleep(0.02)
        writer.write(OK + b"content-length: 4\r\n\r\nevil")
        with contextlib.suppress(ConnectionResetError):  # it is told one way or the other
            await reader.read()
        ended.set()

    async with serving(script) as (server, connections):
        for _ in range(2):
            ended.clear()
            response = await connections.request("GET", "/")
            assert await response.read_all() == b"ok"
            response.close()
            await ended.wait()
        assert server.connections == 2


@asynccontextmanager
async def one_request() -> AsyncIterator[tuple[asyncio.Task[Response], Connections, socket.socket]]:
    """A request that was sent; its answer is ours to give, by hand."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        origin = Origin(f"http://127.0.0.1:{listener.getsockname()[1]}")
        connections = Connections(origin, headers={}, connect_timeout=2.0)
        async with asyncio.timeout(10):
            asking = asyncio.create_task(connections.request("GET", "/"))
            server, _ = await loop.sock_accept(listener)
            with server:
                assert (await loop.sock_recv(server, 65_536)).startswith(b"GET / ")
                yield asking, connections, server
            await connections.close()


async def is_told(server: socket.socket) -> bool:
    """The client ends this connection at once: sooner than an idle one is given up."""
    try:
        async with asyncio.timeout(2):
            return await asyncio.get_running_loop().sock_recv(server, 1) == b""
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False


def is_over(server: socket.socket) -> bool:
    """The client has closed this connection, as far as can be seen without waiting."""
    try:
        return server.recv(1) == b""
    except ConnectionResetError:
        return True
    except BlockingIOError:
        return False


async def test_closing_in_the_middle_lets_the_server_know_at_once() -> None:
    async with one_request() as (asking, _, server):
        server.send(OK + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")
        response = await asking
        assert await response.read() == b"hello"
        response.close()
        assert await is_told(server)


async def test_cancelling_before_the_head_lets_the_server_know_at_once() -> None:
    async with one_request() as (asking, _, server):
        asking.cancel()
        assert await is_told(server)
        with pytest.raises(asyncio.CancelledError):
            await asking


async def test_cancelling_in_the_very_moment_of_the_head_ends_the_connection() -> None:
    """The head has come, the task that waits for it was woken, and before it runs it is cancelled (a time limit)."""
    async with one_request() as (asking, _, server):
        server.send(OK + b"content-length: 5\r\n\r\n")
        asyncio.get_running_loop().call_later(0, asking.cancel)  # a timer runs after the same round's reads
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert await is_told(server)


async def test_closing_leaves_no_connection_behind() -> None:
    """Not one whose answer nobody has closed, not one that is being waited for; and it waits for their end."""
    async with one_request() as (asking, connections, server):
        server.send(OK + b"content-length: 5\r\n\r\n")
        response = await asking
        await connections.close()
        assert is_over(server)
        with pytest.raises(TruncatedAnswer):
            await response.read()
        response.close()
    async with one_request() as (asking, connections, server):
        await connections.close()
        assert is_over(server)
        with pytest.raises(Disconnected):
            await asking


async def test_what_a_sink_raises_comes_out_where_it_is_pumped() -> None:
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)

    def broken(data: bytes) -> bool:
        raise KeyError(data.decode())

    head = OK + b"transfer-encoding: chunked\r\n\r\n"
    async with serving(answers(head, b"5\r\nhello\r\n")) as (_, connections):
        response: Response = await connections.request("GET", "/")
        with pytest.raises(KeyError, match="hello"):
            await response.pump(broken)
