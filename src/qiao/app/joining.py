"""One request asked twice: the second joins the first instead of making the engine prefill again.

A client that lost its patience hangs up and asks the same again. While the first request still runs, one with the same
key, the same session and agent, the same path and the same body gets the first one's answer: what was said already,
then the rest. Only clients that name their session (Claude Code, in a header and in `metadata`) are joined: two
programs that ask the same with sampling want two answers. Memory and number are bounded, and nothing is kept once the
answer is over.

The engine is stopped when nobody listens any more. If an answer has let wait and has not said a word yet, that happens
`GRACE` seconds later: a client that gave up asks again half a second after it left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

import msgspec
from aiohttp import web

from qiao.app.conversations import SESSION_HEADER
from qiao.core.conversation import Conversation
from qiao.core.exchange import Exchange
from qiao.core.fault import Fault

GRACE = 1.0
"""Seconds that an answer runs on after its last client left, where that client may only have lost its patience. Twice
as long whenever one came back, also too late: clients wait longer from time to time."""

MOST_GRACE = 8.0
"""For one that came back three times: Claude Code asks again after 0.5, 1, 2, 4, 9 s, and each grace is twice that."""

GRACE_AFTER = 2.0
"""Seconds of waiting before which no client loses its patience: who leaves earlier has cancelled."""

MOST_RUNNING = 256
MOST_BODY_BYTES = 64 * 2**20
MOST_KEPT = 2**20
"""Bytes of an answer up to which it can be joined."""

MOST_FOLLOWED = 32 * 2**20
"""Bytes of an answer that is kept for those who have joined it."""

Identity: TypeAlias = tuple[str, ...]


def identity_of(request: web.BaseRequest, conversation: Conversation) -> Identity | None:
    """Who asks, as far as it decides whether two requests are one; None for a client that names no session."""
    if conversation.session is None or not conversation.names_session:
        return None
    headers = request.headers
    return (
        conversation.session,
        headers.get(SESSION_HEADER, ""),
        headers.get("x-claude-code-agent-id", ""),
        headers.get("x-api-key", ""),
        headers.get("Authorization", ""),
        request.path,
    )


class Whole(msgspec.Struct, frozen=True):
    """A whole answer as it is sent. `headers`: what it has to say beyond the usual ones."""

    body: bytes
    headers: dict[str, str]


class Running:
    """One request that runs and can be joined. Its driver adds what is said; followers read it.

    `times`: how often a client came back to it, or to the same request before it.
    `fault`: what ended it before a word was said. `whole`: the answer to a request that is no stream.
    `is_over`: nothing more comes; `is_lost`: it ended without an end. `unclaimed`: what was spent on it
    and is in nobody's record yet, because the client that asked first is gone; see `claim`.
    """

    def __init__(self, joining: Joining, identity: Identity, body: bytes, request_id: str, *, times: int) -> None:
        self.identity = identity
        self.body = body
        self.request_id = request_id
        self.pieces: list[bytes] = []
        self.fault: Fault | None = None
        self.whole: Whole | None = None
        self.is_over = False
        self.is_lost = False
        self.upstream_model = ""
        self.unclaimed: Exchange | None = None
        self._joining = joining
        self._started = asyncio.get_running_loop().time()
        self._size = 0
        self._is_kept = True
        self._followers = 0
        self._is_followed = asyncio.Event()
        self._times = times
        self._waiting: set[asyncio.Future[None]] = set()
        self._task: asyncio.Task[None] | None = None
        self._farewell: asyncio.TimerHandle | None = None

    # -- for the driver -------------------------------------------------------------------------------------------

    def add(self, piece: bytes) -> None:
        """Bytes for every client. Beyond the bounds they are kept no more."""
        if not self._is_kept:
            return
        self._size += len(piece)
        self.pieces.append(piece)
        if self._size > MOST_KEPT and (not self._followers or self._size > MOST_FOLLOWED):
            self._is_kept = False
            self._is_followed.clear()
            self._joining.drop(self)
            self.pieces = []
            if self._followers:
                self.end(is_lost=True)
        if self._waiting:
            self._wake()

    def end(self, *, fault: Fault | None = None, whole: Whole | None = None, is_lost: bool = False) -> None:
        """The answer is over. Only the first call counts."""
        self._cancel_farewell()
        if self.is_over:
            return
        self.is_over = True
        self.fault, self.whole, self.is_lost = fault, whole, is_lost
        self._joining.drop(self)
        self._wake()

    def hand_over(self, drive: Callable[[], Coroutine[Any, Any, None]], rest: Callable[[], None]) -> bool:
        """The driver's own client is gone: let a task of ours go on, if somebody listens or may come back.

        `rest()` is called at its end, also where it was cancelled before it began.
        """
        if self.is_over or not (self._followers or self._may_be_asked_again()):
            return False
        self._task = asyncio.create_task(drive())
        self._task.add_done_callback(lambda _: rest())
        self._joining.keep(self._task)
        if not self._followers:
            self._bid_farewell()
        return True

    @property
    def is_followed(self) -> bool:
        """Somebody else listens: what is said is kept for them, whatever the driver's own client does."""
        return self._is_followed.is_set() and self._is_kept

    async def followed(self) -> None:
        """Wait until somebody joins."""
        await self._is_followed.wait()

    @property
    def is_deserted(self) -> bool:
        """Nobody else listens."""
        return not self._followers

    # -- for followers --------------------------------------------------------------------------------------------

    def join(self) -> None:
        """One more client listens."""
        self._followers += 1
        self._times += 1
        self._is_followed.set()
        self._cancel_farewell()

    def leave(self) -> None:
        """A client that joined has its answer, or is gone."""
        self._followers -= 1
        if not self._followers:
            self._is_followed.clear()
        if self._followers or self._task is None or self._task.done():
            return
        if self._may_be_asked_again():
            self._bid_farewell()
        else:
            self._stop(self._task)

    def claim(self) -> Exchange | None:
        """What was spent, for the record of a client that leaves; None where somebody has it, or there will be more."""
        if self._task is None or not (self._task.done() or self._task.cancelling()):
            return None
        claimed, self.unclaimed = self.unclaimed, None
        return claimed

    async def changed(self) -> None:
        """Wait until there is something new."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            await future
        finally:
            self._waiting.discard(future)

    def _may_be_asked_again(self) -> bool:
        waited = asyncio.get_running_loop().time() - self._started
        return not self._size and waited >= GRACE_AFTER and self._joining.has(self)

    def _bid_farewell(self) -> None:
        task = self._task
        if task is not None:
            grace = min(GRACE * 2**self._times, MOST_GRACE)
            self._farewell = asyncio.get_running_loop().call_later(grace, self._give_up, task)

    def _give_up(self, task: asyncio.Task[None]) -> None:
        self._joining.remember(self, self._times + 1)
        self._stop(task)

    def _cancel_farewell(self) -> None:
        if self._farewell is not None:
            self._farewell.cancel()
            self._farewell = None

    def _stop(self, task: asyncio.Task[None]) -> None:
        self._joining.drop(self)  # whoever asks now has to ask anew
        task.cancel()

    def _wake(self) -> None:
        for future in self._waiting:
            if not future.done():
                future.set_result(None)


class Joining:
    """What runs and can be joined."""

    def __init__(self) -> None:
        self._running: dict[Identity, list[Running]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._given_up: dict[tuple[Identity, int], int] = {}
        self._count = 0
        self._bytes = 0

    def __len__(self) -> int:
        return self._count

    def find(self, identity: Identity, body: bytes) -> Running | None:
        """The same request, while it runs."""
        for running in self._running.get(identity, ()):
            if running.body == body:
                return running
        return None

    def begin(self, identity: Identity, body: bytes, request_id: str) -> Running | None:
        """A request that others may join from now on; None where too much runs already."""
        if self._count >= MOST_RUNNING or self._bytes + len(body) > MOST_BODY_BYTES:
            return None
        times = self._given_up.pop((identity, hash(body)), 0) if self._given_up else 0
        running = Running(self, identity, body, request_id, times=times)
        self._running.setdefault(identity, []).append(running)
        self._count += 1
        self._bytes += len(body)
        return running

    def has(self, running: Running) -> bool:
        """Whether it can still be joined."""
        return running in self._running.get(running.identity, ())

    def drop(self, running: Running) -> None:
        """It can be joined no more. Safe to call again."""
        if not self.has(running):
            return
        others = self._running[running.identity]
        others.remove(running)
        if not others:
            del self._running[running.identity]
        self._count -= 1
        self._bytes -= len(running.body)

    def remember(self, running: Running, times: int) -> None:
        """Nobody came back to it in time: the same request will be waited for longer."""
        if len(self._given_up) >= MOST_RUNNING:
            del self._given_up[next(iter(self._given_up))]
        self._given_up[running.identity, hash(running.body)] = times

    def keep(self, task: asyncio.Task[None]) -> None:
        """A request that runs without the client that began it."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Stop what runs without a client."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
