"""The judge of the other integration tests is itself put to the test: it must see, and it must object."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from qiao.core.anthropic.grammar import GrammarError
from tests.fakes import hygiene
from tests.integration.conftest import Stage
from tests.support.background import Background
from tests.support.listening import speaking
from tests.support.plain_http import ask
from tests.support.tap import tapping

SOUND: list[dict[str, Any]] = [
    {
        "type": "message_start",
        "message": {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "m",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {
                "input_tokens": 1,
                "output_tokens": 0,
                "cache_read_input_tokens": 0,
                "cache_creation_input_tokens": 0,
            },
        },
    },
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}},
    {"type": "content_block_stop", "index": 0},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {
            "input_tokens": 1,
            "output_tokens": 1,
            "cache_read_input_tokens": 0,
            "cache_creation_input_tokens": 0,
        },
    },
    {"type": "message_stop"},
]


@contextlib.asynccontextmanager
async def server(events: list[dict[str, Any]]) -> AsyncIterator[str]:
    """Answers every request on a connection with these events."""
    body = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n" % len(body)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(head + body)
                await writer.drain()

    async with speaking(answer) as url:
        yield url


def judged(background: Background, stage: Stage, events: list[dict[str, Any]]) -> Stage:
    tap = background.enter(tapping(background.enter(server(events))))
    ask(tap.url, "GET", "/")
    assert len(tap.exchanges) == 1
    assert tap.exchanges[0].is_complete
    return replace(stage, tap=tap)


def test_a_sound_stream_passes(background: Background, stage: Stage) -> None:
    judged(background, stage, SOUND).judge()


@pytest.mark.parametrize("missing", range(6))
def test_a_stream_that_lacks_an_event_does_not(background: Background, stage: Stage, missing: int) -> None:
    broken = SOUND[:missing] + SOUND[missing + 1 :]
    watched = judged(background, stage, broken)
    with pytest.raises(GrammarError):
        watched.judge()


def test_a_refusal_that_nobody_expected_does_not(stage: Stage) -> None:
    ask(stage.engine_url, "POST", "/v1/chat/completions", {"messages": [], "tools": []})
    with pytest.raises(AssertionError, match="must not be an empty array"):
        stage.judge()
    stage.refusals = True
    stage.judge()


CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"messages": [], "betas": []}, "fields that no engine knows"),
        ({"messages": [{"role": "user", "content": ""}]}, "an empty user message"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "role 'robot'"),
        ({"messages": [{"role": "user", "content": "x", "cache_control": {}}]}, "fields that no engine knows"),
        ({"messages": [{"role": "system", "content": "x-anthropic-billing-header: a"}]}, "shows x-anthropic"),
        ({"messages": [{"role": "tool", "tool_call_id": "1", "content": "x"}]}, "which nobody waits for"),
        ({"messages": [{"role": "assistant", "tool_calls": [CALL]}]}, "ends before the results"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [CALL]}, {"role": "user", "content": "x"}]},
            "before the results",
        ),
        (
            {
                "messages": [
                    {"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "f", "arguments": "[1]"}}]}
                ]
            },
            "no JSON object",
        ),
        ({"messages": [], "tools": [{"type": "function", "function": {"name": "f"}}] * 2}, "the same name"),
        (
            {"messages": [], "tools": [{"type": "function", "function": {"name": "DeferredToolPlaceholder"}}]},
            "shows Deferred",
        ),
    ],
)
def test_hygiene_objects(body: dict[str, Any], words: str) -> None:
    assert any(words in problem for problem in hygiene.problems(body)), hygiene.problems(body)


def test_two_exchanges_on_one_connection_are_told_apart(background: Background) -> None:
    tap = background.enter(tapping(background.enter(server(SOUND))))
    assert asyncio.run(_twice(tap.url)).count(b"HTTP/1.1 200") == 2
    found = tap.exchanges
    assert [(exchange.method, exchange.target, exchange.status) for exchange in found] == [
        ("GET", "/a", 200),
        ("GET", "/b", 200),
    ]
    tap.forget()
    assert tap.exchanges == []


async def _twice(url: str) -> bytes:
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    seen = b""
    for path in (b"/a", b"/b"):
        writer.write(b"GET %s HTTP/1.1\r\nhost: x\r\n\r\n" % path)
        wanted = seen.count(b"event: message_stop") + 1
        while seen.count(b"event: message_stop") < wanted or not seen.endswith(b"\n\n"):
            seen += await reader.read(65536)
    writer.close()
    await writer.wait_closed()
    return seen
