"""Prefills that nobody waits for any more, queues and ranks, on a real vLLM; and minutes of silence for Claude Code."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes.behaviour import MODELS
from tests.fakes.engine import FakeEngine, serving
from tests.fakes.script import Pause, step
from tests.fakes.script import marker as fake_marker
from tests.live.conftest import Stages
from tests.live.stage import CHAT, MODEL, Stage, request, text_of
from tests.live.test_connections import LONG, RUNNING, seconds_until_idle
from tests.live.vllm.script import marker
from tests.live.vllm.server import Setup
from tests.support.background import Background
from tests.support.claude_code import ClaudeCode
from tests.support.gateway import gateway
from tests.support.plain_http import Held, Reply, ask

WAITING = "vllm:num_requests_waiting"
SESSION = "X-Claude-Code-Session-Id"

RANKING = Setup(flags=("--scheduling-policy", "priority", "--max-num-seqs", "1"))
"""A vLLM that heeds priorities, and works on one request at a time, so that everything else queues."""

LOOK = {"name": "look", "description": "Look.", "input_schema": {"type": "object", "properties": {}}}


def until(done: Callable[[], bool], limit: float = 60.0) -> None:
    """Wait for `done`; a busy machine may take its time."""
    end = time.monotonic() + limit
    while not done():
        assert time.monotonic() < end
        time.sleep(0.05)


def new_prompt(tokens: int) -> str:
    """A text that no prefix cache has, about this long: every digit is a token."""
    return " ".join(str(time.time_ns() + number) for number in range(tokens // 20))


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_a_prefill_that_nobody_waits_for_ends(stage: Stage, stream: bool) -> None:
    """It leaves the engine, as its own metrics tell; how soon the gateway hangs up is tested on the fake one."""
    body = request(new_prompt(30_000) + marker("yes"), stream=stream)
    stage.whole("Hi. " + marker("yes"))  # the gateway's own look at the engine is over then
    assert seconds_until_idle(stage.server, time.monotonic()) < 10
    client = Held(stage.url, "/v1/messages", body, headers=stage.headers)
    until(lambda: stage.server.metric(RUNNING) > 0)
    took = seconds_until_idle(stage.server, client.hang_up(), limit=60)
    # vLLM ends a step before it lets go, and on a busy machine sees late that its client has left (20 s measured, with
    # the gateway and without): its own client, who leaves in the same moment, is no exact measure either.
    chat = {"model": MODEL, "messages": [{"role": "user", "content": new_prompt(30_000)}], "stream": stream}
    own = Held(stage.server.url, CHAT, chat, headers={})
    until(lambda: stage.server.metric(RUNNING) > 0)
    bare = seconds_until_idle(stage.server, own.hang_up(), limit=60)
    print(f"the engine was idle {took:.2f} s after the client went; after {bare:.2f} s without the gateway")
    assert took < max(30.0, 3 * bare)


def test_the_same_request_is_one_prefill(stage: Stage) -> None:
    prompt = new_prompt(20_000)
    body = request(prompt + marker("yes"), stream=True)
    headers = {**stage.headers, SESSION: "s"}
    replies: list[Reply] = []
    before = stage.server.metric("vllm:prompt_tokens_total")

    def one() -> None:
        replies.append(ask(stage.url, "POST", "/v1/messages", body, headers=headers, limit=120))

    threads = [threading.Thread(target=one) for _ in range(3)]
    for thread in threads:
        thread.start()
        time.sleep(0.2)
    for thread in threads:
        thread.join()
    assert [reply.status for reply in replies] == [200, 200, 200]
    assert len(stage.chats()) == 1
    assert sum("x-qiao-joined" in reply.headers for reply in replies) == 2
    spent = stage.server.metric("vllm:prompt_tokens_total") - before
    whole = stage.count(prompt + marker("yes"))
    assert spent <= whole * 1.1


def test_side_requests_are_no_400_where_priorities_are_unknown(stage: Stage) -> None:
    """This vLLM runs first come, first served: it takes the field and does not heed it."""
    headers = {**stage.headers, SESSION: "s"}
    reply = ask(stage.url, "POST", "/v1/messages", request("Title. " + marker("Bridges")), headers=headers)
    assert (reply.status, "x-qiao-healed" in reply.headers) == (200, False)
    assert stage.sent()["priority"] == 1


@pytest.mark.timeout(420)
def test_conversations_overtake_what_is_beside_them(stages: Stages) -> None:
    """While one request runs, two that have neither tools nor thoughts and two turns of conversations queue, by turns:
    the conversations are answered first, and among equals whoever came first."""
    stage = stages(RANKING, apart="ranks")
    assert stage.post(request("Hi. " + marker("yes"))).status == 200
    until(lambda: stage.server.metric(RUNNING) == 0)
    order: list[str] = []

    def one(name: str) -> None:
        # Several words, so that two answers, made one after the other, do not come at the same moment.
        tools = [LOOK] if name.startswith("main") else None
        body = request(f"{name}. " + marker(f"{name} " * 10), tools=tools)
        reply = ask(stage.url, "POST", "/v1/messages", body, headers={**stage.headers, SESSION: name}, limit=120)
        assert text_of(reply.json).startswith(name)
        order.append(name)

    running = Held(stage.url, "/v1/messages", request(LONG, max_tokens=4000, stream=True), headers=stage.headers)
    threads = []
    try:
        running.until(b"content_block_delta")
        for number, name in enumerate(("side 1", "main 1", "side 2", "main 2")):
            threads.append(threading.Thread(target=one, args=(name,)))
            threads[-1].start()
            until(lambda waiting=number + 1: stage.server.metric(WAITING) == waiting)
        assert order == []
    finally:
        running.hang_up()
        for thread in threads:
            thread.join()
    assert order == ["main 1", "main 2", "side 1", "side 2"]
    ranks = {chat.asked["messages"][-1]["content"][:6]: chat.asked.get("priority") for chat in stage.chats()}
    assert ranks == {**ranks, "main 1": None, "main 2": None, "side 1": 1, "side 2": 1}


def test_a_long_queue_is_told(stages: Stages) -> None:
    """Twenty long answers: sixteen run, the others wait, and who comes then is turned away."""
    stage = stages(apart="queue")
    full = stages(stage.server.setup, "--queue-limit", "1", apart="queue limit")
    assert full.post(request("Hi. " + marker("yes"))).status == 200
    body = request(LONG, max_tokens=4000, stream=True)
    clients = [Held(stage.url, "/v1/messages", body, headers=stage.headers) for _ in range(20)]
    try:
        until(lambda: stage.server.metric(WAITING) >= 2)
        full.expected.add(529)
        # The gateway looks at the queue only while it is asked; who asks first is let in.
        for _ in range(4):
            clients.append(Held(full.url, "/v1/messages", body, headers=full.headers))
            time.sleep(2.0)
        turned_away = full.post(request("Hi. " + marker("yes")))
    finally:
        for client in clients:
            client.hang_up()
    assert turned_away.status == 529
    assert turned_away.json["error"]["type"] == "overloaded_error"
    assert seconds_until_idle(stage.server, time.monotonic()) < 10
    assert stage.server.metric(RUNNING) == 0


@pytest.mark.timeout(300)
@pytest.mark.parametrize("pings", [True, False], ids=["pings", "no pings"])
def test_claude_code_bears_long_silence(tmp_path: Path, pings: bool) -> None:
    """Its timer for bytes is set to 15 s and the engine is silent for 24: with pings it asks once, without twice."""
    with Background() as background:
        engine = FakeEngine({"qwen3-235b": MODELS["qwen3-235b"]})
        url = background.enter(serving(engine))
        interval = "5" if pings else "600"
        with gateway(url, tmp_path / "gateway", "--ping-interval", interval, key="sk-silence-1") as front:
            extra = {"CLAUDE_BYTE_STREAM_IDLE_TIMEOUT_MS": "15000"}
            claude = ClaudeCode(front.url, front.key, tmp_path / "home", tmp_path / "work", extra=extra)
            quiet = step("First. ", Pause(24), "Then.")
            outcome = claude.run("Go. " + fake_marker(quiet), limit=200)
        asked = len(engine.chats)
    assert (asked == 1) is pings, (asked, outcome.result)
    if pings:
        assert outcome.result["result"] == "First. Then."
