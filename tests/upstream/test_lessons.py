"""What an engine taught is kept as long as the engine is the same, and shown."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Sequence

import msgspec
import pytest

from qiao.core.conversation import Conversation, Sampling, Text, Tool, Turn
from qiao.core.fault import Fault
from qiao.core.openai.target import Target
from qiao.policies.prepare import Prepared, prepare
from qiao.policies.quirks import Quirks
from qiao.profiles import find
from qiao.upstream.base import Served
from qiao.upstream.openai import OpenAIUpstream
from tests.fakes.behaviour import Behaviour
from tests.fakes.engine import FakeEngine, serving
from tests.fakes.script import Step, marker, refusal
from tests.support.gateway import free_port
from tests.support.listening import speaking

MODEL = "m"
SERVED = Served(MODEL, 40960)
FIELD = "Unrecognized request argument supplied: min_p"


def asking(text: str, **fields: object) -> Conversation:
    return Conversation(model=MODEL, turns=(Turn("user", (Text(text),)),), max_tokens=20, **fields)  # type: ignore[arg-type]


async def healed(upstream: OpenAIUpstream, conversation: Conversation, served: Served = SERVED) -> tuple[str, ...]:
    def ready(quirks: Quirks, target: Target) -> Prepared:
        return prepare(conversation, find(MODEL), target=target, quirks=quirks)

    answer = await upstream.open(ready, served, request_id="r")
    assert not await answer.pump(lambda _: True)
    answer.close()
    return answer.healed


async def left_alone(upstream: OpenAIUpstream) -> None:
    """Wait until no connection stands."""
    async with asyncio.timeout(5):
        while upstream._client.connections.is_connected:
            await asyncio.sleep(0.01)


TOOLS = asking("hi", tools=(Tool("t"),))


@pytest.fixture
async def engine() -> FakeEngine:
    return FakeEngine({MODEL: Behaviour(tool_parser=False, reasoning_parser=False)})


async def test_what_one_model_teaches_is_not_held_against_another() -> None:
    """Behind a proxy each may have an engine of its own."""
    engine = FakeEngine({MODEL: Behaviour(), "strict": Behaviour(system_anywhere=False)})
    talk = asking("a")
    talk = msgspec.structs.replace(
        talk,
        turns=(*talk.turns, Turn("system", (Text("Mind this."),)), Turn("assistant", (Text("b"),)), *talk.turns),
    )
    async with serving(engine) as url:
        upstream = OpenAIUpstream(url)
        for model, remedies in (("strict", ("system_position",)), ("strict", ()), (MODEL, ())):
            assert await healed(upstream, talk, Served(model, 40960)) == remedies
            roles = [message["role"] for message in engine.chats[-1].body["messages"]]
            assert ("system" in roles) is (model == MODEL)
        assert upstream.quirks.fold_system
        await upstream.close()


async def test_a_lesson_is_learned_once_and_forgotten_with_the_version(engine: FakeEngine) -> None:
    async with serving(engine) as url:
        upstream = OpenAIUpstream(url)
        assert await healed(upstream, TOOLS) == ("no_tool_parser",)
        assert await healed(upstream, TOOLS) == ()
        (lesson,) = upstream.lessons
        assert (lesson.remedy, lesson.times, lesson.is_kept) == ("no_tool_parser", 1, True)
        assert lesson.mend
        await upstream.facts(fresh=True)
        assert upstream.quirks.no_tool_parser
        engine.version = "0.33.0"
        upstream._facts_at = -100.0
        await upstream.facts(fresh=True)
        assert upstream.lessons == ()
        assert not upstream.quirks.no_tool_parser
        assert await healed(upstream, TOOLS) == ("no_tool_parser",)
        await upstream.close()


async def test_an_engine_that_was_gone_is_asked_anew(engine: FakeEngine) -> None:
    port = free_port()
    upstream = OpenAIUpstream(f"http://127.0.0.1:{port}")
    async with serving(engine, port=port):
        assert await healed(upstream, TOOLS) == ("no_tool_parser",)
    with pytest.raises(Fault):
        await healed(upstream, TOOLS)
    other = FakeEngine({MODEL: Behaviour()})
    async with serving(other, port=port):
        assert await healed(upstream, TOOLS) == ()
        assert upstream.lessons == ()
        assert other.chats[-1].body["tool_choice"] == "auto"
    await upstream.close()


async def test_one_that_came_back_as_another_is_asked_before_the_next_request(engine: FakeEngine) -> None:
    port = free_port()
    upstream = OpenAIUpstream(f"http://127.0.0.1:{port}")
    async with serving(engine, port=port):
        assert await healed(upstream, TOOLS) == ("no_tool_parser",)
    await left_alone(upstream)
    other = FakeEngine({MODEL: Behaviour(max_model_len=131_072)}, version="0.33.0")
    async with serving(other, port=port):
        facts = await upstream.facts()
        assert (facts.version, facts.served(MODEL).window) == ("0.33.0", 131_072)  # type: ignore[union-attr]
        assert upstream.lessons == ()
        assert await healed(upstream, TOOLS) == ()
        assert other.chats[-1].body["tool_choice"] == "auto"
    await upstream.close()


async def test_one_with_another_window_was_started_anew(engine: FakeEngine) -> None:
    port = free_port()
    upstream = OpenAIUpstream(f"http://127.0.0.1:{port}")
    async with serving(engine, port=port):
        assert await healed(upstream, TOOLS) == ("no_tool_parser",)
    await left_alone(upstream)
    async with serving(FakeEngine({MODEL: Behaviour(max_model_len=131_072)}), port=port):
        assert await healed(upstream, TOOLS) == ()
        assert upstream.lessons == ()
    await upstream.close()


async def test_after_a_pause_without_a_connection_it_is_asked_first(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(engine) as url:
        upstream = OpenAIUpstream(url)
        monkeypatch.setattr("qiao.upstream.http._KEEP_ALIVE_SECONDS", 0.0)
        await upstream.facts()
        engine.version = "0.33.0"
        await left_alone(upstream)
        assert (await upstream.facts()).version == "0.32.0"  # that short a pause is none
        monkeypatch.setattr("qiao.upstream.renewal.AGE_ALONE", -1.0)
        assert (await upstream.facts()).version == "0.33.0"
        await upstream.close()


async def test_one_that_hangs_when_it_is_asked_again_is_waited_for_shortly() -> None:
    is_asked = asyncio.Event()
    served = b'{"data":[{"id":"m","owned_by":"x"}]}'

    async def hang_later(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not is_asked.is_set():
            path = (await reader.readuntil(b"\r\n\r\n")).split()[1]
            if path == b"/version":
                writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
                is_asked.set()
                return  # closed although it was to be kept
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(served), served))
        is_asked.clear()
        await reader.read()

    async with speaking(hang_later) as url:
        upstream = OpenAIUpstream(url)
        known = await upstream.facts()
        await left_alone(upstream)
        async with asyncio.timeout(5):
            for _ in range(20):
                assert await upstream.facts() is known
        assert not is_asked.is_set()
        await upstream.close()


async def test_while_a_connection_stands_nobody_waits(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(engine) as url:
        upstream = OpenAIUpstream(url)
        await upstream.facts()
        asked = len(engine.requests)
        engine.version = "0.33.0"
        monkeypatch.setattr("qiao.upstream.renewal.AGE_ALONE", -1.0)
        monkeypatch.setattr("qiao.upstream.renewal.AGE", -1.0)
        for _ in range(3):
            assert (await upstream.facts()).version == "0.32.0"
        monkeypatch.undo()
        async with asyncio.timeout(5):
            while (await upstream.facts()).version != "0.33.0":
                await asyncio.sleep(0.01)
        assert [request.path for request in engine.requests[asked:]] == ["/v1/models", "/version"]
        await upstream.close()


async def test_one_that_is_too_busy_to_tell_is_no_other(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(engine) as url:
        upstream = OpenAIUpstream(url)
        assert await healed(upstream, TOOLS) == ("no_tool_parser",)
        known = await upstream.facts()
        engine.trouble = {"/version": 503}
        upstream._facts_at = -100.0
        assert await upstream.facts(fresh=True) is known
        assert upstream.quirks.no_tool_parser
        engine.trouble = {"/v1/models": 503}
        monkeypatch.setattr("qiao.upstream.renewal.AGE_ALONE", -1.0)
        monkeypatch.setattr("qiao.upstream.renewal.AGE", -1.0)
        assert await upstream.facts() is known
        assert await healed(upstream, TOOLS) == ()
        await upstream.close()


async def test_what_belongs_to_one_request_is_counted_and_not_kept(engine: FakeEngine) -> None:
    async with serving(engine) as url:
        upstream = OpenAIUpstream(url)
        for _ in range(2):
            text = marker(Step(attempts=(refusal(400, "top_p must be in (0, 1], got 0.0."), Step())), key=str(_))
            assert await healed(upstream, asking(text)) == ("sampling_value",)
        (lesson,) = upstream.lessons
        assert (lesson.times, lesson.is_kept) == (2, False)
        assert upstream.quirks.unknown_fields == frozenset()
        await upstream.close()


@contextlib.asynccontextmanager
async def picky(refuses: Sequence[str], wording: str) -> AsyncIterator[tuple[OpenAIUpstream, list[bytes]]]:
    """An upstream of two models that refuse these fields, one at a time, and what they were asked."""
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not reader.at_eof():
            head = await reader.readuntil(b"\r\n\r\n")
            found = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
            body = await reader.readexactly(int(found[1])) if found else b""
            status, said = 200, b'{"data":[{"id":"a"},{"id":"b"}]}'
            if head.startswith(b"POST"):
                asked.append(body)
                refused = next((name for name in refuses if f'"{name}"'.encode() in body), None)
                said = b'{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}]}'
                if refused is not None:
                    status, said = 400, json.dumps({"error": {"message": wording.format(refused)}}).encode()
            elif b"/version" in head:
                status = 404
            kind = b"content-type: application/json\r\n"
            writer.write(b"HTTP/1.1 %d x\r\n%scontent-length: %d\r\n\r\n%s" % (status, kind, len(said), said))

    async with speaking(answer) as url:
        upstream = OpenAIUpstream(url)
        try:
            yield upstream, asked
        finally:
            await upstream.close()


async def test_what_another_model_taught_is_no_healing_of_this_request() -> None:
    """One engine under two names: who has more than two peculiarities would refuse the first request to each."""
    talk = asking("hi", stream=True, sampling=Sampling(top_k=5), extras={"min_p": msgspec.Raw(b"0.1")})
    fields = ("stream_options", "top_k", "min_p")
    async with picky(fields, "Unrecognized request argument supplied: {}") as (upstream, _):
        with pytest.raises(Fault):
            await healed(upstream, talk, Served("a"))
        assert len(await healed(upstream, talk, Served("a"))) == 1
        assert len(await healed(upstream, talk, Served("b"))) == 3
        assert await healed(upstream, talk, Served("b")) == ()


async def test_a_request_is_not_mended_to_and_fro() -> None:
    """An upstream that takes neither name of the limit: each remedy takes the other one back."""
    async with picky(("max_completion_tokens", "max_tokens"), "Unsupported parameter: {}") as (upstream, asked):
        for model in ("a", "b", "a"):
            asked.clear()
            with pytest.raises(Fault, match="Unsupported parameter"):
                async with asyncio.timeout(10):
                    await healed(upstream, asking("hi"), Served(model))
            assert len(asked) <= 5


async def test_two_healings_are_the_end(engine: FakeEngine) -> None:
    async with serving(engine) as url:
        upstream = OpenAIUpstream(url)
        refusals = [refusal(400, f"Unrecognized request argument supplied: field_{n}") for n in range(5)]
        with pytest.raises(Fault) as raised:
            await healed(upstream, asking(marker(Step(attempts=tuple(refusals)))))
        assert raised.value.kind == "invalid_request"
        assert "field_2" in raised.value.message
        assert len(engine.chats) == 3
        await upstream.close()
