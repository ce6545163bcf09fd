"""The score sheet: full on qiao, and each point missed on a server that does the thing wrong."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from qiao.doctor.replay.reading import error_of, streamed
from qiao.doctor.replay.run import QUESTIONS, replay
from qiao.doctor.replay.sheet import Failed, Point, Sheet, Talk, Unknown
from qiao.upstream.endpoint import Endpoint, Exchange
from tests.doctor.servers import CARELESS, LITELLM_HEADERS, answering, litellm
from tests.fakes.behaviour import Behaviour
from tests.fakes.engine import FakeEngine, serving
from tests.support.background import Background
from tests.support.gateway import Gateway, free_port, gateway

KEY = "sk-doctor-55ab90cd12"
MODEL = "qwen3-235b"


@pytest.fixture(scope="module")
def background() -> Iterator[Background]:
    with Background() as running:
        yield running


@pytest.fixture(scope="module", params=["parser", "no parser"])
def running(
    request: pytest.FixtureRequest, background: Background, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    has_parser = request.param == "parser"
    behaviour = Behaviour(max_model_len=40_960, tool_parser=has_parser, reasoning_parser=has_parser)
    engine = background.enter(serving(FakeEngine({MODEL: behaviour})))
    with gateway(engine, tmp_path_factory.mktemp("gateway"), key=KEY) as started:
        yield started


def missed(sheet: Sheet) -> dict[str, str]:
    return {point.name: point.evidence for point in sheet.points if point.verdict == "fail"}


async def test_qiao_scores_in_full(running: Gateway) -> None:
    told: list[Point] = []
    sheet = await replay(running.url, running.key, told=told.append)
    assert missed(sheet) == {}
    assert sheet.passed == sheet.total >= 36
    assert {point.name for point in sheet.points if point.verdict == "skipped"} <= {"ping"}
    assert told == list(sheet.points)
    assert sheet.window == 40_960
    assert sheet.model == MODEL


async def test_a_careless_server_scores_hardly_anything() -> None:
    async with answering(CARELESS) as url:
        sheet = await replay(url, None)
    assert {point.name for point in sheet.points if point.must} <= set(missed(sheet)) | {"overflow"}
    assert sheet.passed <= 1
    assert "usage" in missed(sheet)["whole_answer"] or "no message" in missed(sheet)["whole_answer"]
    assert len(sheet.failed_musts) >= 9


async def test_what_a_server_says_is_kept() -> None:
    words = "Not Found LiteLLM: model group 'm' failed"
    async with answering(litellm(words, 400), LITELLM_HEADERS) as url:
        sheet = await replay(url, "sk-a", server="LiteLLM")
    assert words in sheet.errors
    assert sheet.server == "LiteLLM"


async def test_nothing_answers() -> None:
    sheet = await replay(f"http://127.0.0.1:{free_port()}", None)
    assert sheet.passed == 0
    assert {point.verdict for point in sheet.points} == {"fail", "skipped"}


async def test_the_time_is_bounded(running: Gateway) -> None:
    begun = asyncio.get_running_loop().time()
    sheet = await replay(running.url, running.key, limit=0.001)
    assert asyncio.get_running_loop().time() - begun < 5
    assert sheet.count("skipped") >= len(QUESTIONS) - 1
    assert len(sheet.points) == len(QUESTIONS)


def test_points_have_names_of_their_own() -> None:
    names = [question.name for question in QUESTIONS]
    assert len(set(names)) == len(names)
    assert all(question.about and question.group for question in QUESTIONS)
    groups = [question.group for question in QUESTIONS]
    assert sum(a != b for a, b in itertools.pairwise(groups)) == len(set(groups)) - 1


START = 'event: message_start\ndata: {"type":"message_start","message":{"role":"assistant"}}\n\n'
BLOCK = 'event: content_block_start\ndata: {"type":"content_block_start","index":0,"content_block":{"type":"KIND"}}\n\n'
STOP = 'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n'
END = 'event: message_stop\ndata: {"type":"message_stop"}\n\n'


def exchange(body: str, status: int = 200, kind: str = "text/event-stream") -> Exchange:
    return Exchange(status=status, headers={"content-type": kind}, body=body.encode())


def talk() -> Talk:
    return Talk(Endpoint("http://h", None), "m", has_key=False)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (exchange('data: {"type":"message_start"}\n\n'), "event:"),
        (exchange("{}", kind="application/json"), "asked for a stream"),
        (exchange(""), "no message_start"),
        (exchange(BLOCK.replace("KIND", "text") + END), "before message_start"),
        (exchange(START + BLOCK.replace("KIND", "hologram")), "unknown type"),
        (exchange(START + BLOCK.replace("KIND", "text") + END), "never closed"),
        (exchange(START + STOP), "not open"),
        (exchange(START), "without message_stop"),
        (exchange('event: error\ndata: {"error":{"message":"broke"}}\n\n'), "broke"),
        (exchange("event: message_start\ndata: {\n\n"), "no JSON"),
        (
            exchange(
                START
                + BLOCK.replace("KIND", "tool_use")
                + 'event: content_block_delta\ndata: {"index":0,"delta":{"partial_json":"{\\"a"}}\n\n'
                + STOP
                + END
            ),
            "input is no JSON",
        ),
        (exchange("", status=400), "400"),
        (Exchange(failure="connection refused"), "connection refused"),
    ],
)
def test_streams_that_claude_code_cannot_read(answer: Exchange, words: str) -> None:
    with pytest.raises(Failed, match=words):
        streamed(talk(), answer)


def test_a_stream_that_it_can_read() -> None:
    message = streamed(talk(), exchange(START + ": ping\n\n" + BLOCK.replace("KIND", "text") + STOP + END))
    assert [block["type"] for block in message["content"]] == ["text"]


def test_busy_is_no_verdict() -> None:
    with pytest.raises(Unknown):
        streamed(talk(), exchange("{}", status=529))


GOOD_ERROR = '{"type":"error","error":{"type":"invalid_request_error","message":"max_tokens: required"}}'


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (exchange(GOOD_ERROR, status=422), "422 instead of 400"),
        (exchange('{"error":{"message":"x","type":"BadRequestError"}}', status=400), "not in Anthropic's shape"),
        (exchange(GOOD_ERROR.replace("invalid_request_error", "BadRequestError"), status=400), "BadRequestError"),
    ],
)
def test_errors_that_are_not_anthropics(answer: Exchange, words: str) -> None:
    with pytest.raises(Failed, match=words):
        error_of(answer, 400, "invalid_request_error")


def test_an_error_that_is() -> None:
    assert "max_tokens" in error_of(exchange(GOOD_ERROR, status=400), 400, "invalid_request_error")


@pytest.mark.parametrize(
    ("route", "answer", "point"),
    [
        (("HEAD", "/"), (405, {"detail": "Method Not Allowed"}), "head"),
        (("GET", "/v1/models"), (200, {"data": [{"id": "m"}]}), "models"),
        (("GET", "/v1/models"), (200, {"data": [{"id": "m"}]}), "models_window"),
        (("POST", "/v1/messages/count_tokens"), (404, {"detail": "Not Found"}), "count_tokens"),
        (("POST", "/v1/messages"), (200, {"type": "message", "content": []}), "request_id"),
        (("POST", "/v1/messages"), (500, "Internal Server Error"), "error_field"),
        (("POST", "/v1/messages"), (400, {"detail": "bad"}), "web_search"),
    ],
)
async def test_single_points_are_missed(route: tuple[str, str], answer: Any, point: str) -> None:
    async with answering({route: answer}) as url:
        sheet = await replay(url, None)
    assert point in missed(sheet)
