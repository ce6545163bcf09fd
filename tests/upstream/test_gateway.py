"""qiao as its own client: every way in which what answers is not a gateway, with its sentence."""

from __future__ import annotations

import json

import pytest

from qiao.errors import UpstreamError
from qiao.options import Secret
from qiao.upstream.gateway import GatewayClient, ModelFacts
from tests.app.misbehaving import Answers, answering

MODELS = {
    "data": [
        {"id": "qwen3-235b", "type": "model", "max_input_tokens": 131072, "max_tokens": 32000},
        {"id": "b", "object": "model"},
        {"no": "id"},
    ]
}


async def test_models_and_their_limits() -> None:
    async with (
        answering({"GET /v1/models": (200, json.dumps(MODELS))}) as url,
        GatewayClient(url, Secret("k")) as client,
    ):
        assert await client.models() == (ModelFacts("qwen3-235b", 131072, 32000), ModelFacts("b", is_anthropic=False))


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"GET /v1/models": (401, "{}")}, "refuses this key"),
        ({"GET /v1/models": (403, "{}")}, "refuses this key"),
        ({"GET /v1/models": (200, '{"data": []}')}, "lists no model"),
        ({"GET /v1/models": (200, '{"data": [{}]}')}, "lists no model"),
        ({"GET /v1/models": (200, '{"object": "list"}')}, "lists no model"),
        ({"GET /v1/models": (200, "<html>")}, "no gateway for Anthropic's protocol"),
        ({"GET /v1/models": (200, "[]")}, "no gateway for Anthropic's protocol"),
        ({"GET /v1/models": (503, '{"error": {"message": "engine is loading"}}')}, "answers 503: engine is loading"),
        ({}, "answers 404: <html>nothing here</html>"),
    ],
)
async def test_what_is_no_gateway(answers: Answers, message: str) -> None:
    async with answering(answers) as url, GatewayClient(url, None) as client:
        with pytest.raises(UpstreamError) as raised:
            await client.models()
    assert message in raised.value.message
    assert url in raised.value.message


async def test_nobody_answers() -> None:
    async with answering({}) as url:
        pass
    async with GatewayClient(url, None) as client:
        with pytest.raises(UpstreamError, match="No gateway answers at"):
            await client.models()


async def test_a_stream_that_breaks_the_grammar_is_refused() -> None:
    broken = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
    async with answering({"stream": (200, broken)}) as url, GatewayClient(url, None) as client:
        with pytest.raises(UpstreamError, match="The stream breaks a rule"):
            await client.stream({"model": "m", "max_tokens": 1, "messages": []})


async def test_a_refused_stream_is_an_error() -> None:
    refused = '{"type":"error","error":{"type":"overloaded_error","message":"busy"}}'
    async with answering({"stream": (529, refused)}) as url, GatewayClient(url, None) as client:
        with pytest.raises(UpstreamError, match="answers 529: busy"):
            await client.stream({"model": "m", "max_tokens": 1, "messages": []})


async def test_a_count_without_a_number() -> None:
    async with (
        answering({"POST /v1/messages/count_tokens": (200, "{}")}) as url,
        GatewayClient(url, None) as client,
    ):
        with pytest.raises(UpstreamError, match="counts no tokens"):
            await client.count({"model": "m", "messages": []})
