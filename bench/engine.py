"""A bare upstream for measurements: speaks as much of the OpenAI protocol as a gateway needs, at a known pace.

    python -m bench.engine --port 0 --interval 0.02

It prints its port. `max_tokens` is the number of chunks of a streamed answer; the model `paced` sends one every
`interval` seconds, the model `instant` all of them at once, the model `prefill` the first one 5 ms after it accepted
the request and the others together, 5 ms later: no engine has its second token at the time of the first. A hand-written
protocol, so that it costs little.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import sys
import time
from typing import cast

from qiao.app.loop import run

MODELS = (
    b'{"object":"list","data":['
    + b",".join(
        b'{"id":"%s","object":"model","owned_by":"vllm","max_model_len":131072}' % name
        for name in (b"paced", b"instant", b"prefill")
    )
    + b"]}"
)
PREFILL = 0.005
_HEAD = (
    b'data: {"id":"chatcmpl-9f0c2b7d8e6a4f31","object":"chat.completion.chunk","created":1795341600,"model":"paced",'
)


def frame(data: bytes) -> bytes:
    """One HTTP chunk."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def chunk(number: int, *, with_usage: bool) -> bytes:
    """The `number`-th piece of an answer, as vLLM writes it."""
    usage = b""
    if with_usage:
        usage = b',"usage":{"prompt_tokens":17000,"total_tokens":%d,"completion_tokens":%d}' % (17000 + number, number)
    choice = (
        b'"choices":[{"index":0,"delta":{"content":" word%d"},"logprobs":null,"finish_reason":null,"token_ids":null}]'
    )
    return _HEAD + choice % number + usage + b"}\n\n"


def ending(count: int) -> bytes:
    finish = (
        _HEAD + b'"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop","stop_reason":null}]}\n\n'
    )
    usage = _HEAD + (
        b'"choices":[],"usage":{"prompt_tokens":17000,"total_tokens":%d,"completion_tokens":%d}}\n\n'
        % (17000 + count, count)
    )
    return frame(finish + usage + b"data: [DONE]\n\n") + b"0\r\n\r\n"


def asked_tokens(body: bytes) -> int:
    """The answer's length. Found without a regular expression: one over 70 KB costs more than a gateway may."""
    for name in (b'"max_completion_tokens":', b'"max_tokens":'):
        at = body.find(name)
        if at >= 0:
            digits = re.match(rb" *(\d+)", body[at + len(name) : at + len(name) + 12])
            return int(digits[1]) if digits else 3
    return 3


WHOLE = (
    b'{"id":"chatcmpl-9f0c2b7d8e6a4f31","object":"chat.completion","created":1795341600,"model":"instant","choices":[{"index":0,'
    b'"message":{"role":"assistant","content":"A short answer.","tool_calls":[],"reasoning":null},"logprobs":null,'
    b'"finish_reason":"stop","stop_reason":null}],"usage":{"prompt_tokens":9,"total_tokens":13,"completion_tokens":4}}'
)


class Engine(asyncio.Protocol):
    """One connection."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._buffer = bytearray()
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._loop = asyncio.get_running_loop()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._buffer[:end]).lower()
            length = re.search(rb"content-length: *(\d+)", head)
            size = int(length[1]) if length else 0
            if len(self._buffer) < end + 4 + size:
                return
            body = bytes(self._buffer[end + 4 : end + 4 + size])
            del self._buffer[: end + 4 + size]
            self._answer(head.split(b" ", 2)[1], body)

    def _answer(self, path: bytes, body: bytes) -> None:
        if path.endswith(b"/models"):
            self._whole(b"200 OK", MODELS)
        elif path.endswith(b"/version"):
            self._whole(b"200 OK", b'{"version":"0.32.0"}')
        elif not path.endswith((b"/completions", b"/messages")):
            self._whole(b"404 Not Found", b'{"detail":"Not Found"}')
        elif b'"stream":true' in body or b'"stream": true' in body:
            self._stream(body)
        else:
            self._whole(b"200 OK", WHOLE)

    def _whole(self, status: bytes, body: bytes) -> None:
        head = b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % (status, len(body))
        self._transport.write(head + body)

    def _stream(self, body: bytes) -> None:
        count = asked_tokens(body)
        with_usage = b"continuous_usage_stats" in body
        self._transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        if b'"paced"' not in body:
            pieces = [frame(chunk(number, with_usage=with_usage)) for number in range(1, count + 1)]
            first, rest = b"".join(pieces[:1]), b"".join(pieces[1:]) + ending(count)
            if b'"prefill"' in body:
                self._prefilling = asyncio.ensure_future(self._later(first, rest))
            else:
                self._transport.write(first + rest)
            return
        # Streams begin out of step, or their chunks would arrive together and be cheap.
        start = self._loop.time() + random.random() * self._interval
        self._timer = self._loop.call_at(start, self._tick, 1, count, with_usage, start)

    async def _later(self, *pieces: bytes) -> None:
        for piece in pieces:
            # In a thread: the loop's own timers are only good to a millisecond, which is what is measured here.
            await asyncio.to_thread(time.sleep, PREFILL)
            self._transport.write(piece)

    def _tick(self, number: int, count: int, with_usage: bool, due: float) -> None:
        if number > count:
            self._timer = None
            self._transport.write(ending(count))
            return
        self._transport.write(frame(chunk(number, with_usage=with_usage)))
        due += self._interval
        self._timer = self._loop.call_at(due, self._tick, number + 1, count, with_usage, due)


async def serve(port: int, interval: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Engine(interval), "127.0.0.1", port, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)  # until whoever started it is gone


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--interval", type=float, default=0.02, help="seconds between two chunks")
    options = parser.parse_args()
    run(serve(options.port, options.interval))


if __name__ == "__main__":
    main()
