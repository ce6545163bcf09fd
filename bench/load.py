"""A client that costs little: one hand-written protocol a connection, counting markers in the bytes that come."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import time
from collections.abc import Iterator
from typing import NamedTuple, cast
from urllib.parse import urlsplit


class Seen(NamedTuple):
    """One answer: HTTP status, seconds until the first marker and until the end, bytes of the body."""

    status: int
    first: float
    total: float
    size: int


class Connection(asyncio.Protocol):
    """One keep-alive connection; `ask` sends a request and waits for the whole answer.

    `markers` came in `reads` pieces, over all answers: more markers than pieces mean that somebody on the way was late.
    """

    def __init__(self) -> None:
        self.markers = 0
        self.reads = 0
        self._head = b""
        self._answer: asyncio.Future[Seen] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionError("closed inside an answer"))

    def ask(self, request: bytes, marker: bytes) -> asyncio.Future[Seen]:
        """Send `request`; `first` is when `marker` came."""
        self._answer = asyncio.get_running_loop().create_future()
        self._head, self._marker = b"", marker
        self._size, self._length, self._status = 0, -1, 0
        self._first = 0.0
        self._started = time.perf_counter()
        self.transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        if self._answer is None or self._answer.done():
            return
        if not self._status:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            length = re.search(rb"(?i)content-length: *(\d+)", self._head[:end])
            self._length = int(length[1]) if length else -1
            self._status = int(self._head[9:12])
            data = self._head[end + 4 :]
        found = data.count(self._marker)
        if found:
            self.markers += found
            self.reads += 1
            if not self._first:
                self._first = time.perf_counter() - self._started
        self._size += len(data)
        if self._size >= self._length >= 0 or (self._length < 0 and data.endswith(b"0\r\n\r\n")):
            total = time.perf_counter() - self._started
            self._answer.set_result(Seen(self._status, self._first or total, total, self._size))


async def connect(url: str) -> Connection:
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(Connection, parts.hostname or "", parts.port or 80)
    return connection


def request(url: str, body: bytes) -> bytes:
    """A POST of JSON to `url`, head and body in one write."""
    parts = urlsplit(url)
    head = (
        f"POST {parts.path} HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-type: application/json\r\n"
        f"anthropic-version: 2023-06-01\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def small(*, model: str, stream: bool, max_tokens: int) -> bytes:
    """The smallest request that makes sense."""
    return _json(
        {
            "model": model,
            "max_tokens": max_tokens,
            "stream": stream,
            "messages": [{"role": "user", "content": "Say something short."}],
        }
    )


def agent(*, model: str, max_tokens: int, size: int = 70_000) -> bytes:
    """A request of about `size` bytes, shaped like Claude Code's: system blocks, 24 tools, a history of tool calls."""
    return next(session(model=model, max_tokens=max_tokens, size=size))


def session(*, model: str, max_tokens: int, number: int = 0, size: int = 70_000) -> Iterator[bytes]:
    """The requests of an agent's session, from the one that has about `size` bytes: each is longer by a call and its
    result, and marks its end for the cache. Sessions of different `number` differ from their first word on."""
    tools = [
        {
            "name": f"Tool{number}",
            "description": f"Tool number {number}. " + "It does one thing and says how. " * 24,
            "input_schema": {
                "type": "object",
                "properties": {
                    name: {"type": "string", "description": f"The {name} that the tool works on."}
                    for name in ("path", "pattern", "content", "description")
                },
                "required": ["path"],
                "additionalProperties": False,
            },
        }
        for number in range(24)
    ]
    messages: list[object] = [{"role": "user", "content": [{"type": "text", "text": f"Fix failing test {number}."}]}]
    # In Claude Code's order.
    body: dict[str, object] = {
        "model": model,
        "messages": messages,
        "system": [
            {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1.330; cch=00000;"},
            {"type": "text", "text": "You are an agent. " * 700, "cache_control": {"type": "ephemeral"}},
        ],
        "tools": tools,
        "metadata": {"user_id": "user_0_account__session_0"},
        "max_tokens": max_tokens,
        "thinking": {"type": "adaptive"},
        "stream": True,
    }
    for turn in itertools.count(1):
        asked, result = _call(f"{number}_{turn}", lines=20 if len(_json(body)) < size else 4)
        messages += [asked, {"role": "user", "content": [result]}]
        if len(_json(body)) >= size:
            marked = {**result, "cache_control": {"type": "ephemeral"}}
            yield _json({**body, "messages": [*messages[:-1], {"role": "user", "content": [marked]}]})


def _call(name: str, *, lines: int) -> tuple[dict[str, object], dict[str, object]]:
    """An assistant's message with a call, and the block of its result, which another name makes others."""
    call = f"toolu_{name:0>24}"
    words = {"type": "text", "text": f"I will look at file {name}."}
    use = {"type": "tool_use", "id": call, "name": "Tool1", "input": {"path": f"/src/file{name}.py"}}
    result = f"{name}\n" + "".join(f"{n:>5}\tvalue_{n} = compute({n}, 'a \"quoted\" word')\n" for n in range(lines))
    return (
        {"role": "assistant", "content": [words, use]},
        {"type": "tool_result", "tool_use_id": call, "content": result},
    )


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
