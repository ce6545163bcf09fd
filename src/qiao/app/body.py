"""A request body, read under limits before anything is parsed."""

from __future__ import annotations

import asyncio

from aiohttp import web
from aiohttp.http_exceptions import ContentEncodingError

from qiao.core.fault import Fault

_KNOWN_ENCODINGS = frozenset({"", "identity", "gzip", "deflate"})


async def read_body(request: web.BaseRequest, *, limit: int, timeout: float) -> bytes:
    """The decoded body. Raises `Fault`: too large (413), too slow (408), unknown or broken encoding (400)."""
    encoding = request.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in _KNOWN_ENCODINGS:
        raise Fault(
            "invalid_request",
            f"Content-Encoding: {encoding!r} is not supported; send the body plain or as gzip",
            error_code="request_body_encoding_unsupported",
        )
    declared = request.content_length
    if declared is not None and declared > limit:
        raise _too_large(limit, f"{declared} bytes")
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
    try:
        async with asyncio.timeout(timeout):
            return await _read(request, limit, compressed=encoding in ("gzip", "deflate"))
    except TimeoutError as error:
        raise Fault("timeout", f"the request body did not arrive within {timeout:g} seconds") from error
    except (ContentEncodingError, web.RequestPayloadError) as error:
        if encoding:
            raise Fault(
                "invalid_request", f"the body is not valid {encoding}", error_code="request_body_encoding_invalid"
            ) from error
        raise Fault("invalid_request", "the request body could not be read to its end") from error


async def _read(request: web.BaseRequest, limit: int, *, compressed: bool) -> bytes:
    pieces: list[bytes] = []
    size = 0
    content = request.content
    while piece := await content.readany():
        size += len(piece)
        if size > limit:
            raise _too_large(limit, "more", after_decoding=compressed)
        pieces.append(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _too_large(limit: int, seen: str, *, after_decoding: bool = False) -> Fault:
    return Fault(
        "too_large",
        f"the request body has {seen}, the limit is {limit} bytes; raise it with --max-body",
        error_code="request_body_too_large_after_decoding" if after_decoding else None,
    )
