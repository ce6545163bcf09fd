"""The HTTP client that every upstream shares: one pooled session, every failure a `Fault`."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Mapping
from typing import Any

import aiohttp
import msgspec
from aiohttp.client_proto import ResponseHandler

from qiao.core.fault import Fault
from qiao.upstream.errors import TRANSPORT_ERRORS, from_exception

# uvicorn, under vLLM and most others, closes idle connections after 5 s: ours are given up before that.
_KEEP_ALIVE_SECONDS = 3.0
# A pooled connection that the server closed fails at once; a failure later than this is the engine's own.
_STALE_CONNECTION_SECONDS = 1.0
_ERROR_BODY_LIMIT = 256 * 1024


class _Connection(ResponseHandler):
    """aiohttp 3.14 feeds its parser an empty piece after every read of an answer, in case reading had been paused.

    That is a tenth of what a streamed chunk costs here, and it is only needed when reading was paused.
    """

    def resume_reading(self, resume_parser: bool = True) -> None:
        if self._reading_paused:
            super().resume_reading(resume_parser)


class _Connector(aiohttp.TCPConnector):
    """aiohttp's connector making our connections."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._factory = functools.partial(_Connection, loop=self._loop)  # type: ignore[assignment]


class Reply(msgspec.Struct, frozen=True):
    """A small answer, read whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The decoded body, None where it is no JSON."""
        try:
            return msgspec.json.decode(self.body)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return None


class Client:
    """Requests to one upstream root. Create it inside the running loop; `close()` it at the end."""

    def __init__(self, root: str, *, api_key: str | None = None, connect_timeout: float = 10.0) -> None:
        self.root = root.rstrip("/")
        headers = {"Accept-Encoding": "identity", "User-Agent": "qiao"}
        if api_key:
            headers["Authorization"] = f"Bearer {api_key}"
        self._session = aiohttp.ClientSession(
            connector=_Connector(limit=0, keepalive_timeout=_KEEP_ALIVE_SECONDS),
            timeout=aiohttp.ClientTimeout(total=None, connect=None, sock_connect=connect_timeout, sock_read=None),
            headers=headers,
            # A redirect or a proxy variable would send prompts where the user did not point.
            trust_env=False,
            auto_decompress=True,
        )

    async def close(self) -> None:
        await self._session.close()

    async def post(
        self, path: str, body: bytes, *, headers: Mapping[str, str] | None = None, timeout: float | None = None
    ) -> aiohttp.ClientResponse:
        """POST JSON; returns when the response's head has come. The caller closes the response. Raises `Fault`."""
        url = self.root + path
        sent = {"Content-Type": "application/json", **(headers or {})}
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            async with asyncio.timeout(timeout):
                try:
                    return await self._session.post(url, data=body, headers=sent, allow_redirects=False)
                except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
                    is_stale = not isinstance(error, aiohttp.ClientConnectorError)
                    if not is_stale or loop.time() - started > _STALE_CONNECTION_SECONDS:
                        raise
                    return await self._session.post(url, data=body, headers=sent, allow_redirects=False)
        except TRANSPORT_ERRORS as error:
            raise from_exception(error, address=self.root) from error

    async def post_whole(
        self, path: str, body: bytes, *, timeout: float, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """POST JSON and read the whole answer. Raises `Fault` when there is none in `timeout` seconds."""
        response = await self.post(path, body, headers=headers, timeout=timeout)
        return await self._whole(response, timeout)

    async def get(self, path: str, *, timeout: float) -> Reply:
        """GET and read the whole answer. Raises `Fault` when there is none in `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                response = await self._session.get(self.root + path, allow_redirects=False)
        except TRANSPORT_ERRORS as error:
            raise from_exception(error, address=self.root) from error
        return await self._whole(response, timeout)

    async def error_body(self, response: aiohttp.ClientResponse, *, timeout: float = 10.0) -> bytes:
        """What a refusal says, cut at a bound; the response is closed."""
        try:
            async with asyncio.timeout(timeout):
                return await response.content.read(_ERROR_BODY_LIMIT)
        except TRANSPORT_ERRORS:
            return b""  # the status alone already is the answer
        finally:
            response.close()

    async def _whole(self, response: aiohttp.ClientResponse, timeout: float) -> Reply:
        try:
            async with asyncio.timeout(timeout):
                body = await response.read()
        except TRANSPORT_ERRORS as error:
            raise from_exception(error, address=self.root) from error
        finally:
            response.release()
        return Reply(response.status, response.headers, body)

    def fault(self, error: Exception) -> Fault:
        """A transport error while an answer was being read."""
        return from_exception(error, address=self.root)
