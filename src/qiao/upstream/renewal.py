"""When what is known of an engine is asked for again, so that one which came back as another is not taken for the old.

As long as a connection to it stands, an engine is the same process, and what is behind it (a proxy's other engine, an
adapter loaded meanwhile) is asked for in the background. Where none stands, or it closed one that was kept, it may have
been started anew: then a request waits for the answer, for a bounded time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from qiao.core.fault import Fault
from qiao.upstream.http import Connections

AGE = 10.0
"""Seconds after which what is known may be outdated."""

AGE_ALONE = 3.0
"""The same where no connection stands: one has to be made anyway."""

_PATIENCE = 0.5


class Renewal:
    """Asks again by `ask()`, once at a time. Use it inside one running loop; `close()` it at the end."""

    def __init__(self, connections: Connections, ask: Callable[[], Awaitable[None]]) -> None:
        self._connections = connections
        self._ask = ask
        self._task: asyncio.Task[None] | None = None
        self._is_urgent = False
        self._begun_at = 0.0
        self._over_at = 0.0

    def is_due(self, known_at: float) -> bool:
        """Whether what is known since `known_at` (the loop's time) may be outdated."""
        connections = self._connections
        if connections.was_closed:
            return True
        # One that does not answer is not asked by every request.
        age = asyncio.get_running_loop().time() - (known_at if known_at > self._over_at else self._over_at)
        return age > AGE_ALONE and (age > AGE or not connections.is_connected)

    async def run(self) -> None:
        """Ask; wait only where the engine may have been started anew. That it does not answer is no failure here."""
        now = asyncio.get_running_loop().time()
        if self._task is None or self._task.done():
            self._is_urgent = not self._connections.is_connected
            self._begun_at = now
            self._task = asyncio.create_task(self._run())
        if self._is_urgent or self._connections.was_closed:
            await asyncio.wait({self._task}, timeout=max(0.0, self._begun_at + _PATIENCE - now))

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        try:
            with contextlib.suppress(Fault):
                await self._ask()
        finally:
            self._connections.was_closed = False
            self._over_at = asyncio.get_running_loop().time()
