"""The embedded engine for tests: its model is fetched once by qiao's own code and kept in the checkout's .cache."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qiao.engines.base import Endpoint
from qiao.engines.llamacpp import EmbeddedEngine, EngineSettings
from qiao.engines.models import acquire

CACHE = Path(__file__).parents[2] / ".cache"
"""Given to `--cache`."""


def model_file() -> Path:
    """The default model, downloaded if it is not there."""
    return asyncio.run(acquire(CACHE / "models", environment=os.environ))


@dataclass
class Running:
    """An engine that answers. The loop that owns it runs in a thread of its own."""

    engine: EmbeddedEngine
    endpoint: Endpoint

    def post(self, path: str, body: dict[str, Any] | bytes, limit: float = 120) -> tuple[int, Any]:
        """Status and decoded answer."""
        connection = self._connection(limit)
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        try:
            connection.request("POST", path, sent, {"Authorization": f"Bearer {self.endpoint.key}"})
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def slots(self) -> list[dict[str, Any]]:
        """What it works on. On a busy machine the answer waits for the batch that is being read."""
        connection = self._connection(60)
        try:
            connection.request("GET", "/slots", headers={"Authorization": f"Bearer {self.endpoint.key}"})
            found: list[dict[str, Any]] = json.loads(connection.getresponse().read())
            return found
        finally:
            connection.close()

    def is_busy(self) -> bool:
        """Whether it works on an answer."""
        return any(slot["is_processing"] for slot in self.slots())

    def _connection(self, limit: float) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.endpoint.address.removeprefix("http://"), timeout=limit)


@contextlib.contextmanager
def running(**settings: Any) -> Iterator[Running]:
    """An engine with these settings, ended at the end of the block."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="embedded engine", daemon=True)
    thread.start()
    engine = EmbeddedEngine(
        EngineSettings(model=model_file(), cache=CACHE / "models", **settings), environment=os.environ
    )
    try:
        endpoint = asyncio.run_coroutine_threadsafe(engine.start(), loop).result(120)
        yield Running(engine, endpoint)
    finally:
        asyncio.run_coroutine_threadsafe(engine.stop(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def children(pid: int) -> list[int]:
    """The processes that `pid` started and that still run."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            found += map(int, (task / "children").read_text().split())
    return found


def is_alive(pid: int) -> bool:
    """Whether a process runs that is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def wait_until(condition: Any, limit: float, what: str) -> float:
    """Seconds until `condition()` held."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < limit, f"{what}: not within {limit} s"
        time.sleep(0.02)
    return time.monotonic() - begun
