"""The HTTP client that every upstream shares: kept connections, every failure a `Fault`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import msgspec

from qiao.core.fault import Fault
from qiao.upstream.errors import TRANSPORT_ERRORS, from_exception
from qiao.upstream.http import Connections, Origin, Response

_ERROR_BODY_LIMIT = 256 * 1024

T = TypeVar("T")


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
    """Requests to one upstream root. Use it inside one running loop; `close()` it at the end.

    `root`: http or https URL, to which paths are appended. `connect_timeout`: seconds. `has_failed`: the server could
    not be reached, or broke off, since somebody set this to False: it may have been started anew. `connections`: those
    to it, to be looked at.
    """

    def __init__(self, root: str, *, api_key: str | None = None, connect_timeout: float = 10.0) -> None:
        self.root = root.rstrip("/")
        headers = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "qiao"}
        if api_key:
            headers["Authorization"] = f"Bearer {api_key}"
        self.has_failed = False
        self.connections = Connections(Origin(self.root), headers=headers, connect_timeout=connect_timeout)

    async def close(self) -> None:
        await self.connections.close()

    async def post(
        self,
        path: str,
        body: bytes,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        meanwhile: Callable[[], None] | None = None,
    ) -> Response:
        """POST JSON; returns when the response's head has come. The caller closes the response. Raises `Fault`.

        `meanwhile` is called whenever the request was sent, before its answer is waited for.
        """
        sent = {"Content-Type": "application/json", **(headers or {})}
        asked = self.connections.request("POST", path, body, sent, meanwhile=meanwhile)
        try:
            return await (asked if timeout is None else _within(timeout, asked))
        except TRANSPORT_ERRORS as error:
            raise self.fault(error) from error

    async def post_whole(
        self, path: str, body: bytes, *, timeout: float, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """POST JSON and read the whole answer. Raises `Fault` when there is none in `timeout` seconds."""
        response = await self.post(path, body, headers=headers, timeout=timeout)
        return await self._whole(response, timeout)

    async def get(
        self, path: str, *, timeout: float, headers: Mapping[str, str] | None = None, method: str = "GET"
    ) -> Reply:
        """GET (or HEAD) and read the whole answer. Raises `Fault` when there is none in `timeout` seconds."""
        try:
            response = await _within(timeout, self.connections.request(method, path, headers=headers))
        except TRANSPORT_ERRORS as error:
            raise self.fault(error) from error
        if method == "HEAD":
            response.close()  # its head may name the length of a body that never comes
            return Reply(response.status, response.headers, b"")
        return await self._whole(response, timeout)

    async def error_body(self, response: Response, *, timeout: float = 10.0) -> bytes:
        """What a refusal says, cut at a bound; the response is closed."""
        try:
            return await _within(timeout, response.read_all(_ERROR_BODY_LIMIT))
        except TRANSPORT_ERRORS:
            return b""  # the status alone already is the answer
        finally:
            response.close()

    async def _whole(self, response: Response, timeout: float) -> Reply:
        try:
            body = await _within(timeout, response.read_all())
        except TRANSPORT_ERRORS as error:
            raise self.fault(error) from error
        finally:
            response.close()
        return Reply(response.status, response.headers, body)

    def fault(self, error: Exception) -> Fault:
        """The fault that a transport error stands for."""
        fault = from_exception(error, address=self.root)
        self.has_failed |= fault.kind != "timeout"
        return fault


async def _within(timeout: float, asked: Awaitable[T]) -> T:
    async with asyncio.timeout(timeout):
        return await asked
