"""Servers on the loopback address, of which nothing is left open."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import web


@contextlib.asynccontextmanager
async def listening(runner: web.BaseRunner, *, port: int = 0) -> AsyncIterator[str]:
    """Serve what `runner` runs; yields its base URL."""
    await runner.setup()
    taken = socket.create_server(("127.0.0.1", port), backlog=128)
    try:
        await web.SockSite(runner, taken).start()
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"
    finally:
        # asyncio forgets a connection that it accepted in the very moment in which its server is closed. So it accepts
        # no more, and those that it has become the runner's, which closes them.
        asyncio.get_running_loop().remove_reader(taken)
        for _ in range(5):
            await asyncio.sleep(0)
        await runner.cleanup()
        taken.close()


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def speaking(handler: Handler) -> AsyncIterator[str]:
    """Serve connections byte for byte with `handler`; yields the base URL. A connection ends with its handler."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        # Not `wait_closed`: a client may keep its connection for as long as it likes.
        server.close()
