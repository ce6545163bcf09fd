"""Clients that go, many at once, and an engine that dies, with a real vLLM behind the gateway."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import threading
import time

import pytest

from qiao.core.anthropic.grammar import Checker
from tests.live.stage import Stage, request, text_of
from tests.live.vllm.script import marker
from tests.live.vllm.server import Server
from tests.support.plain_http import ask, leave

LONG = "Count. " + marker(" ".join(map(str, range(2000))))
RUNNING = "vllm:num_requests_running"


def seconds_until_idle(server: Server, since: float, limit: float = 10.0) -> float:
    """How long after `since` the engine works on nothing."""
    while time.monotonic() < since + limit:
        if server.metric(RUNNING) == 0:
            return time.monotonic() - since
        time.sleep(0.02)
    raise AssertionError(f"the engine still works {limit} s after the client went")


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_a_client_that_goes_ends_the_work(stage: Stage, stream: bool, record_property: object) -> None:
    assert seconds_until_idle(stage.server, time.monotonic()) < 10
    body = request(LONG, max_tokens=4000, stream=stream)
    gone: list[float] = []

    def client() -> None:
        # A whole answer says nothing while it is made: its client goes a second after it asked.
        wait_for = b"content_block_delta" if stream else b""
        gone.append(leave(stage.url, "/v1/messages", body, headers=stage.headers, after=1.0, wait_for=wait_for))

    thread = threading.Thread(target=client)
    thread.start()
    limit = time.monotonic() + 20
    while stage.server.metric(RUNNING) == 0:
        assert time.monotonic() < limit, "the request never reached the engine"
        time.sleep(0.05)
    thread.join()
    took = seconds_until_idle(stage.server, gone[0])
    print(f"the engine was idle {took:.2f} s after the client went")
    assert took < 2.0


def test_many_streams_are_not_mixed(stage: Stage) -> None:
    """24 at once, eight more than the engine takes together."""

    def one(number: int) -> str:
        text = " ".join(f"w{number}x{word}" for word in range(8))
        return text if text_of(stage.stream(f"Say {number}. " + marker(text)).message) == text else f"{number} is wrong"

    with concurrent.futures.ThreadPoolExecutor(24) as threads:
        answers = list(threads.map(one, range(24)))
    assert [answer for answer in answers if answer.endswith("wrong")] == []


def test_an_engine_that_dies_in_the_middle(doomed: Stage) -> None:
    """The stream ends with an error event, the next request with a status, and the gateway lives."""
    engine = doomed.server.engine_process()
    body = request(LONG, max_tokens=4000, stream=True)

    def kill() -> None:
        limit = time.monotonic() + 20
        while not any(b"content_block_delta" in piece for _, piece in doomed.tap.arrivals):
            assert time.monotonic() < limit
            time.sleep(0.05)
        os.kill(engine, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    reply = doomed.post(body)
    killer.join()
    assert reply.status == 200
    checker = Checker()
    checker.feed(reply.body)
    checker.close()
    assert checker.error is not None
    assert checker.error["type"] in ("api_error", "overloaded_error")
    assert checker.message["content"] or b"content_block_delta" in reply.body

    limit = time.monotonic() + 30
    while doomed.server.is_running and time.monotonic() < limit:
        time.sleep(0.1)
    doomed.expected |= {500, 502, 503, 529}
    late = doomed.post(request("Hi"))
    assert late.status in (502, 503, 529)
    assert late.json["error"]["type"] in ("api_error", "overloaded_error")
    assert ask(doomed.url, "GET", "/healthz").status == 200
