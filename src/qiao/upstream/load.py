"""How many requests wait in an engine, as far as it tells: polled in the background, and only while it is asked.

vLLM, SGLang and llama.cpp (`--metrics`) tell it in their Prometheus page. The first request after a pause waits for a
look, half a second at most. Between two looks the requests that were sent since are counted as waiting, where some were
waiting already.
"""

from __future__ import annotations

import asyncio
import contextlib
import re

from qiao.core.fault import Fault
from qiao.upstream.client import Client

RETRY_AFTER = 3.0
"""Seconds after which a client that was turned away shall come back."""

_INTERVAL = 1.0
_IDLE_AFTER = 10.0
_TIMEOUT = 10.0
_STALE_AFTER = 15.0
# A look older than this was no answer to the question whether one more may come: the watch looks three times as often.
_FRESH = 3.0
# Seconds after its beginning for which a look is waited for; an engine that is slower to tell turns nobody away.
_PATIENCE = 0.5
_WAITING = re.compile(
    rb"^(?:vllm:num_requests_waiting|sglang:num_queue_reqs|llamacpp:requests_deferred)(?:\{[^}\n]*\})?[ \t]+(\S+)",
    re.MULTILINE,
)


def waiting_in(page: bytes) -> int | None:
    """Requests that wait, from an engine's Prometheus page; None where it does not tell."""
    found = [float(value) for value in _WAITING.findall(page)]
    return int(sum(found)) if found else None


class Load:
    """The queue of the engine that `client` reaches. `limit`: requests that may wait in it."""

    def __init__(self, client: Client, limit: int) -> None:
        self.limit = limit
        self._client = client
        self._waiting: int | None = None
        self._seen_at = 0.0
        self._asked_at = 0.0
        self._begun_at = 0.0
        self._over_at: float | None = None
        self._looked = asyncio.Event()
        self._sent = 0
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int | None:
        """Requests that waited at the last look; None where that is not known, or too long ago."""
        is_stale = asyncio.get_running_loop().time() - self._seen_at > _STALE_AFTER
        return None if is_stale else self._waiting

    async def admit(self) -> None:
        """One more request. Raises `Fault` (overloaded) where the queue is longer than it may be."""
        self._asked_at = now = asyncio.get_running_loop().time()
        if self._task is None or self._task.done():
            self._begin(now)
            self._task = asyncio.create_task(self._watch())
        if self._over_at is None or now - self._over_at > _FRESH:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(self._begun_at + _PATIENCE):
                    await self._looked.wait()
        waiting = self.waiting or 0
        if waiting and waiting + self._sent > self.limit:
            raise Fault(
                "overloaded",
                f"{waiting + self._sent} requests wait in the engine already, more than the {self.limit} that may "
                "(--queue-limit)",
                party="upstream",
                retry_after=RETRY_AFTER,
            )
        self._sent += 1

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def look(self) -> None:
        """Ask the engine now. That it does not answer is no failure: then nothing is known."""
        loop_time = asyncio.get_running_loop().time
        self._begin(loop_time())
        sent = self._sent
        try:
            reply = await self._client.get("/metrics", timeout=_TIMEOUT)
        except Fault:
            pass
        else:
            self._waiting = waiting_in(reply.body) if reply.status == 200 else None
            self._seen_at = loop_time()
            self._sent -= sent
        finally:
            self._over_at = loop_time()
            self._looked.set()

    def _begin(self, now: float) -> None:
        self._begun_at = now
        self._looked.clear()

    async def _watch(self) -> None:
        loop_time = asyncio.get_running_loop().time
        while loop_time() - self._asked_at < _IDLE_AFTER:
            await self.look()
            await asyncio.sleep(_INTERVAL)
