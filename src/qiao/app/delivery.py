"""The client's side of one answer: begun when there is something to say, kept alive while there is nothing.

Clients and the proxies before them give up on silence: Claude Code after five to six minutes, proxies after one. So an
answer that lets wait for longer than `Patience.begin` is begun without its first word, and gets a filler every
`Patience.interval` from then on: a ping in a stream, white space before the JSON of a whole answer.

An answer that was begun has the status 200. What goes wrong afterwards is an `error` event in a stream; a whole answer
ends with the error's body and a connection that is closed before the end of the answer, so that no client takes the
error for an answer: the official SDKs raise a connection error (Python's asks again), and a person sees the reason.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping

import msgspec
from aiohttp import web

from qiao.app.response import GrowingResponse

# Bytes that may wait for a slow client before the engine has to wait as well.
_MAX_UNSENT = 64 * 1024
# Bytes that may wait for one when the engine goes on, because it works for others as well.
_MAX_BEHIND = 4 * 2**20


class Patience(msgspec.Struct, frozen=True):
    """Seconds. `begin`: of silence before the answer is begun; `interval`: between fillers; `limit`: of an engine that
    says nothing at all, until it counts as dead."""

    begin: float
    interval: float
    limit: float


class Delivery:
    """One answer on its way to one client.

    It is written where it comes in: a task switch would cost more than the translation.

    * `headers()`: the answer's headers as they are known when it is begun. `filler`: what is said in silence.
    * `heard`, `said`: when the engine and the gateway said something last; whoever reads the engine sets `heard`.
    * `first`: when the first byte of the answer itself was written. `written`: bytes of it.
    * `gave_up`: the engine was silent for `patience.limit`; `on_silence()` was called then, to end the waiting.
    """

    def __init__(
        self, request: web.BaseRequest, headers: Callable[[], Mapping[str, str]], filler: bytes, patience: Patience
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.time = self._loop.time
        self.said = self.heard = self.time()
        self.first: float | None = None
        self.written = 0
        self.gave_up = False
        self.on_silence: Callable[[], object] | None = None
        self._request = request
        self._headers = headers
        self._filler = filler
        self._patience = patience
        self._response: GrowingResponse | None = None
        self._made: GrowingResponse | None = None
        self._has_client = True
        self._is_blocked = False
        self._client_limit = patience.limit
        # Not now: as a rule the request is sent before the loop goes on.
        self._timer: asyncio.Handle = self._loop.call_soon(self._arm, patience.begin)

    @property
    def has_begun(self) -> bool:
        """The head has left: the status cannot change any more."""
        return self._response is not None

    def make_ready(self) -> GrowingResponse:
        """Make the head while there is time: the headers are known."""
        self._made = GrowingResponse(self._request, self._headers())
        return self._made

    def begin(self) -> GrowingResponse:
        """The response, its head sent. Raises ConnectionError. Safe to call at any time."""
        if self._response is None:
            self._response = self.make_ready() if self._made is None else self._made
            self._response.open()
        return self._response

    def say(self, out: bytes, *, is_last: bool = False) -> bool:
        """Bytes of the answer, which has begun. `is_last`: nothing follows. False: its client takes no more for now.

        A client that is gone is not told: its request is being cancelled.
        """
        self.said = self.time()
        if self.first is None:
            self.first = self.said
        self.written += len(out)
        if self._response is None or not self._has_client:
            return True
        return self._response.send(out, is_last=is_last) < _MAX_UNSENT

    def hang_up_if_far_behind(self) -> None:
        """The engine goes on although this client takes nothing: hang up on it if it is far behind."""
        transport = self._request.transport
        if transport is not None and transport.get_write_buffer_size() > _MAX_BEHIND:
            transport.abort()

    async def drain(self) -> None:
        """Wait until the client has taken what it was sent.

        Raises ConnectionError for a client that takes nothing for as long as an engine may be silent. Not to be
        cancelled while the answer goes on: the server library waits only once for a connection, and whoever waits
        again would be told of the cancelling.
        """
        if not self._has_client:
            return
        try:
            async with asyncio.timeout(self._client_limit):
                await self._request.writer.drain()
        except TimeoutError as error:
            if self._request.transport is not None:
                self._request.transport.abort()  # closing would wait for it as well
            raise ConnectionAbortedError("the client has taken nothing for too long") from error

    @contextlib.contextmanager
    def holding_engine(self) -> Iterator[None]:
        """The engine waits for the client meanwhile, and is not silent by that."""
        self._is_blocked = True
        try:
            yield
        finally:
            self._is_blocked = False
            self.heard = self.time()

    async def end(self) -> web.StreamResponse:
        """The answer's end."""
        self.rest()
        response = self.begin()
        await response.write_eof()
        return response

    async def break_off(self) -> web.StreamResponse:
        """Close the connection before the answer's end, so that it cannot be taken for a whole one."""
        self.rest()
        response = self.begin()
        response.break_off()
        return response

    def rest(self) -> None:
        """No more fillers. Safe to call at any time."""
        self._timer.cancel()

    def lose_client(self) -> None:
        """The client is gone, but the engine works on for others: only its silence counts from now on."""
        self._has_client = False
        self._look()

    def trust_engine(self) -> None:
        """Somebody else watches the engine's silence."""
        self._patience = msgspec.structs.replace(self._patience, limit=float("inf"))

    def _arm(self, wait: float) -> None:
        self._timer.cancel()
        silence = self.heard + self._patience.limit - self.time()
        self._timer = self._loop.call_later(max(min(wait, silence), 0.005), self._look)

    def _look(self) -> None:
        now = self.time()
        patience = self._patience
        if self._is_blocked:
            self.heard = now
        if now - self.heard >= patience.limit:
            self.gave_up = True
            if self.on_silence is not None:
                self.on_silence()
            return
        if not self._has_client:
            self._arm(patience.limit)
            return
        wait = self.said + (patience.interval if self.has_begun else patience.begin) - now
        if wait <= 0:
            self.said = now
            wait = patience.interval
            # A client that is gone: whoever reads the engine is told by the server.
            with contextlib.suppress(ConnectionError):
                self.begin().send(self._filler)
        self._arm(wait)
