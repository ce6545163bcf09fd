"""The request boundary: what should not happen still ends in an answer that clients understand."""

from __future__ import annotations

import io
import logging

import aiohttp
import pytest

from qiao.app.serve import Observers, build_gateway
from qiao.app.server import listen
from qiao.config import Auth, Config
from qiao.core.anthropic.grammar import Checker
from qiao.core.events import Event, TextAdded, Usage, UsageSeen
from qiao.core.fault import Fault
from qiao.core.openai.target import Target
from qiao.policies.prepare import Prepared
from qiao.policies.quirks import Quirks
from qiao.upstream.base import NOBODY, Count, Listener, Preparation, Served, UpstreamFacts
from qiao.upstream.http import Sink

QUESTION = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]}


class BrokenDecoder:
    """Says a word, then breaks as only our own mistakes do."""

    def __init__(self) -> None:
        self._count = 0

    def feed(self, data: bytes) -> list[Event]:
        self._count += 1
        if self._count > 1:
            raise ZeroDivisionError("a mistake of ours")
        return [UsageSeen(Usage(prompt=1, completion=1)), TextAdded("word")]

    def close(self) -> list[Event]:
        return []


class BrokenAnswer:
    healed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    prompt_estimate = 1

    def __init__(self, prepared: Prepared) -> None:
        self.prepared = prepared
        self.decoder = BrokenDecoder()
        self.is_closed = False

    async def pump(self, sink: Sink) -> bool:
        while sink(b"x"):
            pass
        return True

    def close(self) -> None:
        self.is_closed = True


class BrokenUpstream:
    address = "http://127.0.0.1:1/v1"
    quirks = Quirks()
    waiting = None
    lessons = ()

    def quirks_of(self, _: Served, /) -> Quirks:
        return self.quirks

    async def admit(self) -> None:
        pass

    def __init__(self) -> None:
        self.answers: list[BrokenAnswer] = []

    async def facts(self, *, fresh: bool = False) -> UpstreamFacts:
        return UpstreamFacts("vllm", None, (Served("m"),))

    async def open(
        self, prepare: Preparation, served: Served, *, request_id: str, listener: Listener = NOBODY
    ) -> BrokenAnswer:
        answer = BrokenAnswer(prepare(self.quirks, Target("m")))
        self.answers.append(answer)
        if listener.on_sent is not None:
            listener.on_sent(answer)
        return answer

    async def count(self, prepare: Preparation, served: Served) -> Count:
        raise Fault("api", "not asked")

    async def close(self) -> None:
        pass


@pytest.mark.parametrize("stream", [True, False])
async def test_a_mistake_of_ours_ends_in_an_error_not_in_silence(
    stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    config = Config(auth=Auth(no_auth=True))
    observers = Observers(config, io.StringIO())
    upstream = BrokenUpstream()
    listening = await listen(build_gateway(config, upstream, observers), host="127.0.0.1", port=0, needs_key=False)
    try:
        async with aiohttp.ClientSession() as session:
            answer = await session.post(f"{listening.url}/v1/messages", json={**QUESTION, "stream": stream})
            body = await answer.read()
    finally:
        await listening.stop()
    if stream:
        assert answer.status == 200
        checker = Checker()
        checker.feed(body)
        checker.close()
        assert checker.error is not None
        assert checker.error["type"] == "api_error"
    else:
        assert answer.status == 500
        assert b'"api_error"' in body
        assert answer.headers["request-id"].startswith("req_")
    assert upstream.answers[0].is_closed
    record = next(iter(observers.recent))
    assert (record.fault_party, record.fault_kind) == ("ours", "api")
