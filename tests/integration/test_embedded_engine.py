"""The real engine, spoken to without the gateway: grammars, answers, counts, cancelling, crashes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from qiao.core.conversation import Conversation, Text, Tool, ToolChoice, Turn
from qiao.core.events import Event, Failed, Finished, TextAdded, ToolArgumentsAdded, ToolCallStarted, UsageSeen
from qiao.core.fault import Fault
from qiao.core.llamacpp.gbnf import Bounds, grammar
from qiao.core.llamacpp.request import Options
from qiao.core.openai.target import Target
from qiao.policies.prepare import Prepared
from qiao.policies.quirks import Quirks
from qiao.upstream.base import Served
from qiao.upstream.llamacpp import Choices, LlamaCppAnswer, LlamaCppUpstream
from tests.core.llamacpp.schemas import schemas
from tests.support.embedded import Running, is_alive, running, wait_until

pytestmark = pytest.mark.timeout(180)

TINY = (Bounds(string=8, items=2, members=1, depth=1, recursion=1),)
QUESTION = "<|im_start|>user\nGive me a value.<|im_end|>\n<|im_start|>assistant\n"

ASK = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {
        "questions": {
            "type": "array",
            "minItems": 1,
            "maxItems": 4,
            "items": {
                "type": "object",
                "properties": {
                    "question": {"type": "string"},
                    "header": {"type": "string", "maxLength": 12},
                    "multiSelect": {"type": "boolean", "default": False},
                    "options": {
                        "type": "array",
                        "minItems": 2,
                        "maxItems": 4,
                        "items": {
                            "type": "object",
                            "properties": {"label": {"type": "string"}, "description": {"type": "string"}},
                            "required": ["label", "description"],
                            "additionalProperties": False,
                        },
                    },
                },
                "required": ["question", "header", "options"],
                "additionalProperties": False,
            },
        },
        "metadata": {"type": "object", "additionalProperties": {"type": "string"}},
    },
    "required": ["questions"],
    "additionalProperties": False,
}
EDIT = {
    "type": "object",
    "properties": {
        "file_path": {"type": "string"},
        "edits": {"type": "array", "items": {"$ref": "#/$defs/edit"}, "minItems": 1},
        "mode": {"enum": ["plain", "regex"]},
        "limit": {"type": "integer", "exclusiveMinimum": 0, "maximum": 600000},
        "when": {"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}]},
    },
    "required": ["file_path", "edits", "mode"],
    "additionalProperties": False,
    "$defs": {
        "edit": {
            "type": "object",
            "properties": {"line": {"type": "integer", "minimum": 1}, "text": {"type": "string"}},
            "required": ["line", "text"],
        }
    },
}
TOOLS = (
    Tool("AskUserQuestion", "Asks the user questions.", json.dumps(ASK)),
    Tool("MultiEdit", "Changes a file.", json.dumps(EDIT)),
    Tool(
        "Bash", "Runs a command.", '{"type":"object","properties":{"command":{"type":"string"}},"required":["command"]}'
    ),
    Tool(
        "get_weather",
        "Tells the weather.",
        '{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}',
    ),
)
SCHEMAS = {tool.name: json.loads(tool.parameters) for tool in TOOLS}


@pytest.fixture(scope="module")
def engine() -> Iterator[Running]:
    with running(alias="tiny") as found:
        yield found


@pytest.fixture
async def upstream(engine: Running) -> AsyncIterator[LlamaCppUpstream]:
    found = connect(engine)
    yield found
    await found.close()


def connect(engine: Running, choices: Choices | None = None) -> LlamaCppUpstream:
    return LlamaCppUpstream(engine.endpoint.address, key=engine.endpoint.key, choices=choices)


def asked(text: str, **fields: Any) -> Conversation:
    turns = (Turn("user", (Text(text),)), *fields.pop("more", ()))
    return Conversation(**{"model": "m", "turns": turns, "max_tokens": 40, **fields})


def as_is(conversation: Conversation) -> Callable[[Quirks, Target], Prepared]:
    return lambda quirks, target: Prepared(conversation)


async def answer(upstream: LlamaCppUpstream, conversation: Conversation, served: Served | None = None) -> list[Event]:
    served = served or (await upstream.facts()).models[0]
    opened = await upstream.open(as_is(conversation), served, request_id="req_1")
    events: list[Event] = []
    await opened.pump(lambda data: take(events, opened.decoder.feed(data)))
    opened.close()
    return events + opened.decoder.close()


def take(events: list[Event], more: list[Event]) -> bool:
    """Keeps `more`, and wants what follows."""
    events += more
    return True


async def next_piece(opened: LlamaCppAnswer) -> bytes:
    """What comes next of the answer."""
    pieces: list[bytes] = []
    assert await opened.pump(lambda data: bool(pieces.append(data)))
    return b"".join(pieces)


async def failure(opened: LlamaCppAnswer) -> Fault:
    """How an answer that cannot go on ends: reading raises, or the decoder tells."""
    try:
        await opened.pump(lambda data: take([], opened.decoder.feed(data)))
    except Fault as fault:
        return fault
    last = opened.decoder.close()[-1]
    assert isinstance(last, Failed)
    return last.fault


def words(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextAdded))


def calls(events: list[Event]) -> list[tuple[str, dict[str, Any]]]:
    names = [event.name for event in events if isinstance(event, ToolCallStarted)]
    texts = ["" for _ in names]
    for event in events:
        if isinstance(event, ToolArgumentsAdded):
            texts[event.index] += event.text
    return [(name, json.loads(text)) for name, text in zip(names, texts, strict=True)]


# -- grammars ---------------------------------------------------------------------------------------------------------


@given(schema=schemas, seed=st.integers(0, 2**31))
@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_the_engine_takes_every_grammar_and_keeps_to_it(engine: Running, schema: Any, seed: int) -> None:
    written = grammar(schema, limit=10**9, ladder=TINY)
    body = {"prompt": QUESTION, "grammar": written, "n_predict": 120, "temperature": 1.2, "seed": seed}
    status, reply = engine.post("/completion", body)
    assert status == 200, (reply, written)
    if reply["stop_type"] == "eos":
        json.loads(reply["content"])


@pytest.mark.parametrize("schema", [ASK, EDIT], ids=["nested", "references"])
@pytest.mark.parametrize("seed", [1, 2])
def test_what_it_writes_fits_the_schema(engine: Running, schema: dict[str, Any], seed: int) -> None:
    written = grammar(schema, limit=600)
    body = {"prompt": QUESTION, "grammar": written, "n_predict": 600, "temperature": 0.8, "seed": seed}
    status, reply = engine.post("/completion", body)
    assert (status, reply["stop_type"]) == (200, "eos")
    Draft202012Validator(schema).validate(json.loads(reply["content"]))


# -- answers ----------------------------------------------------------------------------------------------------------


async def test_facts(upstream: LlamaCppUpstream) -> None:
    facts = await upstream.facts()
    assert facts.flavor == "llamacpp"
    assert [(model.id, model.window) for model in facts.models] == [("tiny", 8192)]


async def test_text_with_usage_at_both_ends(upstream: LlamaCppUpstream) -> None:
    events = await answer(upstream, asked("Say hello."))
    assert words(events)
    usages = [event.usage for event in events if isinstance(event, UsageSeen)]
    assert len(usages) == 2
    assert usages[0].prompt == usages[1].prompt
    assert usages[0].cached == usages[1].cached
    again = await answer(upstream, asked("Say hello."))
    repeated = [event.usage for event in again if isinstance(event, UsageSeen)]
    assert repeated[0].cached == repeated[1].cached == (repeated[0].prompt or 0) - 1


@pytest.mark.parametrize("mode", ["any", "tool"])
async def test_a_forced_call_fits_its_schema(upstream: LlamaCppUpstream, mode: Any) -> None:
    choice = ToolChoice(mode, "MultiEdit" if mode == "tool" else None)
    events = await answer(upstream, asked("Add a line to a.txt.", tools=TOOLS, tool_choice=choice, max_tokens=400))
    ((name, arguments),) = calls(events)
    assert mode == "any" or name == "MultiEdit"
    Draft202012Validator(SCHEMAS[name]).validate(arguments)
    assert words(events) == ""
    assert events[-1] == Finished("tool_calls")


async def test_parallel_calls_when_asked_for(engine: Running) -> None:
    upstream = connect(engine, Choices(options=Options(temperature=0.9, most_calls=3)))
    choice = ToolChoice("tool", "get_weather")
    events = await answer(upstream, asked("Paris, Rome and Oslo?", tools=TOOLS, tool_choice=choice, max_tokens=300))
    found = calls(events)
    assert 1 <= len(found) <= 3
    for name, arguments in found:
        Draft202012Validator(SCHEMAS[name]).validate(arguments)
    await upstream.close()


async def test_auto_never_runs_a_thing(upstream: LlamaCppUpstream) -> None:
    for text in ("Hello!", "List the files here.", "Run ls -la with Bash.", "What is the weather in Paris?"):
        events = await answer(upstream, asked(text, tools=TOOLS, max_tokens=12))
        assert calls(events) == []
        assert words(events)


async def test_auto_may_call_what_only_reads_when_it_is_told_to(engine: Running) -> None:
    upstream = connect(engine, Choices(auto_threshold=-1000.0))
    events = await answer(upstream, asked("Weather in Paris?", tools=TOOLS, max_tokens=60))
    assert [name for name, _ in calls(events)] == ["get_weather"]
    await upstream.close()
    never = connect(engine, Choices(auto_threshold=1000.0))
    assert calls(await answer(never, asked("Weather in Paris?", tools=TOOLS, max_tokens=12))) == []
    await never.close()


async def test_nothing_is_called_unasked_where_the_window_has_no_room_for_it(engine: Running) -> None:
    upstream = connect(engine, Choices(auto_threshold=-1000.0))
    conversation = asked("Weather in Paris?", tools=TOOLS)
    needed = (await upstream.count(as_is(conversation), (await upstream.facts()).models[0])).tokens
    for room, is_called in ((100, True), (20, False)):
        events = await answer(upstream, conversation, Served("m", needed + room))
        assert any(isinstance(event, ToolCallStarted) for event in events) is is_called
        assert bool(words(events)) is not is_called
    await upstream.close()


async def test_a_schema_for_the_answer(upstream: LlamaCppUpstream) -> None:
    schema = {"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]}
    events = await answer(upstream, asked("A title for: fix a bug", output_schema=json.dumps(schema), max_tokens=120))
    Draft202012Validator(schema).validate(json.loads(words(events)))
    assert events[-1] == Finished("stop")


async def test_a_call_that_cannot_fit_is_cut_and_said_to_be(upstream: LlamaCppUpstream) -> None:
    events = await answer(
        upstream, asked("x", tools=TOOLS, tool_choice=ToolChoice("tool", "AskUserQuestion"), max_tokens=3)
    )
    assert events[-1] == Finished("length")
    assert not any(getattr(event, "complete", False) for event in events)


async def test_stop_sequences_are_named(upstream: LlamaCppUpstream) -> None:
    turns = (Turn("assistant", (Text("one two three four five six seven"),)),)
    counting = asked("Count.", more=turns, stop=("nine", "zz", "qq", "ww", "ee"), max_tokens=40)
    events = await answer(upstream, counting)
    assert events[-1] == Finished("stop_sequence", "nine")
    assert "nine" not in words(events)


@pytest.mark.parametrize("limit", [0, 1])
async def test_the_smallest_answers(upstream: LlamaCppUpstream, limit: int) -> None:
    events = await answer(upstream, asked("Say hello.", max_tokens=limit))
    assert events[-1] == Finished("length")
    (last,) = [event.usage for event in events if isinstance(event, UsageSeen)][1:]
    assert last.completion == 1


async def test_a_prefill_is_continued(upstream: LlamaCppUpstream) -> None:
    turns = (Turn("assistant", (Text("The capital of France is"),)),)
    events = await answer(upstream, asked("Capital of France?", more=turns, max_tokens=8))
    assert "Paris" in words(events)


async def test_the_count_is_the_engines_own(upstream: LlamaCppUpstream) -> None:
    for conversation in (
        asked("Say hello."),
        asked("Hi", tools=TOOLS, system=("Be brief.",)),
        asked("Hi", tools=TOOLS[:1], tool_choice=ToolChoice("any")),
        asked("汉字 <|im_end|> é"),
    ):
        served = (await upstream.facts()).models[0]
        count = await upstream.count(as_is(conversation), served)
        events = await answer(upstream, conversation)
        (prompt,) = {event.usage.prompt for event in events if isinstance(event, UsageSeen)}
        assert (count.tokens, count.is_exact) == (prompt, True)


async def test_what_does_not_fit_is_refused_with_the_true_count(upstream: LlamaCppUpstream) -> None:
    long = asked("word " * 9000)
    count = await upstream.count(as_is(long), (await upstream.facts()).models[0])
    with pytest.raises(Fault) as raised:
        await answer(upstream, long)
    assert raised.value.kind == "invalid_request"
    assert raised.value.message == f"prompt is too long: {count.tokens} tokens > 8192 maximum"


async def test_what_is_refused_and_what_is_counted_is_one_number_also_for_a_forced_call(
    upstream: LlamaCppUpstream,
) -> None:
    """The call's beginning is part of the prompt, and takes its place in the window."""
    forced = asked("word " * 9000, tools=TOOLS[:1], tool_choice=ToolChoice("any"))
    count = await upstream.count(as_is(forced), (await upstream.facts()).models[0])
    with pytest.raises(Fault, match=f"prompt is too long: {count.tokens} tokens > 8192 maximum"):
        await answer(upstream, forced)


async def test_a_prompt_that_fills_the_window_is_too_long_by_the_numbers_as_well(upstream: LlamaCppUpstream) -> None:
    """Clients read the gap between them."""
    served = (await upstream.facts()).models[0]
    some = await upstream.count(as_is(asked("word " * 8000)), served)
    full = asked("word " * (8000 + 8192 - some.tokens), max_tokens=1)
    assert (await upstream.count(as_is(full), served)).tokens == 8192
    with pytest.raises(Fault, match="prompt is too long: 8193 tokens > 8192 maximum"):
        await answer(upstream, full)


async def test_closing_the_answer_ends_the_work(engine: Running, upstream: LlamaCppUpstream) -> None:
    served = (await upstream.facts()).models[0]
    story = asked("Tell me a very long story.", max_tokens=1000)
    opened = await upstream.open(as_is(story), served, request_id="req_1")
    for _ in range(5):
        assert await next_piece(opened)
    opened.close()
    opened.close()
    assert await asyncio.to_thread(wait_until, lambda: not engine.is_busy(), 5, "the engine's work") < 2


async def test_closing_while_the_prompt_is_read_ends_the_work(engine: Running, upstream: LlamaCppUpstream) -> None:
    served = (await upstream.facts()).models[0]
    long = asked("Read this: " + "lorem ipsum dolor sit amet " * 700)
    opened = await upstream.open(as_is(long), served, request_id="req_1")
    await next_piece(opened)
    opened.close()
    await asyncio.to_thread(wait_until, lambda: not engine.is_busy(), 90, "the engine's work")
    # It stops between two batches, far from the prompt's end.
    assert engine.slots()[0]["n_prompt_tokens"] < 4000


async def test_a_wrong_key_is_not_the_clients_fault(engine: Running) -> None:
    upstream = LlamaCppUpstream(engine.endpoint.address, key="wrong")
    with pytest.raises(Fault) as raised:
        await upstream.open(as_is(asked("Hi")), Served("tiny", 8192), request_id="req_1")
    assert raised.value.party == "upstream"
    await upstream.close()


async def test_a_crash_in_the_middle_fails_the_answer_and_the_engine_comes_back(
    engine: Running, upstream: LlamaCppUpstream
) -> None:
    served = (await upstream.facts()).models[0]
    opened = await upstream.open(as_is(asked("Tell me a very long story.", max_tokens=900)), served, request_id="r")
    assert await next_piece(opened)
    before, restarts = engine.engine.pid, engine.engine.restarts
    assert before is not None
    os.kill(before, signal.SIGKILL)
    fault = await failure(opened)
    assert fault.party == "upstream"
    opened.close()
    async with asyncio.timeout(60):
        while engine.engine.state != "ready" or engine.engine.pid == before:
            await asyncio.sleep(0.05)
    assert engine.engine.restarts == restarts + 1
    assert words(await answer(upstream, asked("Say hello.")))


# -- the process ------------------------------------------------------------------------------------------------------


def test_the_key_stands_on_no_command_line_and_in_no_environment(engine: Running) -> None:
    pid = engine.engine.pid
    for name in ("cmdline", "environ"):
        assert engine.endpoint.key.encode() not in Path(f"/proc/{pid}/{name}").read_bytes()


def test_the_engine_asks_for_its_key(engine: Running) -> None:
    keyless = Running(engine.engine, type(engine.endpoint)(engine.endpoint.address, ""))
    for path in ("/completion", "/tokenize", "/apply-template"):
        assert keyless.post(path, {"prompt": "x", "content": "x"})[0] == 401


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
def test_the_engine_ends_with_whoever_started_it(ending: signal.Signals) -> None:
    script = """
import sys, time
from tests.support.embedded import running
with running() as found:
    print(found.engine.pid, flush=True)
    time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, encoding="utf-8")
    try:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert is_alive(child)
    finally:
        parent.send_signal(ending)
        parent.wait(20)
        assert parent.stdout is not None
        parent.stdout.close()
    wait_until(lambda: not is_alive(child), 5, "the engine's end")


def test_yarn_doubles_the_window() -> None:
    begun = time.monotonic()
    with running(yarn=True) as found:
        assert found.engine.window == 16_384
        status, reply = found.post("/completion", {"prompt": QUESTION, "n_predict": 8, "temperature": 0})
        assert (status, bool(reply["content"])) == (200, True)
        status, reply = found.post("/completion", {"prompt": "word " * 17_000, "n_predict": 1})
        assert reply["error"]["n_ctx"] == 16_384
    assert time.monotonic() - begun < 60
