"""Time and trouble in streams: silence, clients that leave, engines that write badly."""

from __future__ import annotations

import itertools
import json
import statistics
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from qiao.core.anthropic.grammar import Checker
from tests.fakes.script import Call, Delta, Pause, Raw, Step, Think, call, step
from tests.integration.conftest import MODEL, Stage, Stages
from tests.integration.test_gateway_http import post
from tests.integration.test_sdk_answers import WEATHER, asked, essence
from tests.support.embedded import wait_until
from tests.support.plain_http import Asker, leave

pytestmark = pytest.mark.timeout(60)


def streamed(stage: Stage, body: dict[str, Any]) -> Checker:
    """The message of a stream, rebuilt by the strict checker."""
    reply = post(stage, {**body, "stream": True})
    assert reply.status == 200, reply.body
    assert reply.headers["content-type"].startswith("text/event-stream")
    checker = Checker(exact_usage=not stage.inexact_usage)
    checker.feed(reply.body)
    checker.close()
    return checker


def pings(body: bytes) -> int:
    return body.count(b"event: ping\n")


def test_pings_fill_the_silence(stages: Stages) -> None:
    stage = stages(MODEL, "--ping-interval", "0.2")
    quiet = step("one", Pause(1.5), "two", before_first=1.5)
    body = post(stage, {**asked(quiet), "stream": True}).body
    before, _, after = body.partition(b'"one"')
    assert 2 <= pings(before) <= 9  # the first quarter of a second is spent on looking for a late refusal
    assert 2 <= pings(after) <= 9
    stage.tap.forget()
    busy = step("a b c d e f", between=0.05)
    body = post(stage, {**asked(busy), "stream": True}).body
    times = [when for when, _ in stage.tap.arrivals]
    silences = [later - earlier for earlier, later in itertools.pairwise(times) if later - earlier > 0.15]
    assert pings(body) <= 1 + len(silences)


def test_a_stream_begins_as_soon_as_the_engine_accepts(stage: Stage) -> None:
    """Headers before the first token, so that a client sees that it waits for the model and not for the network."""
    body = {**asked(step("one", before_first=20)), "stream": True}
    asker = Asker(stage.url, "/v1/messages", body, headers={"x-api-key": stage.key})
    wait_until(lambda: stage.tap.arrivals, 10, "the head")
    assert stage.tap.arrivals[0][1].startswith(b"HTTP/1.1 200")
    stage.engine.go_on()
    assert b'"one"' in asker.answer.body


def test_tokens_are_passed_on_as_they_come(stage: Stage) -> None:
    times: list[float] = []
    # The best of three: where the machine is busy, two may be on the way at the same time.
    for _ in range(3):
        stage.tap.forget()
        post(stage, {**asked(step("one two three four", between=0.1)), "stream": True})
        times = [when for when, piece in stage.tap.arrivals if b"text_delta" in piece]
        if len(times) == 4:
            break
    assert len(times) == 4
    assert times[-1] - times[0] > 0.25


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("moment", ["before the head", "before the first token", "in the middle"])
def test_the_engine_is_stopped_when_the_client_leaves(stage: Stage, stream: bool, moment: str) -> None:
    said = {
        "before the head": step("one", before_headers=20),
        "before the first token": step("one", before_first=20),
        "in the middle": step("one two", Pause(20), "three"),
    }[moment]
    body = {**asked(said), "stream": stream}
    wait_for = b"two" if stream and moment == "in the middle" else b""
    taken: list[float] = []
    # The median of five: a busy machine may delay the test itself.
    for _ in range(5):
        stage.engine.forget()
        left = leave(
            stage.gateway.url, "/v1/messages", body, headers={"x-api-key": stage.key}, after=0.3, wait_for=wait_for
        )
        request = stage.engine.wait_until(lambda found: found.disconnected_at is not None)
        assert request.disconnected_at is not None
        taken.append(request.disconnected_at - left)
    assert statistics.median(taken) < 0.2


BROKEN = {
    "a list": "[1]",
    "a string": '"x"',
    "null": "null",
    "a number": "5",
    "a trailing comma": '{"city": "Paris",}',
    "an extra brace": '{"city": "Paris"}}',
    "a missing brace": '{"city": "Paris"',
    "single quotes": "{'city': 'Paris'}",
    "python words": '{"city": "Paris", "hot": True, "cold": None}',
    "a raw newline": '{"city": "Pa\nris"}',
    "two objects": '{"city": "Paris"}{"city": "Rom"}',
    "prose": "the city of Paris",
    "a fence": '```json\n{"city": "Paris"}\n```',
    "spaces": "  ",
}


@pytest.mark.parametrize("split", ["token", "char", "whole"])
@pytest.mark.parametrize("name", BROKEN)
def test_broken_arguments_are_repaired_or_handed_back(stage: Stage, name: str, split: str) -> None:
    raw = BROKEN[name]
    said = Step(parts=step("Look:", Call("get_weather", raw)).parts, split=split)  # type: ignore[arg-type]
    body = asked(said, tools=[WEATHER])
    whole = post(stage, body)
    assert whole.status == 200
    checked = streamed(stage, body)
    assert essence(checked.message) == essence(whole.json)
    blocks = whole.json["content"]
    calls = [block for block in blocks if block["type"] == "tool_use"]
    words = "".join(block.get("text", "") for block in blocks)
    assert all(isinstance(block["input"], dict) for block in calls)
    # Either it became a call, or every character of it is there for the reader; never neither.
    assert calls or raw.strip() in words
    if "Paris" in raw and calls:
        assert "Paris" in json.dumps(calls) + words


def test_a_call_that_the_limit_cut_is_not_executed(stage: Stage) -> None:
    body = asked(call("get_weather", city="a very long name of a city that never ends"), tools=[WEATHER], max_tokens=8)
    checked = streamed(stage, body)
    assert checked.message["stop_reason"] == "max_tokens"
    whole = post(stage, body).json
    assert whole["stop_reason"] == "max_tokens"
    assert all(block["type"] != "tool_use" for block in whole["content"])


def test_interleaved_calls_come_one_after_the_other(stage: Stage) -> None:
    def piece(index: int, arguments: str, name: str | None = None) -> Delta:
        entry: dict[str, Any] = {"index": index, "function": {"arguments": arguments}}
        if name:
            entry |= {"id": f"call_{index}", "type": "function"}
            entry["function"]["name"] = name
        return Delta({"tool_calls": [entry]})

    said = step(
        piece(0, "", "get_weather"),
        piece(1, "", "get_weather"),
        piece(0, '{"city":'),
        piece(1, '{"city": "B'),
        piece(0, ' "A"}'),
        Delta({"content": "words between"}),
        piece(1, '"}'),
        finish="tool_calls",
    )
    message = streamed(stage, asked(said, tools=[WEATHER])).message
    calls = [block["input"] for block in message["content"] if block["type"] == "tool_use"]
    assert calls == [{"city": "A"}, {"city": "B"}]
    assert "words between" in "".join(block.get("text", "") for block in message["content"])


def test_odd_deltas(stage: Stage) -> None:
    both = {"index": 0, "id": "c", "type": "function", "function": {"name": "get_weather"}}
    said = step(
        Delta({"content": None}),
        Delta({}),
        Delta({"reasoning_content": "old"}),
        Delta({"reasoning": " new", "content": ""}),
        Delta({"content": "text", "reasoning": None}),
        Delta({"tool_calls": [both, {"index": 0, "function": {"arguments": '{"city":"A"}'}}]}),
        Raw('data: {"choices":[]}\n\n'),
        Raw("event: message\nid: 5\nretry: 10\n\n"),
        finish="tool_calls",
        stop_reason=151643,
    )
    message = streamed(stage, asked(said, tools=[WEATHER], thinking={"type": "adaptive"})).message
    assert [block["type"] for block in message["content"]] == ["thinking", "text", "tool_use"]
    assert message["content"][0]["thinking"] == "old new"
    assert message["content"][2]["input"] == {"city": "A"}
    assert message["stop_reason"] == "tool_use"


def test_an_engine_that_tells_no_usage(stage: Stage) -> None:
    stage.inexact_usage = True
    body = asked(step("one two", usage="never"))
    usage = streamed(stage, body).message["usage"]
    assert usage["input_tokens"] > 0
    assert usage["output_tokens"] > 0
    assert post(stage, body).json["usage"]["input_tokens"] > 0


def test_cached_tokens_are_subtracted(stage: Stage) -> None:
    said = step(
        "yes",
        usage={"prompt_tokens": 1000, "prompt_tokens_details": {"cached_tokens": 640, "created_cache_tokens": 128}},
    )
    stage.inexact_usage = True
    for usage in (streamed(stage, asked(said)).message["usage"], post(stage, asked(said)).json["usage"]):
        assert usage["cache_read_input_tokens"] == 640
        assert usage["cache_creation_input_tokens"] == 128
        assert usage["input_tokens"] == 232


def test_nothing_said_is_still_a_message(stage: Stage) -> None:
    for said in (step(), step("", finish="stop"), step("\n\n"), step(Think("only thoughts"))):
        body = asked(said)
        message = streamed(stage, body).message
        assert message["stop_reason"] == "end_turn"
        assert essence(post(stage, body).json) == essence(message)


def test_many_streams_at_once(stage: Stage) -> None:
    def one(number: int) -> str:
        text = f"stream {number} " * 50
        checked = streamed(stage, asked(step(text, between=0.001)))
        found: str = checked.message["content"][0]["text"]
        return "right" if found == text else found

    with ThreadPoolExecutor(24) as pool:
        assert set(pool.map(one, range(24))) == {"right"}
