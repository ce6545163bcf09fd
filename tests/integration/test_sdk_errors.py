"""What the official SDKs raise: the class, the type, the message and the request id of every kind of failure."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fakes.script import Break, Pause, Step, call, refusal, step
from tests.integration.conftest import MODEL, Stage, Stages, connected
from tests.integration.test_sdk_answers import WEATHER, asked
from tests.support.sdk import Sdk, SdkError

pytestmark = pytest.mark.timeout(60)

OVERFLOW = (
    "This model's maximum context length is 40960 tokens. However, your prompt contains at least 40961 input tokens, "
    "which exceeds this limit even without any output tokens. Please reduce the length of the input prompt. "
    "(parameter=input_tokens, value=40961)"
)


def failed(client: Sdk, order: str, **params: Any) -> SdkError:
    with pytest.raises(SdkError) as raised:
        client.do(order, **params)
    return raised.value


EARLY: dict[str, tuple[Step, int, str, str]] = {
    "a refused field": (refusal(400, "Grammar error: Unknown format: zorg"), 400, "BadRequestError", "zorg"),
    "too long": (refusal(400, OVERFLOW), 400, "BadRequestError", "prompt is too long: "),
    "the upstream's key": (refusal(401, "Unauthorized"), 502, "InternalServerError", "upstream"),
    "too many requests": (refusal(429, "slow down", headers={"Retry-After": "1"}), 429, "RateLimitError", "slow down"),
    "a crash": (refusal(500, "Internal server error"), 502, "InternalServerError", "Internal server error"),
    "a proxy's page": (Step(status=502, body="<html>Bad Gateway</html>"), 502, "InternalServerError", ""),
    "overloaded": (refusal(503, "The server is overloaded"), 529, "OverloadedError", ""),
}


@pytest.mark.parametrize("order", ["create", "stream"])
@pytest.mark.parametrize("name", EARLY)
def test_an_early_failure_is_a_status(client: Sdk, stage: Stage, name: str, order: str) -> None:
    said, status, kind, words = EARLY[name]
    error = failed(client, order, **asked(said))
    assert error.status == status, error
    if client.name != "python-0" or status != 529:
        assert kind in error.classes
    assert words in error.message
    assert error.type in ("invalid_request_error", "rate_limit_error", "api_error", "overloaded_error")
    exchange = stage.tap.exchanges[-1]
    assert exchange.headers["request-id"].startswith("req_")
    assert exchange.answer["request_id"] == exchange.headers["request-id"]
    assert error.request_id == exchange.headers["request-id"]


def test_the_true_length_is_in_the_overflow_message(client: Sdk, stage: Stage) -> None:
    stage.refusals = True
    params = asked("never")
    params["messages"][0]["content"] += " word" * 140_000
    error = failed(client, "create", **params)
    assert error.status == 400
    assert error.type == "invalid_request_error"
    length, _, maximum = error.message.removeprefix("prompt is too long: ").partition(" tokens > ")
    assert int(length) > 140_000
    assert maximum.startswith("131072 maximum")


@pytest.mark.parametrize("order", ["create", "stream"])
def test_a_passing_failure_is_retried_by_the_sdk(client: Sdk, stage: Stage, order: str) -> None:
    said = Step(attempts=(refusal(503, "busy"), refusal(500, "crash"), step("at last")))
    message = client.do(order, retries=2, **asked(said))["message"]
    assert message["content"][0]["text"] == "at last"
    assert len(stage.engine.chats) == 3


LATE: dict[str, Step] = {
    "the engine died": step("a b", Break("error")),
    "the engine's own words": step("a b", Break("error", {"error": {"message": "CUDA error", "code": 500}})),
    "no finish": step("a b", Break("eof")),
    "no finish, but an end mark": step("a b", finish=None),
    "a reset": step("a b", Pause(0.1), Break("reset")),
    "inside a call": step("a b", call("get_weather", city="Paris"), Break("eof")),
}


@pytest.mark.parametrize("name", LATE)
def test_a_late_failure_is_an_error_in_the_stream(client: Sdk, stage: Stage, name: str) -> None:
    error = failed(client, "stream", **asked(LATE[name], tools=[WEATHER]))
    assert "APIError" in error.classes
    exchange = stage.tap.exchanges[-1]
    assert b"event: error\n" in exchange.body
    assert b"message_stop" not in exchange.body
    assert error.type in ("api_error", "overloaded_error")
    if name == "the engine's own words":
        assert "CUDA error" in error.message


@pytest.mark.parametrize("name", LATE)
def test_the_same_failure_of_a_whole_answer_is_a_status(client: Sdk, stage: Stage, name: str) -> None:
    error = failed(client, "create", **asked(LATE[name], tools=[WEATHER]))
    assert error.status is not None
    assert error.status >= 500
    assert error.type in ("api_error", "overloaded_error")


def test_an_unknown_model(client: Sdk, stage: Stage) -> None:
    error = failed(client, "create", **asked("yes") | {"model": "gpt-9"})
    assert (error.status, error.type) == (404, "not_found_error")
    assert "gpt-9" in error.message
    assert "NotFoundError" in error.classes
    assert failed(client, "model", id="gpt-9").status == 404
    assert stage.engine.chats == []


def test_a_wrong_key(client: Sdk, stage: Stage) -> None:
    client.key = "sk-wrong"
    for order, params in (("create", asked("yes")), ("models", {})):
        error = failed(client, order, **params)
        assert (error.status, error.type) == (401, "authentication_error")
        assert "AuthenticationError" in error.classes
    assert stage.engine.chats == []


def test_a_wrong_request_names_its_place(client: Sdk, stage: Stage) -> None:
    params = asked("yes")
    params["messages"].append({"role": "user", "content": [{"type": "text", "text": 5}]})
    error = failed(client, "create", **params)
    assert (error.status, error.type) == (400, "invalid_request_error")
    assert "messages.1.content.0.text" in error.message


def test_a_dead_engine(client: Sdk, stages: Stages) -> None:
    """Nobody listens where the engine should be."""
    stage = connected_to_nobody(stages)
    error = failed(connected(client, stage), "create", **asked("yes") | {"model": MODEL})
    assert error.status is not None
    assert error.status >= 500
    assert error.type in ("api_error", "overloaded_error")


def connected_to_nobody(stages: Stages) -> Stage:
    return stages(MODEL, "--upstream", "http://127.0.0.1:9/v1", "--model", MODEL)


def test_a_client_that_leaves_stops_the_engine(client: Sdk, stage: Stage) -> None:
    said = step("one two three", Pause(30), "four")
    client.do("leave", after=4, **asked(said))
    request = stage.engine.wait_until(lambda found: found.disconnected_at is not None)
    assert request.finished_at is not None
