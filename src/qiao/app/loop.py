"""The event loop of a server process: uvloop where it exists (not on Windows), else Python's own."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

try:
    import uvloop
except ImportError:
    uvloop = None  # type: ignore[assignment]

_Result = TypeVar("_Result")

_YOUNG_OBJECTS = 20_000


def run(main: Coroutine[Any, Any, _Result]) -> _Result | None:
    """Run `main` on a fresh loop until it ends, or until SIGINT or SIGTERM cancels it; then None.

    A cancelled `main` cleans up (children stop, answers end) before this returns. A second signal cancels the
    cleaning up as well.
    """
    _let_requests_pass()
    with asyncio.Runner(loop_factory=None if uvloop is None else uvloop.new_event_loop) as runner:
        return runner.run(_until_signal(main))


def _let_requests_pass() -> None:
    """Look for reference cycles after many objects, and never among the modules.

    Python looks after every 700 new objects, which is several times within one agent's request, and now and then
    through all that was ever imported, which takes longer than the request.
    """
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, 20, 20)


async def _until_signal(main: Coroutine[Any, Any, _Result]) -> _Result | None:
    loop = asyncio.get_running_loop()
    work = asyncio.ensure_future(main)
    received: list[signal.Signals] = []

    def stop(number: signal.Signals) -> None:
        received.append(number)
        work.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):  # Windows: Ctrl-C arrives as KeyboardInterrupt there
            loop.add_signal_handler(number, stop, number)
    try:
        return await work
    except asyncio.CancelledError:
        if received:
            return None
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        raise
