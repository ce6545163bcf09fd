"""A file over HTTP as hubs serve it: from any byte on, and cut short where a test wants a broken connection."""

from __future__ import annotations

from aiohttp import web


async def send_from(
    request: web.Request, content: bytes, *, start: int = 0, cut: int | None = None
) -> web.StreamResponse:
    """`content` from byte `start`. `cut`: the connection breaks after so many bytes; None: it does not."""
    body = content[start:]
    response = web.StreamResponse(status=206 if start else 200)
    response.content_length = len(body)
    if start:
        response.headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
    await response.prepare(request)
    await response.write(body[:cut])
    if cut is not None:
        assert request.transport is not None
        request.transport.abort()
    return response
