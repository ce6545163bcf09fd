"""Plain HTTP, as curl would speak it: for what no SDK would send, and for what one must see to the byte."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Reply:
    """A whole answer. `headers`: names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    url: str, method: str, path: str, body: Any = None, *, headers: dict[str, str] | None = None, limit: float = 30.0
) -> Reply:
    """One request on a connection of its own; a `body` that is not bytes is sent as JSON."""
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    address = urlsplit(url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=limit)
    try:
        connection.request(method, path, data, {"Content-Type": "application/json", **(headers or {})})
        answer = connection.getresponse()
        return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
    finally:
        connection.close()


class Asker(threading.Thread):
    """One client that asks in the background."""

    def __init__(self, url: str, path: str, body: Any, *, headers: dict[str, str]) -> None:
        super().__init__()
        self._ask = (url, "POST", path, body)
        self._headers = headers
        self._reply: Reply | None = None
        self.start()

    def run(self) -> None:
        self._reply = ask(*self._ask, headers=self._headers)

    @property
    def answer(self) -> Reply:
        """Waited for."""
        self.join(30)
        assert self._reply is not None
        return self._reply


def leave(url: str, path: str, body: Any, *, headers: dict[str, str], after: float, wait_for: bytes = b"") -> float:
    """Send a request, wait for `wait_for` in the answer and `after` seconds more, and hang up; when (monotonic)."""
    address = urlsplit(url)
    data = json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", f"Host: {address.netloc}", "Content-Type: application/json"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines += [f"Content-Length: {len(data)}", "", ""]
    with socket.create_connection((str(address.hostname), address.port or 80), timeout=10) as connection:
        connection.sendall("\r\n".join(lines).encode() + data)
        seen = b""
        while wait_for not in seen:
            piece = connection.recv(65536)
            if not piece:
                raise AssertionError(f"the answer ended before {wait_for!r}: {seen!r}")
            seen += piece
        time.sleep(after)
        return time.monotonic()


class Held:
    """A request that was sent and whose answer nobody reads until the client hangs up."""

    def __init__(self, url: str, path: str, body: Any, *, headers: dict[str, str]) -> None:
        address = urlsplit(url)
        data = json.dumps(body).encode()
        lines = [f"POST {path} HTTP/1.1", f"Host: {address.netloc}", "Content-Type: application/json"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        lines += [f"Content-Length: {len(data)}", "", ""]
        self._socket = socket.create_connection((str(address.hostname), address.port or 80), timeout=20)
        self._socket.sendall("\r\n".join(lines).encode() + data)

    def until(self, seen: bytes) -> None:
        """Read until `seen` has come."""
        found = b""
        while seen not in found:
            piece = self._socket.recv(65536)
            if not piece:
                raise AssertionError(f"the answer ended before {seen!r}: {found!r}")
            found += piece

    def hang_up(self) -> float:
        """Close the connection; when (monotonic)."""
        self._socket.close()
        return time.monotonic()
