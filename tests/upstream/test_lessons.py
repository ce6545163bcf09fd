"""What an engine taught is kept as long as the engine is the same, and shown."""

from __future__ import annotations

import pytest

from qiao.core.conversation import Conversation, Text, Tool, Turn
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

MODEL = "m"
SERVED = Served(MODEL, 40960)
FIELD = "Unrecognized request argument supplied: min_p"


def asking(text: str, **fields: object) -> Conversation:
    return Conversation(model=MODEL, turns=(Turn("user", (Text(text),)),), max_tokens=20, **fields)  # type: ignore[arg-type]


async def healed(upstream: OpenAIUpstream, conversation: Conversation) -> tuple[str, ...]:
    def ready(quirks: Quirks, target: Target) -> Prepared:
        return prepare(conversation, find(MODEL), target=target, quirks=quirks)

    answer = await upstream.open(ready, SERVED, request_id="r")
    answer.close()
    return answer.healed


TOOLS = asking("hi", tools=(Tool("t"),))


@pytest.fixture
async def engine() -> FakeEngine:
    return FakeEngine({MODEL: Behaviour(tool_parser=False, reasoning_parser=False)})


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
