"""vLLM refuses some things in the first event of a stream, after its head: such a stream was not accepted.

Recorded from vLLM 0.32.0 without a reasoning parser; the error comes within milliseconds of the head, before any
prefill.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

import msgspec
import pytest

from qiao.core.conversation import Conversation, Text, Thinking, Turn
from qiao.core.fault import Fault
from qiao.core.openai.target import Target
from qiao.policies.prepare import Prepared
from qiao.policies.quirks import Quirks
from qiao.upstream import openai
from qiao.upstream.base import NOBODY, Answer, Listener, Served
from qiao.upstream.openai import OpenAIUpstream
from tests.support.listening import speaking

BUDGET = (
    b'data: {"error": {"message": "thinking_token_budget is set but reasoning_config is not configured. Please set '
    b'--reasoning-parser and/or --reasoning-config to use thinking_token_budget.", "type": "BadRequestError", "param": '
    b'null, "code": 400}}\n\ndata: [DONE]\n\n'
)
DIED = (
    b'data: {"error": {"message": "EngineCore encountered an issue.", "type": "InternalServerError", "code": 500}}\n\n'
)
MYSTERY = b'data: {"error": {"message": "no", "type": "BadRequestError", "code": 400}}\n\n'
WORDS = b'data: {"choices": [{"delta": {"content": "Hi"}}]}\n\n'
REST = b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
MODELS = json.dumps({"data": [{"id": "qwen3-235b", "owned_by": "vllm", "max_model_len": 40960}]}).encode()


class Engine:
    """Answers chats with the pieces of `answers`, one answer a request.

    In between, a number is a pause in seconds, and an event is waited for.
    """

    def __init__(self, *answers: tuple[bytes | float | asyncio.Event, ...]) -> None:
        self.answers = list(answers)
        self.bodies: list[dict[str, object]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"GET"):
            body = MODELS if b"/models" in head else b'{"version": "0.32.0"}'
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        else:
            length = next(int(line[15:]) for line in head.splitlines() if line.lower().startswith(b"content-length:"))
            self.bodies.append(json.loads(await reader.readexactly(length)))
            writer.write(HEAD)
            for piece in self.answers.pop(0):
                await writer.drain()
                if isinstance(piece, bytes):
                    writer.write(piece)
                elif isinstance(piece, asyncio.Event):
                    await piece.wait()
                else:
                    await asyncio.sleep(piece)


class Speaking(Protocol):
    """An engine that answers connections."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None: ...


@asynccontextmanager
async def before(engine: Speaking) -> AsyncIterator[OpenAIUpstream]:
    """The upstream that asks `engine`."""
    async with speaking(engine.serve) as url:
        found = OpenAIUpstream(url)
        try:
            yield found
        finally:
            await found.close()


CONVERSATION = Conversation(
    model="m", turns=(Turn("user", (Text("Hi"),)),), stream=True, thinking=Thinking(mode="on", budget=1024)
)


def prepared(quirks: Quirks, target: Target) -> Prepared:
    return Prepared(CONVERSATION)


async def opened(found: OpenAIUpstream, listener: Listener = NOBODY) -> Answer:
    return await found.open(prepared, Served("qwen3-235b"), request_id="req_1", listener=listener)


async def everything(answer: Answer) -> bytes:
    whole = bytearray()

    def take(piece: bytes) -> bool:
        whole.extend(piece)
        return True

    assert not await answer.pump(take)
    return bytes(whole)


@pytest.mark.parametrize(
    "pieces",
    [(BUDGET,), (BUDGET[:9], 0.02, BUDGET[9:200], 0.02, BUDGET[200:]), (0.1, BUDGET)],
    ids=["whole", "in pieces", "a little late"],
)
async def test_it_is_healed_and_remembered(pieces: tuple[bytes | float, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai, "_FIRST_EVENT_TIMEOUT", 10.0)
    engine = Engine(pieces, (WORDS, REST), (WORDS, REST))
    async with before(engine) as found:
        answer = await opened(found)
        assert answer.healed == ("thinking_budget",)
        assert await everything(answer) == WORDS + REST
        assert (await opened(found)).healed == ()
    assert ["thinking_token_budget" in body for body in engine.bodies] == [True, False, False]


@pytest.mark.parametrize(
    ("said", "kind", "party", "status"), [(MYSTERY, "invalid_request", "client", 400), (DIED, "api", "upstream", 500)]
)
async def test_what_cannot_be_healed_is_a_status(said: bytes, kind: str, party: str, status: int) -> None:
    async with before(Engine((said,))) as found:
        with pytest.raises(Fault) as caught:
            await opened(found)
    assert (caught.value.kind, caught.value.party, caught.value.upstream_status) == (kind, party, status)


async def test_an_engine_that_prefills_is_not_waited_for() -> None:
    prefilled = asyncio.Event()
    async with before(Engine((prefilled, WORDS, REST))) as found, asyncio.timeout(10):
        answer = await opened(found)
        prefilled.set()
        assert await everything(answer) == WORDS + REST


GRAMMAR = b'data: {"error": {"message": "Grammar error: Invalid type: objectt", "code": 400}}\n\n'


async def test_a_grammar_is_waited_for() -> None:
    """It is made before the engine refuses it, which took vLLM more than half a second on two busy cores."""
    formed = msgspec.structs.replace(CONVERSATION, output_schema='{"type": "objectt"}')
    async with before(Engine((0.8, GRAMMAR), (WORDS, REST))) as found:
        answer = await found.open(lambda _quirks, _target: Prepared(formed), Served("qwen3-235b"), request_id="req_1")
        assert answer.healed == ("answer_schema",)
        assert await everything(answer) == WORDS + REST


async def test_the_first_words_are_not_held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai, "_FIRST_EVENT_TIMEOUT", 100.0)
    opened_by_them = asyncio.Event()
    async with before(Engine((WORDS[:20], opened_by_them, WORDS[20:], REST))) as found, asyncio.timeout(10):
        answer = await opened(found)
        opened_by_them.set()
        assert await everything(answer) == WORDS + REST


async def test_a_stream_that_ends_at_once_is_an_empty_answer() -> None:
    async with before(Engine(())) as found:
        assert await everything(await opened(found)) == b""


@pytest.mark.parametrize(
    ("first", "rest"),
    [((WORDS,), (REST,)), ((WORDS[:3], 0.02, WORDS[3:]), (0.02, REST)), ((WORDS + REST,), ())],
    ids=["whole", "in pieces", "with its end"],
)
async def test_the_first_words_are_handed_on_when_they_come_and_once(
    first: tuple[bytes | float, ...], rest: tuple[bytes | float, ...]
) -> None:
    engine = Engine((BUDGET,), (*first, *rest))
    handed: list[bytes] = []
    async with before(engine) as found:
        answer = await opened(found, Listener(on_first=handed.append))
        assert answer.healed == ("thinking_budget",)
        assert handed
        assert WORDS.startswith(handed[0][: len(WORDS)])
        assert len(handed) == 1
        assert handed[0] + await everything(answer) == WORDS + REST


async def test_first_words_that_come_late_are_left_to_pump() -> None:
    handed: list[bytes] = []
    async with before(Engine((0.4, WORDS, REST))) as found:
        answer = await opened(found, Listener(on_first=handed.append))
        assert handed == []
        assert await everything(answer) == WORDS + REST
