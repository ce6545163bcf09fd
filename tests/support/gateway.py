"""The gateway as a process of its own, started as a user starts it."""

from __future__ import annotations

import contextlib
import http.client
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.plain_http import ask

START_LIMIT = 60.0
"""Seconds until the gateway must accept."""


@dataclass
class Gateway:
    """A running gateway. `log` grows while it runs."""

    url: str
    key: str
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def output(self) -> str:
        return self.log.read_text("utf-8", errors="replace")


@contextlib.contextmanager
def gateway(upstream: str, home: Path, *arguments: str, key: str | None) -> Iterator[Gateway]:
    """`qiao serve` in front of `upstream` (a base URL without /v1), on a free port, with an empty `home`.

    Among `arguments`, a second `--upstream` wins.
    """
    own = [] if key is None else ["--api-key", key]
    with process(["serve", "--upstream", f"{upstream}/v1", *own, *arguments], home) as started:
        yield Gateway(started.url, key or "", started.log, started.process)


@contextlib.contextmanager
def process(command: Sequence[str], home: Path) -> Iterator[Gateway]:
    """A qiao server command, given `--host` and `--port`, until it answers /healthz."""
    port = free_port()
    home.mkdir(parents=True, exist_ok=True)
    log = home / "gateway.log"
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(home), "LANG": "C.UTF-8"}
    whole = [sys.executable, "-m", "qiao", *command, "--host", "127.0.0.1", "--port", str(port)]
    with log.open("wb") as output:
        started = subprocess.Popen(whole, env=environment, cwd=home, stdout=output, stderr=subprocess.STDOUT)
    found = Gateway(f"http://127.0.0.1:{port}", "", log, started)
    try:
        _await_health(found, port)
        yield found
    finally:
        started.terminate()
        try:
            started.wait(10)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait(5)


def tools_known(url: str, limit: float = 90.0) -> dict[str, Any]:
    """Who reads tool calls, as `/readyz` tells when the gateway's probe of the engine is over."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        reply = ask(url, "GET", "/readyz")
        if reply.status == 200 and "not known yet" not in (reply.json["tools"]["why"] or ""):
            found: dict[str, Any] = reply.json["tools"]
            return found
        time.sleep(0.1)
    raise AssertionError(f"{url} knew nothing of its engine within {limit:g} s")


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _await_health(found: Gateway, port: int) -> None:
    limit = time.monotonic() + START_LIMIT
    while time.monotonic() < limit:
        if found.process.poll() is not None:
            raise RuntimeError(f"the gateway ended with status {found.process.returncode}:\n{found.output}")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        try:
            connection.request("GET", "/healthz")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.03)
        finally:
            connection.close()
    raise RuntimeError(f"the gateway did not accept within {START_LIMIT} s:\n{found.output}")
