"""A server in the place of the gateway that answers whatever a test tells it to."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping

from aiohttp import web

from tests.support.listening import listening

Answers = Mapping[str, tuple[int, str | bytes]]
"""Status and body by `METHOD /path`, or by `stream` for a message that was asked for as a stream."""


@contextlib.asynccontextmanager
async def answering(answers: Answers) -> AsyncIterator[str]:
    """Serve these answers; yields the base URL. What is not listed is a 404 with a page."""

    async def handle(request: web.Request) -> web.Response:
        key = f"{request.method} {request.path}"
        if request.path == "/v1/messages" and b'"stream":true' in await request.read():
            key = "stream"
        status, body = answers.get(key, (404, "<html>nothing here</html>"))
        raw = body.encode() if isinstance(body, str) else body
        return web.Response(status=status, body=raw, content_type="application/json")

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(application, access_log=None)
    async with listening(runner) as url:
        yield url
