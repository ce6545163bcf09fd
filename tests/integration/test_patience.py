"""Silence that lasts: answers are begun and kept alive, and the same request asked twice is one."""

from __future__ import annotations

import http.client
import itertools
import json
import re
import statistics
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
from tests.support.embedded import wait_until
from tests.support.plain_http import Asker, Held, Reply, ask
from tests.support.sdk import Sdk, SdkError

pytestmark = pytest.mark.timeout(60)

SESSION = "X-Claude-Code-Session-Id"

LONG = 20.0
"""Seconds of a silence that a test ends itself (`FakeEngine.go_on`), as soon as what it waits for has happened."""


@pytest.fixture
def quick(stages: Stages) -> Stage:
    """A gateway that loses its calm after a tenth of a second."""
    return stages(MODEL, "--ping-interval", "0.1")


@pytest.fixture
def calm(stages: Stages) -> Stage:
    """One that lets a client wait without a word."""
    return stages(MODEL, "--ping-interval", "100")


@pytest.fixture
def driven(_driven: Sdk) -> Sdk:
    """Each official SDK in turn."""
    return _driven


# -- before the head --------------------------------------------------------------------------------------------------


def once_begun(stage: Stage, body: dict[str, Any], path: str = "/v1/messages", seen: bytes = b"event: ping") -> bytes:
    """The answer's body; the engine is silent until `seen` has come for the third time."""
    headers = {"x-api-key": stage.key, "Authorization": f"Bearer {stage.key}"}
    asker = Asker(stage.url, path, body, headers=headers)
    wait_until(lambda: b"".join(piece for _, piece in stage.tap.arrivals).count(seen) >= 3, LONG / 2, "the beginning")
    assert all(chat.status is None for chat in stage.engine.chats)
    stage.engine.go_on()
    assert asker.answer.status == 200
    return asker.answer.body


def test_a_stream_is_begun_while_the_engine_has_not_accepted(quick: Stage) -> None:
    body = once_begun(quick, {**asked(step("one", before_headers=LONG)), "stream": True})
    assert pings(body.partition(b"message_start")[0]) >= 3
    checker = Checker()
    checker.feed(body)
    checker.close()
    assert checker.message["content"][0]["text"] == "one"


def test_a_refusal_that_comes_late_ends_the_stream_with_an_error(quick: Stage) -> None:
    body = once_begun(quick, {**asked(refusal(500, "boom", before_headers=LONG)), "stream": True})
    checker = Checker()
    checker.feed(body)
    checker.close()
    assert checker.error is not None
    assert (checker.error["type"], "boom" in checker.error["message"]) == ("api_error", True)


def test_openai_clients_wait_as_well(quick: Stage) -> None:
    said = step("one", before_headers=LONG)
    body = {"model": MODEL, "messages": asked(said)["messages"], "stream": True}
    answer = once_begun(quick, body, "/v1/chat/completions", b": ping\n\n")
    assert answer.startswith(b": ping\n\n")
    assert answer.endswith(b"data: [DONE]\n\n")
    quick.begin()
    late = {**body, "messages": asked(refusal(500, "boom", before_headers=LONG))["messages"]}
    failed = once_begun(quick, late, "/v1/chat/completions", b": ping\n\n")
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


def asking(stage: Stage, body: dict[str, Any], **headers: str) -> Asker:
    """A client that asks in the background."""
    return Asker(stage.url, "/v1/messages", body, headers={SESSION: "s1", "x-api-key": stage.key, **headers})


def until_asked(stage: Stage, number: int = 1) -> None:
    """Wait until the engine was asked `number` times."""
    wait_until(lambda: len(stage.engine.chats) >= number, LONG / 2, f"request {number} at the engine")


def until_in_flight(stage: Stage, number: int) -> None:
    """Wait until the gateway answers `number` requests."""
    # The look at the metrics is one itself.
    wait_until(lambda: _metric(stage, "qiao_in_flight") == number + 1, LONG / 2, f"{number} requests at the gateway")


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
        "before the head": step("one two three", before_headers=LONG),
        "before the first token": step("one two three", before_first=LONG),
        "in the middle": step("one two", Pause(LONG), " three"),
    }[moment]
    body = {**asked(said), "stream": stream}
    until_in_flight(stage, 0)
    first = asking(stage, body)
    until_asked(stage)
    time.sleep(0.3)  # until the moment has come
    second = asking(stage, body)
    until_in_flight(stage, 2)
    stage.engine.go_on()
    assert words(first.answer, stream) == words(second.answer, stream) == "one two three"
    assert len(stage.engine.chats) == 1
    assert first.answer.body.replace(b": ping", b"") == second.answer.body.replace(b": ping", b"")
    assert second.answer.headers["x-qiao-joined"] == first.answer.headers["request-id"]
    assert second.answer.headers["request-id"] != first.answer.headers["request-id"]
    # Once it is over, the same request is a new one.
    assert "x-qiao-joined" not in asking(stage, body).answer.headers
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
    body = {**asked(step("one", before_first=LONG)), "stream": True}
    other, headers = OTHERS[name](body)
    first = asking(stage, body)
    until_asked(stage)
    second = asking(stage, other, **{key: value.replace("KEY", stage.key) for key, value in headers.items()})
    until_asked(stage, 2)
    stage.engine.go_on()
    assert (first.answer.status, second.answer.status) == (200, 200)
    assert len(stage.engine.chats) == 2


def test_two_clients_without_a_session_get_two_answers(stage: Stage) -> None:
    body = {**asked(step("one", before_first=LONG)), "stream": True}
    first, second = asking(stage, body, **{SESSION: ""}), asking(stage, body, **{SESSION: ""})
    until_asked(stage, 2)
    stage.engine.go_on()
    assert (first.answer.status, second.answer.status) == (200, 200)
    assert len(stage.engine.chats) == 2


def test_a_session_may_be_named_in_the_metadata_alone(stage: Stage) -> None:
    """A gateway in front may take the headers away. A plain `user_id` is a person's, who may want two answers."""
    for number, (user_id, sent) in enumerate([('{"session_id": "s1"}', 1), ("a person", 2)]):
        stage.begin()
        said = step(f"one {number}", before_first=LONG)
        body = {**asked(said), "stream": True, "metadata": {"user_id": user_id}}
        until_in_flight(stage, 0)
        askers = [asking(stage, body, **{SESSION: ""}) for _ in range(2)]
        until_in_flight(stage, 2)
        until_asked(stage, sent)
        stage.engine.go_on()
        assert [words(asker.answer, True) for asker in askers] == [f"one {number}"] * 2
        assert len(stage.engine.chats) == sent


def test_a_refusal_is_shared(stage: Stage) -> None:
    body = {**asked(refusal(400, "Grammar error: no", before_headers=LONG)), "stream": True}
    until_in_flight(stage, 0)
    first = asking(stage, body)
    until_asked(stage)
    second = asking(stage, body)
    until_in_flight(stage, 2)
    stage.engine.go_on()
    assert (first.answer.status, second.answer.status) == (400, 400)
    assert first.answer.json["request_id"] != second.answer.json["request_id"]
    assert len(stage.engine.chats) == 1


def held(stage: Stage, body: dict[str, Any]) -> Held:
    """A client with the session of `asking` that may hang up; the same bytes, `ask` writes JSON in the same way."""
    return Held(stage.gateway.url, "/v1/messages", body, headers={"x-api-key": stage.key, SESSION: "s1"})


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("moment", ["before the head", "before the first token", "in the middle"])
def test_the_first_may_leave(stage: Stage, stream: bool, moment: str) -> None:
    said = {
        "before the head": step("one two three", before_headers=LONG),
        "before the first token": step("one two three", before_first=LONG),
        "in the middle": step("one two", Pause(LONG), " three"),
    }[moment]
    body = {**asked(said), "stream": stream}
    until_in_flight(stage, 0)
    first = held(stage, body)
    until_asked(stage)
    time.sleep(0.3)  # until the moment has come
    second = asking(stage, body)
    until_in_flight(stage, 2)
    first.hang_up()
    time.sleep(0.3)  # long enough for the engine to be stopped, if that were done
    stage.engine.go_on()
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
    # The median of three: a busy machine may delay the test itself.
    for number in range(3):
        until_in_flight(stage, 0)
        body = {**asked(Step(parts=step(f"one{number}").parts, **{moment: LONG})), "stream": stream}
        first = held(stage, body)
        until_asked(stage, number + 1)
        second = held(stage, body)
        until_in_flight(stage, 2)
        first.hang_up()
        time.sleep(0.3)
        assert stage.engine.chats[-1].disconnected_at is None
        left = second.hang_up()
        request = stage.engine.wait_until(lambda found: found.disconnected_at is not None)
        assert request.disconnected_at is not None
        taken.append(request.disconnected_at - left)
    assert statistics.median(taken) < 0.2
    assert len(stage.engine.chats) == len(taken)


@pytest.mark.parametrize("moment", ["before_headers", "before_first"])
def test_a_client_that_lost_its_patience_finds_its_request_again(calm: Stage, moment: str) -> None:
    body = {**asked(Step(parts=step("one").parts, **{moment: LONG})), "stream": True}

    def needed() -> int:
        calm.begin()
        first = held(calm, body)
        time.sleep(2.5)
        first.hang_up()
        time.sleep(0.6)
        return heard_again(calm, body, "one")

    assert best_of_three(needed, 2) == 1
    assert calm.engine.chats[-1].disconnected_at is None


def test_one_that_comes_back_too_late_is_waited_for_longer_the_next_time(calm: Stage) -> None:
    """Clients come back later from time to time; the first time it is a busy machine that delays one."""
    body = {**asked(step("come back", before_first=LONG)), "stream": True}

    def needed() -> int:
        calm.begin()
        first = held(calm, body)
        time.sleep(2.3)
        first.hang_up()
        calm.engine.wait_until(lambda found: found.disconnected_at is not None)
        second = held(calm, body)
        until_asked(calm, 2)
        time.sleep(2.3)
        second.hang_up()
        time.sleep(1.4)
        return heard_again(calm, body, "come back")

    assert best_of_three(needed, 3) == 2
    assert [chat.disconnected_at is None for chat in calm.engine.chats] == [False, True]


def test_one_that_does_not_come_back_is_waited_for_a_second(calm: Stage) -> None:
    attempts = itertools.count()

    def taken() -> float:
        calm.begin()
        first = held(calm, {**asked(step(f"one{next(attempts)}", before_first=LONG)), "stream": True})
        time.sleep(2.5)
        left = first.hang_up()
        request = calm.engine.wait_until(lambda found: found.disconnected_at is not None)
        assert request.disconnected_at is not None
        assert request.disconnected_at - left > 0.8
        return request.disconnected_at - left

    assert best_of_three(taken, 1.6) < 1.6


def test_one_that_has_heard_something_is_not_waited_for(calm: Stage) -> None:
    def taken() -> float:
        calm.begin()
        first = held(calm, {**asked(step("one", Pause(LONG), "two", before_first=2.2)), "stream": True})
        first.until(b'"one"')
        left = first.hang_up()
        request = calm.engine.wait_until(lambda found: found.disconnected_at is not None)
        assert request.disconnected_at is not None
        return request.disconnected_at - left

    assert best_of_three(taken, 0.6) < 0.6


def heard_again(stage: Stage, body: dict[str, Any], said: str) -> int:
    """How often the engine was asked, once a client that comes back has heard `said`."""
    again = asking(stage, body)
    time.sleep(0.2)
    stage.engine.go_on()
    assert words(again.answer, True) == said
    return len(stage.engine.chats)


def best_of_three(measure: Callable[[], float], enough: float) -> float:
    """The least that `measure` returns, which is asked again only where it is not `enough`: others use this machine."""
    found = measure()
    for _ in range(2):
        if found >= enough:
            found = min(found, measure())
    return found


def test_joined_requests_are_counted_once(stage: Stage) -> None:
    body = {**asked(step("one", before_first=LONG)), "stream": True}
    until_in_flight(stage, 0)
    before = _metric(stage, "qiao_joined_total")
    tokens = _metric(stage, 'qiao_tokens_total{direction="output"}')
    first = asking(stage, body)
    until_asked(stage)
    second = asking(stage, body)
    until_in_flight(stage, 2)
    stage.engine.go_on()
    assert first.answer.status == second.answer.status == 200
    until_in_flight(stage, 0)
    assert _metric(stage, "qiao_joined_total") == before + 1
    spent = _metric(stage, 'qiao_tokens_total{direction="output"}') - tokens
    assert streamed(stage, body).message["usage"]["output_tokens"] == spent


def _metric(stage: Stage, name: str) -> float:
    text = ask(stage.gateway.url, "GET", "/metrics").body.decode()
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


def test_a_long_queue_is_told_to_the_very_first_request(stages: Stages) -> None:
    stage = stages(MODEL, "--queue-limit", "2", apart="first in the queue")
    stage.engine.waiting = 50
    reply = post(stage, asked("yes"))
    assert (reply.status, reply.json["error"]["type"]) == (529, "overloaded_error")
    assert not stage.engine.chats


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
