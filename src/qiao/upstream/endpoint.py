"""Any Anthropic endpoint as Claude Code meets it: raw answers with their times, for the doctor's replay.

Nothing is healed and nothing judged here. A request that gets no HTTP answer is an `Exchange` with a `failure`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec

from qiao.core.fault import Fault
from qiao.upstream.client import Client
from qiao.upstream.errors import TRANSPORT_ERRORS
from qiao.upstream.http import Response

BETAS = (
    "claude-code-20250219,interleaved-thinking-2025-05-14,context-management-2025-06-27,"
    "mid-conversation-tool-changes-2026-07-01,thinking-token-count-2026-05-13,advanced-tool-use-2025-11-20,"
    "effort-2025-11-24,thinking-display-updates-2026-08-18"
)
"""What Claude Code 2.1.330 announces for a model that it does not know."""

LARGEST_ANSWER = 4 * 2**20
"""Bytes of an answer that are read."""


class Exchange(msgspec.Struct, frozen=True, kw_only=True):
    """One request and its answer. Times in seconds.

    * `to_head`: until the answer's head; `to_first`: until its first bytes; `silence`: the longest pause after that.
    * `was_left`: we went away in the middle, as asked.
    """

    status: int = 0
    headers: Mapping[str, str] = {}
    body: bytes = b""
    failure: str | None = None
    to_head: float = 0.0
    to_first: float = 0.0
    silence: float = 0.0
    seconds: float = 0.0
    was_left: bool = False

    def json(self) -> Any:
        """The decoded body; None where it is no JSON."""
        try:
            return msgspec.json.decode(self.body)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return None

    @property
    def is_stream(self) -> bool:
        return "event-stream" in self.headers.get("content-type", "")


class Endpoint:
    """An endpoint at `root` (without /v1). `timeout`: seconds for one request. Use it as an async context manager."""

    def __init__(self, root: str, key: str | None, *, timeout: float = 60.0) -> None:
        self.root = root
        self.timeout = timeout
        self._key = key
        self._client: Client | None = None

    async def __aenter__(self) -> Endpoint:
        self._client = Client(
            self.root, connect_timeout=5.0
        )  # a key goes with each request: one point shows a wrong one
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open().close()

    async def get(self, path: str, *, method: str = "GET") -> Exchange:
        """GET or HEAD."""
        started = _now()
        try:
            reply = await self._open().get(path, timeout=self.timeout, headers=self._headers(), method=method)
        except Fault as fault:
            return Exchange(failure=self._words(fault), seconds=_now() - started)
        return Exchange(status=reply.status, headers=reply.headers, body=reply.body, seconds=_now() - started)

    async def post(
        self, path: str, body: Mapping[str, Any] | bytes, *, key: str | None = None, leave_after: int | None = None
    ) -> Exchange:
        """POST and read the answer. `key`: shown instead of the own one; `leave_after`: go away after so many bytes."""
        started = _now()
        raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
        headers = self._headers() if key is None else self._headers(key)
        try:
            response = await self._open().post(path, raw, headers=headers, timeout=self.timeout)
        except Fault as fault:
            return Exchange(failure=self._words(fault), seconds=_now() - started)
        return await self._read(response, started, leave_after or LARGEST_ANSWER)

    async def _read(self, response: Response, started: float, most: int) -> Exchange:
        to_head = last = _now()
        first: float | None = None
        silence, failure, was_left = 0.0, None, False
        body = bytearray()
        try:
            async with asyncio.timeout(self.timeout):
                while piece := await response.read():
                    now = _now()
                    silence = max(silence, now - last) if first is not None else 0.0
                    first = first or now
                    last = now
                    body += piece
                    if len(body) >= most:
                        was_left = True
                        break
        except TRANSPORT_ERRORS as error:
            failure = self._words(self._open().fault(error))
        finally:
            response.close()
        return Exchange(
            status=response.status,
            headers=response.headers,
            body=bytes(body),
            failure=failure,
            to_head=to_head - started,
            to_first=(first or _now()) - started,
            silence=silence,
            seconds=_now() - started,
            was_left=was_left,
        )

    def _headers(self, key: str | None = None) -> dict[str, str]:
        shown = self._key if key is None else key
        own = {"anthropic-version": "2023-06-01", "anthropic-beta": BETAS, "x-app": "cli"}
        return {**own, "x-api-key": shown, "Authorization": f"Bearer {shown}"} if shown else own

    def _words(self, fault: Fault) -> str:
        return f"nothing within {self.timeout:g} s" if fault.kind == "timeout" else fault.message

    def _open(self) -> Client:
        assert self._client is not None, "use `async with`"
        return self._client


def _now() -> float:
    return asyncio.get_running_loop().time()
