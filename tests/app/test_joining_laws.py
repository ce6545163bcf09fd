"""Laws of answers that clients share, over drawn comings and goings: nothing hangs, leaks, or goes uncounted.

Real sockets; the engine is the only thing that is made up, because it has to break at drawn moments.
"""

from __future__ import annotations

import asyncio
import io
import json
import random
import re
from typing import Literal, NamedTuple
from urllib.parse import SplitResult, urlsplit

import pytest

from qiao.app import joining
from qiao.app.gateway import Gateway
from qiao.app.serve import Observers, build_gateway
from qiao.app.server import listen
from qiao.config import Auth, Config, Upstream
from qiao.core.fault import Fault
from qiao.core.openai.stream import Decoder
from qiao.core.openai.target import Target
from qiao.policies.prepare import Prepared
from qiao.upstream.base import NOBODY, Listener, Preparation, Served
from qiao.upstream.http import Sink
from tests.app.test_stalled_clients import END, HEADERS, QUESTION, FloodUpstream, until

pytestmark = pytest.mark.timeout(120)

LENGTH = 12


class Talk:
    """Says `LENGTH` words with drawn pauses, some of them long; now and then it breaks off before the end."""

    healed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    prompt_estimate = 1

    def __init__(self, prepared: Prepared, draw: random.Random) -> None:
        self.prepared = prepared
        self.decoder = Decoder()
        self.said = 0
        self.is_closed = False
        self._draw = draw
        self._end = LENGTH // 2 if draw.random() < 0.15 else LENGTH

    async def pump(self, sink: Sink) -> bool:
        while self.said < self._end:
            await asyncio.sleep(self._draw.choice((0, 0, 0.001, 0.01, 0.03)))
            if self.is_closed:
                raise Fault("api", "closed", party="upstream")
            self.said += 1
            usage = {"prompt_tokens": 3, "completion_tokens": self.said}
            delta = {"content": "word " * self._draw.choice((1, 1, 3000))}
            said = {"choices": [{"index": 0, "delta": delta, "finish_reason": None}], "usage": usage}
            if not sink(b"data: " + json.dumps(said).encode() + b"\n\n"):
                return True
        if self._end < LENGTH:
            raise Fault("api", "broke off", party="upstream")
        sink(END)
        return False

    def close(self) -> None:
        self.is_closed = True


class Talking(FloodUpstream):
    """Accepts after drawn times, or refuses."""

    def __init__(self, draw: random.Random) -> None:
        super().__init__()
        self.talks: list[Talk] = []
        self._draw = draw

    async def open(self, prepare: Preparation, served: Served, *, request_id: str, listener: Listener = NOBODY) -> Talk:
        await asyncio.sleep(self._draw.choice((0, 0.001, 0.02, 0.06)))
        if self._draw.random() < 0.1:
            raise Fault("api", "refused", party="upstream")
        talk = Talk(prepare(self.quirks, Target("m")), self._draw)
        if listener.on_sent is not None:
            listener.on_sent(talk)
        await asyncio.sleep(self._draw.choice((0, 0.001, 0.05)))
        self.talks.append(talk)
        return talk


class Seen(NamedTuple):
    """What became of one client."""

    manner: Literal["stays", "leaves", "stalls"]
    answer: bytes


async def client(url: SplitResult, draw: random.Random, *, stream: bool) -> Seen:
    """One that asks at some moment and reads to the end, hangs up at some moment, or reads nothing for a while."""
    await asyncio.sleep(draw.choice((0, 0, 0.001, 0.01, 0.05, 0.1)))
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    body = json.dumps({**QUESTION, "stream": stream}).encode()
    lines = ["POST /v1/messages HTTP/1.1", "Host: localhost", "Connection: close", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in HEADERS.items()]
    writer.write("\r\n".join([*lines, "", ""]).encode() + body)
    manner: Literal["stays", "leaves", "stalls"] = draw.choice(("stays", "stays", "leaves", "stalls"))
    answer = b""
    if manner == "leaves":
        await asyncio.sleep(draw.choice((0, 0.001, 0.005, 0.02, 0.04, 0.08, 0.15)))
    elif manner == "stalls":
        await asyncio.sleep(draw.choice((0.1, 0.3)))
    else:
        async with asyncio.timeout(10):
            answer = await reader.read(-1)
    if draw.random() < 0.5:
        writer.transport.abort()
    else:
        writer.close()
    return Seen(manner, answer)


def is_over(gateway: Gateway, upstream: Talking) -> bool:
    return (
        b"qiao_in_flight 0.0" in gateway.metrics.render()
        and len(gateway.joining) == 0
        and all(talk.is_closed for talk in upstream.talks)
    )


def told(gateway: Gateway) -> int:
    found = re.search(rb'qiao_tokens_total\{direction="output"\} ([0-9.]+)', gateway.metrics.render())
    return int(float(found[1])) if found else 0


@pytest.mark.parametrize("seed", range(40))
async def test_nothing_hangs_leaks_or_goes_uncounted(
    seed: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(joining, "GRACE_AFTER", 0.03)
    monkeypatch.setattr(joining, "GRACE", 0.04)
    monkeypatch.setattr(joining, "MOST_GRACE", 0.1)
    draw = random.Random(seed)
    config = Config(auth=Auth(no_auth=True), upstream=Upstream(silence_timeout=draw.choice((600, 600, 0.05))))
    upstream = Talking(draw)
    gateway = build_gateway(config, upstream, Observers(config, io.StringIO()))
    listening = await listen(gateway, host="127.0.0.1", port=0, needs_key=False, grace=0.1)
    stream = draw.random() < 0.6
    clients = [client(urlsplit(listening.url), draw, stream=stream) for _ in range(draw.randint(1, 5))]
    try:
        for seen in await asyncio.gather(*clients):
            if seen.manner == "stays":
                ends = (b"event: message_stop", b"event: error", b'"type":"error"', b'"stop_reason"')
                assert any(end in seen.answer for end in ends), seen.answer[-300:]
                assert seen.answer.count(b"event: message_start") <= 1
        await until(lambda: is_over(gateway, upstream))
        assert told(gateway) == sum(talk.said for talk in upstream.talks)
    finally:
        await listening.stop()
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []
