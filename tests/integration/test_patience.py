"""Silence that lasts: answers are begun and kept alive, and the same request asked twice is one."""

from __future__ import annotations

import http.client
import json
import re
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from qiao.core.anthropic.grammar import Checker
from tests.fakes.script import Break, Pause, Step, refusal, step
from tests.integration.conftest import MODEL, Stage, Stages, connected
from tests.integration.test_gateway_http import post
from tests.integration.test_gateway_streams import pings, streamed
from tests.integration.test_sdk_answers import asked
from tests.support.plain_http import Held, Reply, ask
from tests.support.sdk import Sdk, SdkError

pytestmark = pytest.mark.timeout(60)

SESSION = "X-Claude-Code-Session-Id"


@pytest.fixture
def quick(stages: Stages) -> Stage:
    """A gateway that loses its calm after a fifth of a second."""
    return stages(MODEL, "--ping-interval", "0.2")


@pytest.fixture
def calm(stages: Stages) -> Stage:
    """One that lets a client wait without a word."""
    return stages(MODEL, "--ping-interval", "100")


@pytest.fixture
def driven(_driven: Sdk) -> Sdk:
    """Each official SDK in turn."""
    return _driven


# -- before the head --------------------------------------------------------------------------------------------------


def test_a_stream_is_begun_while_the_engine_has_not_accepted(quick: Stage) -> None:
    reply = post(quick, {**asked(step("one", before_headers=1.2)), "stream": True})
    assert reply.status == 200
    assert pings(reply.body.partition(b"message_start")[0]) >= 3
    checker = Checker()
    checker.feed(reply.body)
    checker.close()
    assert checker.message["content"][0]["text"] == "one"
    assert quick.tap.arrivals[0][0] < quick.tap.arrivals[-1][0] - 0.6


def test_a_refusal_that_comes_late_ends_the_stream_with_an_error(quick: Stage) -> None:
    reply = post(quick, {**asked(refusal(500, "boom", before_headers=0.8)), "stream": True})
    assert reply.status == 200
    checker = Checker()
    checker.feed(reply.body)
    checker.close()
    assert checker.error is not None
    assert (checker.error["type"], "boom" in checker.error["message"]) == ("api_error", True)


def test_openai_clients_wait_as_well(quick: Stage) -> None:
    said = step("one", before_headers=0.8)
    body = {"model": MODEL, "messages": asked(said)["messages"], "stream": True}
    reply = post(quick, body, "/v1/chat/completions", Authorization=f"Bearer {quick.key}")
    assert reply.status == 200
    assert reply.body.startswith(b": ping\n\n")
    assert reply.body.endswith(b"data: [DONE]\n\n")
    late = {**body, "messages": asked(refusal(500, "boom", before_headers=0.8))["messages"]}
    failed = post(quick, late, "/v1/chat/completions", Authorization=f"Bearer {quick.key}").body
    assert b"boom" in failed
    assert failed.endswith(b"data: [DONE]\n\n")


# -- whole answers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["before_headers", "before_first"])
def test_a_whole_answer_is_kept_alive(quick: Stage, driven: Sdk, where: str) -> None:
    """The SDKs wait a second for a byte; the engine takes three. Without white space they give up (`calm`)."""
    client = connected(driven, quick)
    message = client.do("create", timeout=1.0, **asked(Step(parts=step("one").parts, **{where: 3.0})))
    assert message["message"]["content"][0]["text"] == "one"
    assert len(quick.engine.chats) == 1


def test_without_it_the_sdks_give_up(calm: Stage, driven: Sdk) -> None:
    client = connected(driven, calm)
    with pytest.raises(SdkError) as raised:
        client.do("create", timeout=1.0, **asked(step("one", before_first=3.0)))
    assert "APIConnectionError" in raised.value.classes


def test_a_whole_answer_that_fails_late_is_no_answer(quick: Stage, driven: Sdk) -> None:
    """Its status was sent, so that it is broken off: every SDK raises, and the reason can be read."""
    said = step("one", Pause(1.2), Break("error"))
    client = connected(driven, quick)
    with pytest.raises(SdkError):
        client.do("create", timeout=5.0, **asked(said))
    connection = http.client.HTTPConnection("127.0.0.1", int(quick.url.rpartition(":")[2]), timeout=10)
    connection.request("POST", "/v1/messages", json.dumps(asked(said)), {"x-api-key": quick.key})
    answer = connection.getresponse()
    assert answer.status == 200
    with pytest.raises(http.client.IncompleteRead) as broken:
        answer.read()
    connection.close()
    error = json.loads(broken.value.partial)
    assert (error["type"], error["error"]["type"]) == ("error", "api_error")


# -- the same request twice ------------------------------------------------------------------------------------------


class Asker(threading.Thread):
    """One client that asks in the background; `reply` once it has joined."""

    def __init__(self, stage: Stage, body: dict[str, Any], **headers: str) -> None:
        super().__init__()
        self._stage, self._body = stage, body
        self._headers = {SESSION: "s1", "x-api-key": stage.key, **headers}
        self.reply: Reply | None = None
        self.start()

    def run(self) -> None:
        self.reply = ask(self._stage.url, "POST", "/v1/messages", self._body, headers=self._headers)

    @property
    def answer(self) -> Reply:
        self.join(20)
        assert self.reply is not None
        return self.reply


def words(reply: Reply, stream: bool) -> str:
    assert reply.status == 200, reply.body
    if not stream:
        return str(reply.json["content"][0]["text"])
    checker = Checker()
    checker.feed(reply.body)
    checker.close()
    return str(checker.message["content"][0]["text"])


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("moment", ["before the head", "before the first token", "in the middle"])
def test_the_same_request_joins(stage: Stage, stream: bool, moment: str) -> None:
    said = {
        "before the head": step("one two three", before_headers=1.0),
        "before the first token": step("one two three", before_first=1.0),
        "in the middle": step("one two", Pause(1.0), " three"),
    }[moment]
    body = {**asked(said), "stream": stream}
    first = Asker(stage, body)
    time.sleep(0.5)
    second = Asker(stage, body)
    assert words(first.answer, stream) == words(second.answer, stream) == "one two three"
    assert len(stage.engine.chats) == 1
    assert first.answer.body.replace(b": ping", b"") == second.answer.body.replace(b": ping", b"")
    assert second.answer.headers["x-qiao-joined"] == first.answer.headers["request-id"]
    assert second.answer.headers["request-id"] != first.answer.headers["request-id"]
    # Once it is over, the same request is a new one.
    assert "x-qiao-joined" not in Asker(stage, body).answer.headers
    assert len(stage.engine.chats) == 2


OTHERS: dict[str, Callable[[dict[str, Any]], tuple[dict[str, Any], dict[str, str]]]] = {
    "another session": lambda body: (body, {SESSION: "s2"}),
    "no session": lambda body: (body, {SESSION: ""}),
    "another agent": lambda body: (body, {"x-claude-code-agent-id": "a"}),
    "another body": lambda body: ({**body, "max_tokens": 1999}, {}),
    "whole instead of streamed": lambda body: ({**body, "stream": False}, {}),
    "the key in another header": lambda body: (body, {"x-api-key": "", "Authorization": "Bearer KEY"}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_others_do_not_join(stage: Stage, name: str) -> None:
    body = {**asked(step("one", before_first=0.7)), "stream": True}
    other, headers = OTHERS[name](body)
    first = Asker(stage, body)
    time.sleep(0.3)
    second = Asker(stage, other, **{key: value.replace("KEY", stage.key) for key, value in headers.items()})
    assert (first.answer.status, second.answer.status) == (200, 200)
    assert len(stage.engine.chats) == 2


def test_two_clients_without_a_session_get_two_answers(stage: Stage) -> None:
    body = {**asked(step("one", before_first=0.7)), "stream": True}
    first, second = Asker(stage, body, **{SESSION: ""}), Asker(stage, body, **{SESSION: ""})
    assert (first.answer.status, second.answer.status) == (200, 200)
    assert len(stage.engine.chats) == 2


def test_a_refusal_is_shared(stage: Stage) -> None:
    body = {**asked(refusal(400, "Grammar error: no", before_headers=1.0)), "stream": True}
    first = Asker(stage, body)
    time.sleep(0.4)
    second = Asker(stage, body)
    assert (first.answer.status, second.answer.status) == (400, 400)
    assert first.answer.json["request_id"] != second.answer.json["request_id"]
    assert len(stage.engine.chats) == 1


def held(stage: Stage, body: dict[str, Any]) -> Held:
    """A client with the session of `Asker` that may hang up; the same bytes, `ask` writes JSON in the same way."""
    return Held(stage.gateway.url, "/v1/messages", body, headers={"x-api-key": stage.key, SESSION: "s1"})


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("moment", ["before the head", "before the first token", "in the middle"])
def test_the_first_may_leave(stage: Stage, stream: bool, moment: str) -> None:
    said = {
        "before the head": step("one two three", before_headers=1.5),
        "before the first token": step("one two three", before_first=1.5),
        "in the middle": step("one two", Pause(1.5), " three"),
    }[moment]
    body = {**asked(said), "stream": stream}
    first = held(stage, body)
    time.sleep(0.4)
    second = Asker(stage, body)
    time.sleep(0.3)
    first.hang_up()
    assert words(second.answer, stream) == "one two three"
    (chat,) = stage.engine.chats
    assert chat.disconnected_at is None
    limit = time.monotonic() + 5
    while not re.search(r" out \d+ .* joined ", stage.gateway.output):
        assert time.monotonic() < limit, stage.gateway.output
        time.sleep(0.02)


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("moment", ["before_headers", "before_first"])
def test_the_engine_is_stopped_when_all_have_left(stage: Stage, stream: bool, moment: str) -> None:
    taken = []
    for number in range(3):
        body = {**asked(Step(parts=step(f"one{number}").parts, **{moment: 20.0})), "stream": stream}
        first = held(stage, body)
        time.sleep(0.3)
        second = held(stage, body)
        time.sleep(0.3)
        first.hang_up()
        time.sleep(0.3)
        assert stage.engine.chats[-1].disconnected_at is None
        left = second.hang_up()
        request = stage.engine.wait_until(lambda found: found.disconnected_at is not None)
        assert request.disconnected_at is not None
        taken.append(request.disconnected_at - left)
        if taken[-1] < 0.2:
            break
    assert min(taken) < 0.2
    assert len(stage.engine.chats) == len(taken)


@pytest.mark.parametrize("moment", ["before_headers", "before_first"])
def test_a_client_that_lost_its_patience_finds_its_request_again(calm: Stage, moment: str) -> None:
    body = {**asked(Step(parts=step("one").parts, **{moment: 5.0})), "stream": True}
    first = held(calm, body)
    time.sleep(2.5)
    first.hang_up()
    time.sleep(0.6)
    again = Asker(calm, body)
    assert words(again.answer, True) == "one"
    (chat,) = calm.engine.chats
    assert chat.disconnected_at is None


def test_one_that_does_not_come_back_is_waited_for_a_second(calm: Stage) -> None:
    body = {**asked(step("one", before_first=20.0)), "stream": True}
    first = held(calm, body)
    time.sleep(2.5)
    left = first.hang_up()
    request = calm.engine.wait_until(lambda found: found.disconnected_at is not None)
    assert request.disconnected_at is not None
    assert 0.8 < request.disconnected_at - left < 1.6


def test_one_that_has_heard_something_is_not_waited_for(calm: Stage) -> None:
    body = {**asked(step("one", Pause(20.0), "two", before_first=2.2)), "stream": True}
    first = held(calm, body)
    first.until(b'"one"')
    left = first.hang_up()
    request = calm.engine.wait_until(lambda found: found.disconnected_at is not None)
    assert request.disconnected_at is not None
    assert request.disconnected_at - left < 0.6


def test_joined_requests_are_counted_once(stage: Stage) -> None:
    body = {**asked(step("one", before_first=0.8)), "stream": True}
    before = _metric(stage, "qiao_joined_total")
    tokens = _metric(stage, 'qiao_tokens_total{direction="output"}')
    first = Asker(stage, body)
    time.sleep(0.3)
    second = Asker(stage, body)
    assert first.answer.status == second.answer.status == 200
    assert _metric(stage, "qiao_joined_total") == before + 1
    spent = _metric(stage, 'qiao_tokens_total{direction="output"}') - tokens
    assert streamed(stage, body).message["usage"]["output_tokens"] == spent


def _metric(stage: Stage, name: str) -> float:
    text = ask(stage.url, "GET", "/metrics").body.decode()
    return next((float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name)), 0.0)


# -- a queue ----------------------------------------------------------------------------------------------------------


def test_a_long_queue_is_told_before_prefill(stages: Stages) -> None:
    stage = stages(MODEL, "--queue-limit", "2", apart="queue")
    assert post(stage, asked("yes")).status == 200
    stage.engine.waiting = 5
    limit = time.monotonic() + 10
    while (reply := post(stage, asked("yes"))).status == 200:
        assert time.monotonic() < limit
        time.sleep(0.1)
    assert reply.status == 529
    assert reply.json["error"]["type"] == "overloaded_error"
    assert 1 <= int(reply.headers["retry-after"]) <= 10
    before = len(stage.engine.chats)
    assert post(stage, {**asked("yes"), "stream": True}).status == 529
    assert len(stage.engine.chats) == before
    assert ask(stage.url, "GET", "/readyz").json["waiting"] == 5
    stage.engine.waiting = 0
    while post(stage, asked("yes")).status != 200:
        assert time.monotonic() < limit
        time.sleep(0.1)


def test_side_requests_come_after_the_conversation(stage: Stage) -> None:
    tool = {"name": "t", "input_schema": {"type": "object"}}
    headers = {SESSION: "s1"}
    for fields, priority in (({}, 1), ({"tools": [tool]}, None), ({"thinking": {"type": "adaptive"}}, None)):
        assert post(stage, asked("yes", **fields), **headers).status == 200
        assert stage.engine.chats[-1].body.get("priority") == priority
    assert post(stage, asked("yes")).status == 200
    assert "priority" not in stage.engine.chats[-1].body


def test_an_engine_without_priorities_is_asked_without(stages: Stages) -> None:
    stage = stages(apart="priority")
    stage.refusals = True
    refused = refusal(400, "Got priority 1 but Priority scheduling is not enabled.")
    body = asked(Step(attempts=(refused, step("yes"))))
    reply = post(stage, body, **{SESSION: "s1"})
    assert (reply.status, reply.headers["x-qiao-healed"]) == (200, "priority")
    assert "priority" not in stage.engine.chats[-1].body
    assert "x-qiao-healed" not in post(stage, asked("yes"), **{SESSION: "s1"}).headers
