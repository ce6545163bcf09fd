"""The self-check notices what is wrong: every check fails where its answer is not what it has to be."""

from __future__ import annotations

import json
from typing import Any

import pytest

from qiao.app.self_check import Check, self_check
from qiao.upstream.gateway import GatewayClient
from tests.app.misbehaving import Answers, answering


def message(*content: dict[str, Any]) -> tuple[int, str]:
    return 200, json.dumps({"type": "message", "content": list(content)})


def call(name: str = "report_sum", **arguments: object) -> dict[str, Any]:
    return {"type": "tool_use", "id": "t", "name": name, "input": arguments}


async def checked(answers: Answers) -> dict[str, Check]:
    async with answering(answers) as url, GatewayClient(url, None) as client:
        return {check.name: check async for check in self_check(client, "m")}


async def test_nothing_works() -> None:
    found = await checked({})
    assert list(found) == ["text", "stream", "tool call", "count"]
    for check in found.values():
        assert "answers 404" in (check.problem or "")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ([{"type": "text", "text": "Hello."}], None),
        ([{"type": "thinking", "thinking": "…"}], None),
        ([{"type": "text", "text": " "}], "the answer is empty"),
        ([], "the answer is empty"),
    ],
)
async def test_text(content: list[dict[str, Any]], problem: str | None) -> None:
    assert (await checked({"POST /v1/messages": message(*content)}))["text"].problem == problem


@pytest.mark.parametrize(
    ("said", "note"),
    [
        ("Hello there", '"Hello there"'),
        ("I'm here", '"I\'m here"'),
        ('Say "hi"\n你好', '"Say \\"hi\\"\\n你好"'),
        ("x" * 50, '"' + "x" * 40 + '"'),
    ],
)
async def test_what_was_said_stands_in_one_kind_of_quotes(said: str, note: str) -> None:
    answer = message({"type": "text", "text": said})
    assert (await checked({"POST /v1/messages": answer}))["text"].note == note


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ([call(sum=5)], None),
        ([{"type": "text", "text": "5"}], "was made to call report_sum and did not"),
        ([call(sum=5), call(sum=6)], "was made to call report_sum and did not"),
        ([call("other", sum=5)], "was made to call report_sum and did not"),
        ([call(sum="5")], "does not fit the tool's schema"),
        ([call()], "does not fit the tool's schema"),
    ],
)
async def test_a_forced_call(content: list[dict[str, Any]], problem: str | None) -> None:
    found = (await checked({"POST /v1/messages": message(*content)}))["tool call"]
    assert (found.problem is None) if problem is None else (problem in (found.problem or ""))


async def test_a_count() -> None:
    good = await checked({"POST /v1/messages/count_tokens": (200, '{"input_tokens": 9}')})
    assert (good["count"].problem, good["count"].note) == (None, "9 tokens")
    bad = await checked({"POST /v1/messages/count_tokens": (200, '{"input_tokens": 0}')})
    assert bad["count"].problem == "a prompt counts as no tokens"


async def test_a_broken_stream() -> None:
    found = await checked({"stream": (200, b"event: message_stop\ndata: {}\n\n")})
    assert "breaks a rule" in (found["stream"].problem or "")
