"""A client that takes nothing is its own trouble: not the engine's, and not that of others who wait for the answer."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import socket
from collections.abc import AsyncIterator, Callable
from urllib.parse import urlsplit

import aiohttp
import pytest

from qiao.app import answering, joining
from qiao.app.conversations import SESSION_HEADER
from qiao.app.serve import Observers, build_gateway
from qiao.app.server import Listening, listen
from qiao.config import Auth, Config, Upstream
from qiao.core.openai.stream import Decoder
from qiao.core.openai.target import Target
from qiao.policies.prepare import Prepared
from qiao.policies.quirks import Quirks
from qiao.upstream.base import NOBODY, Count, Listener, Preparation, Served, UpstreamFacts
from qiao.upstream.http import Sink

QUESTION = {"model": "m", "max_tokens": 5, "stream": True, "messages": [{"role": "user", "content": "x"}]}
BODY = json.dumps(QUESTION).encode()
HEADERS = {SESSION_HEADER: "s1", "Content-Type": "application/json"}
WORD = "word " * 2000
# More than the kernel keeps for a client that reads nothing.
WORDS = 1600


def chunk(number: int) -> bytes:
    usage = {"prompt_tokens": 3, "completion_tokens": number + 1}
    delta = {"choices": [{"index": 0, "delta": {"content": WORD}, "finish_reason": None}], "usage": usage}
    return b"data: " + json.dumps(delta).encode() + b"\n\n"


END = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


class Flood:
    """Says `WORDS` words as fast as they are taken, as many as `allowed` says."""

    healed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    prompt_estimate = 1

    def __init__(self, prepared: Prepared) -> None:
        self.prepared = prepared
        self.decoder = Decoder()
        self.said = 0
        self.last = WORDS
        self.allowed = 0
        self.more = asyncio.Event()
        self.is_closed = False

    def allow(self, words: int) -> None:
        self.allowed = words
        self.more.set()

    async def pump(self, sink: Sink) -> bool:
        while self.said < self.last:
            if self.said == self.allowed:
                self.more.clear()
                await self.more.wait()
                continue
            await asyncio.sleep(0)
            self.said += 1
            if not sink(chunk(self.said - 1)):
                return True
        sink(END)
        return False

    def close(self) -> None:
        self.is_closed = True


class FloodUpstream:
    address = "http://127.0.0.1:1/v1"
    quirks = Quirks()
    waiting = None
    lessons = ()

    def __init__(self) -> None:
        self.answers: list[Flood] = []

    def quirks_of(self, _: Served, /) -> Quirks:
        return self.quirks

    async def admit(self) -> None:
        pass

    async def facts(self, *, fresh: bool = False) -> UpstreamFacts:
        return UpstreamFacts("vllm", None, (Served("m"),))

    async def open(
        self, prepare: Preparation, served: Served, *, request_id: str, listener: Listener = NOBODY
    ) -> Flood:
        answer = Flood(prepare(self.quirks, Target("m")))
        self.answers.append(answer)
        if listener.on_sent is not None:
            listener.on_sent(answer)
        return answer

    async def count(self, prepare: Preparation, served: Served) -> Count:
        raise NotImplementedError

    async def close(self) -> None:
        pass


class Hall:
    """A gateway before a flood, and its records."""

    def __init__(self, upstream: FloodUpstream, observers: Observers, listening: Listening) -> None:
        self.upstream = upstream
        self.observers = observers
        self.listening = listening

    async def stalled(self, body: bytes = BODY) -> socket.socket:
        """A client that asks and reads nothing."""
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        address = urlsplit(self.listening.url)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, (str(address.hostname), address.port))
        lines = ["POST /v1/messages HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in HEADERS.items()]
        await loop.sock_sendall(client, "\r\n".join([*lines, "", ""]).encode() + body)
        await until(lambda: bool(self.upstream.answers))
        return client

    async def asked(self, body: bytes = BODY) -> bytes:
        async with aiohttp.ClientSession(read_bufsize=2**22) as session:
            answer = await session.post(f"{self.listening.url}/v1/messages", data=body, headers=HEADERS)
            return await answer.read()

    async def in_flight(self, number: int) -> None:
        await until(lambda: b"qiao_in_flight %d.0" % number in self.listening.gateway.metrics.render())


async def read_until(client: socket.socket, end: bytes) -> bytes:
    """What the client is told, up to `end`."""
    told = b""
    async with asyncio.timeout(20):
        while end not in told:
            more = await asyncio.get_running_loop().sock_recv(client, 2**20)
            assert more, told[-200:]
            told += more
    return told


async def until(is_true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not is_true():
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def hall(silence: float = 600) -> AsyncIterator[Hall]:
    config = Config(auth=Auth(no_auth=True), upstream=Upstream(silence_timeout=silence))
    observers, upstream = Observers(config, io.StringIO()), FloodUpstream()
    gateway = build_gateway(config, upstream, observers)
    listening = await listen(gateway, host="127.0.0.1", port=0, needs_key=False, grace=0.1)
    try:
        yield Hall(upstream, observers, listening)
    finally:
        await listening.stop()


def is_whole(body: bytes) -> bool:
    return body.count(b"word") == WORDS * WORD.count("word") and body.count(b"event: message_stop") == 1


async def test_it_does_not_stop_who_has_joined() -> None:
    async with hall() as hall_:
        client = await hall_.stalled()
        second = asyncio.create_task(hall_.asked())
        await hall_.in_flight(2)
        hall_.upstream.answers[0].allow(WORDS)
        assert is_whole(await asyncio.wait_for(second, 20))
        assert len(hall_.upstream.answers) == 1
        client.close()


async def test_it_does_not_stop_who_joins_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the engine waits for it already."""
    monkeypatch.setattr(joining, "MOST_KEPT", 2**26)
    async with hall() as hall_:
        client = await hall_.stalled()
        flood = hall_.upstream.answers[0]
        flood.allow(WORDS)
        said = -1
        while said != flood.said:
            said = flood.said
            await asyncio.sleep(0.3)
        assert said < WORDS, "the kernel keeps more than the test expects"
        assert is_whole(await asyncio.wait_for(hall_.asked(), 20))
        assert len(hall_.upstream.answers) == 1
        client.close()


@pytest.mark.parametrize("stays", [True, False], ids=["who joined stays", "who joined leaves"])
async def test_it_gets_its_answer_when_it_goes_on(monkeypatch: pytest.MonkeyPatch, stays: bool) -> None:
    """Whoever else came and went while it took nothing."""
    monkeypatch.setattr(joining, "MOST_KEPT", 2**26)
    most = 450
    async with hall() as hall_:
        client = await hall_.stalled()
        flood = hall_.upstream.answers[0]
        flood.allow(most)
        said = -1
        while said != flood.said:
            said = flood.said
            await asyncio.sleep(0.3)
        assert said < most, "the kernel keeps more than the test expects"
        second = asyncio.create_task(hall_.asked())
        await hall_.in_flight(2)
        await until(lambda: flood.said == most)
        if not stays:
            second.cancel()
            await hall_.in_flight(1)
        flood.last = most + 50
        flood.allow(flood.last)
        await asyncio.sleep(0.2)
        answer = await read_until(client, b"event: message_stop")
        assert answer.count(b"word") == flood.last * WORD.count("word")
        if stays:
            assert b"event: message_stop" in await second
        await hall_.in_flight(0)
        first = next(record for record in hall_.observers.recent if not record.joined)
        assert (first.status, first.output_tokens) == (200, flood.last)
        client.close()


async def test_it_is_no_silence_of_the_engine() -> None:
    """It is given up after the same time, and nobody blames the engine."""
    async with hall(silence=1) as hall_:
        client = await hall_.stalled()
        hall_.upstream.answers[0].allow(WORDS)
        await until(lambda: len(hall_.observers.recent) > 0)
        record = next(iter(hall_.observers.recent))
        assert (record.status, record.fault_kind, record.fault_party) == (499, None, None)
        client.close()


async def test_what_was_spent_is_counted_once_when_the_first_leaves() -> None:
    async with hall() as hall_:
        client = await hall_.stalled()
        second = asyncio.create_task(hall_.asked())
        await hall_.in_flight(2)
        flood = hall_.upstream.answers[0]
        flood.allow(10)
        await until(lambda: flood.said == 10)
        client.close()
        await hall_.in_flight(1)
        flood.allow(WORDS)
        assert is_whole(await asyncio.wait_for(second, 20))
        await until(lambda: len(hall_.observers.recent) == 2)
        assert sum(record.output_tokens or 0 for record in hall_.observers.recent) == WORDS
        assert sum(record.input_tokens or 0 for record in hall_.observers.recent) == 3


async def test_what_was_spent_on_a_whole_answer_that_nobody_waited_for_is_counted() -> None:
    async with hall() as hall_:
        client = await hall_.stalled(json.dumps({**QUESTION, "stream": False}).encode())
        flood = hall_.upstream.answers[0]
        flood.allow(5)
        await until(lambda: flood.said == 5)
        client.close()
        await until(lambda: len(hall_.observers.recent) == 1)
        assert [record.output_tokens for record in hall_.observers.recent] == [5]


async def test_what_was_spent_while_nobody_came_back_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "GRACE_AFTER", 0.0)
    monkeypatch.setattr(joining, "GRACE", 0.3)
    async with hall() as hall_:
        client = await hall_.stalled()
        client.close()
        await hall_.in_flight(0)
        flood = hall_.upstream.answers[0]
        flood.allow(5)
        await until(lambda: flood.is_closed)
        assert flood.said == 5
        assert b'qiao_tokens_total{direction="output"} 5.0' in hall_.listening.gateway.metrics.render()


async def test_what_was_spent_is_counted_when_all_have_left() -> None:
    async with hall() as hall_:
        client = await hall_.stalled()
        second = asyncio.create_task(hall_.asked())
        await hall_.in_flight(2)
        flood = hall_.upstream.answers[0]
        flood.allow(10)
        await until(lambda: flood.said == 10)
        client.close()
        await hall_.in_flight(1)
        flood.allow(20)
        await until(lambda: flood.said == 20)
        second.cancel()
        await until(lambda: len(hall_.observers.recent) == 2)
        assert sum(record.output_tokens or 0 for record in hall_.observers.recent) == 20
        assert sum(record.input_tokens or 0 for record in hall_.observers.recent) == 3


async def test_who_joined_a_whole_answer_that_broke_asks_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    broken: list[bytes] = []

    def breaking_once(body: bytes, headers: dict[str, str]) -> joining.Whole:
        if not broken:
            broken.append(body)
            raise RuntimeError("broken")
        return joining.Whole(body, headers)

    monkeypatch.setattr(answering, "Whole", breaking_once)
    question = json.dumps({**QUESTION, "stream": False}).encode()
    async with hall() as hall_:
        asking = [asyncio.create_task(hall_.asked(question)) for _ in range(2)]
        await hall_.in_flight(2)
        for number in (1, 2):
            await until(lambda number=number: len(hall_.upstream.answers) == number)
            hall_.upstream.answers[-1].last = 1
            hall_.upstream.answers[-1].allow(1)
        first, second = (json.loads(answer) for answer in await asyncio.gather(*asking))
        assert first["type"] == "error"
        assert [block["text"] for block in second["content"]] == [WORD]


async def test_when_all_leave_in_one_moment_the_engine_is_stopped() -> None:
    """As when their process is killed: who would have gone on for the others has not begun yet."""
    async with hall() as hall_:
        clients = [await hall_.stalled(), await hall_.stalled()]
        await hall_.in_flight(2)
        flood = hall_.upstream.answers[0]
        flood.allow(5)
        await until(lambda: flood.said == 5)
        await asyncio.sleep(0.2)
        for client in clients:
            client.close()
        await until(lambda: flood.is_closed)
        await until(lambda: len(hall_.observers.recent) == 2)
        assert len(hall_.listening.gateway.joining) == 0
        assert sum(record.output_tokens or 0 for record in hall_.observers.recent) == 5


async def test_it_is_given_up_when_it_is_far_behind_those_who_have_joined() -> None:
    """What it does not take would be kept for it."""
    async with hall() as hall_:
        client = await hall_.stalled()
        second = asyncio.create_task(hall_.asked())
        await hall_.in_flight(2)
        hall_.upstream.answers[0].allow(WORDS)
        assert is_whole(await asyncio.wait_for(second, 20))
        await until(lambda: len(hall_.observers.recent) == 2)
        assert sorted(record.status for record in hall_.observers.recent) == [200, 499]
        client.close()
