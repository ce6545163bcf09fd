"""The shared HTTP client: nothing of an answer is lost, however slowly it is read."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from qiao.upstream.client import Client
from tests.support.listening import speaking

PIECE = b"x" * 1000 + b"\n"
COUNT = 3000


@asynccontextmanager
async def answering(head: bytes, pieces: list[bytes], taken: list[int] | None = None) -> AsyncIterator[str]:
    """A server that answers every request with `head` and the pieces, as fast as they are taken."""
    sent = [] if taken is None else taken

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(2)
        writer.write(head)
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            sent.append(len(piece))

    async with speaking(serve) as url:
        yield url


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


@pytest.mark.parametrize("is_compressed", [False, True])
async def test_a_long_answer_that_is_read_slowly_comes_whole(is_compressed: bool) -> None:
    body = PIECE * COUNT
    packed = zlib.compress(body, wbits=31) if is_compressed else body
    step = 50 if is_compressed else len(PIECE)
    pieces = [chunked(packed[at : at + step]) for at in range(0, len(packed), step)] + [b"0\r\n\r\n"]
    encoding = b"content-encoding: gzip\r\n" if is_compressed else b""
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n%b\r\n" % encoding
    async with answering(head, pieces) as url:
        client = Client(url)
        response = await client.post("/v1/chat/completions", b"{}")
        got = 0
        reads = 0
        while data := await response.read():
            got += len(data)
            reads += 1
            if reads < 20:
                await asyncio.sleep(0.005)  # long enough for the buffers to fill and reading to pause
        await client.close()
    assert got == len(body)


async def test_reading_pauses_when_nobody_reads() -> None:
    taken: list[int] = []
    pieces = [chunked(b"x" * 100_000)] * 200
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    async with answering(head, [*pieces, b"0\r\n\r\n"], taken) as url:
        client = Client(url)
        response = await client.post("/v1/chat/completions", b"{}")
        await asyncio.sleep(0.2)
        assert sum(taken) < 15_000_000  # what the kernel's buffers hold on both sides, and ours
        got = 0
        while data := await response.read():
            got += len(data)
        await client.close()
    assert got == 20_000_000
