"""An event loop in a thread of its own, so that a server can serve synchronous and asynchronous tests alike."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from types import TracebackType
from typing import Self, TypeVar

Value = TypeVar("Value")


class Background:
    """Enters asynchronous context managers in its own loop and leaves them, last first, when it is closed."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="background", daemon=True)
        self._stack = contextlib.AsyncExitStack()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(20)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _end(self) -> None:
        """Leave everything, and end what runs on all the same: a connection whose task never ends is never closed."""
        await self._stack.aclose()
        if left := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(left, timeout=2)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
        await self._loop.shutdown_asyncgens()

    def enter(self, manager: contextlib.AbstractAsyncContextManager[Value]) -> Value:
        """Enter `manager`; it stays open until this background is closed."""
        return asyncio.run_coroutine_threadsafe(self._stack.enter_async_context(manager), self._loop).result(10)
