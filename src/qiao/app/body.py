"""A request body, read under limits before anything is parsed."""

from __future__ import annotations

import asyncio
import zlib

from aiohttp import web

from qiao.core.fault import Fault

# What zlib reads: gzip and zlib headers, told apart by themselves.
_COMPRESSED = frozenset({"gzip", "x-gzip", "deflate"})
_PLAIN = frozenset({"", "identity"})


async def read_body(request: web.BaseRequest, *, limit: int, timeout: float) -> bytes:
    """The decoded body. Raises `Fault`: too large (413), too slow (408), unknown or broken encoding (400)."""
    encoding = request.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in _COMPRESSED | _PLAIN:
        raise Fault(
            "invalid_request",
            f"Content-Encoding: {encoding!r} is not supported; send the body plain or as gzip",
            error_code="request_body_encoding_unsupported",
        )
    declared = request.content_length
    if declared is not None and declared > limit:
        raise _too_large(limit)
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
    if request.content.is_eof() and encoding in _PLAIN:
        return _checked(request.content.read_nowait(), limit)  # it came together with the head
    try:
        async with asyncio.timeout(timeout):
            if encoding in _COMPRESSED:
                return await _read_compressed(request, limit)
            return await _read(request, limit)
    except TimeoutError as error:
        raise Fault("timeout", f"the request body did not arrive within {timeout:g} seconds") from error
    except zlib.error as error:
        raise Fault(
            "invalid_request", f"the body is not valid {encoding}", error_code="request_body_encoding_invalid"
        ) from error
    except web.RequestPayloadError as error:
        raise Fault("invalid_request", "the request body could not be read to its end") from error


async def _read(request: web.BaseRequest, limit: int) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while piece := await request.content.readany():
        size += len(piece)
        if size > limit:
            raise _too_large(limit)
        pieces.append(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _checked(body: bytes, limit: int) -> bytes:
    if len(body) > limit:
        raise _too_large(limit)
    return body


async def _read_compressed(request: web.BaseRequest, limit: int) -> bytes:
    """The limit holds for what comes out, so that a small body cannot grow without bound."""
    inflate = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    pieces: list[bytes] = []
    size = 0
    while piece := await request.content.readany():
        while piece:
            out = inflate.decompress(piece, limit + 1 - size)
            size += len(out)
            if size > limit:
                raise _too_large(limit, after_decoding=True)
            pieces.append(out)
            piece = inflate.unconsumed_tail
    pieces.append(inflate.flush())
    if not inflate.eof:
        raise zlib.error("incomplete")
    return b"".join(pieces)


def _too_large(limit: int, *, after_decoding: bool = False) -> Fault:
    return Fault(
        "too_large",
        f"the request body is larger than {limit} bytes; --max-body raises the limit",
        error_code="request_body_too_large_after_decoding" if after_decoding else None,
    )
