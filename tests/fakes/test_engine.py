"""The fake engine against what a running vLLM 0.32.0 was seen to do, and under the official OpenAI SDK."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest

from tests.fakes.behaviour import Behaviour
from tests.fakes.engine import FakeEngine, serving
from tests.fakes.script import (
    Break,
    Call,
    Delta,
    Part,
    Pause,
    Raw,
    Say,
    Step,
    Think,
    call,
    marker,
    refusal,
    step,
)

MODEL = "qwen3-235b"
REFUSALS = Path(__file__).parents[1] / "golden" / "fake_engine" / "refusals.case"
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.fixture
def engine() -> FakeEngine:
    window = Behaviour(max_model_len=40960)
    return FakeEngine({MODEL: window, "no-parser": Behaviour(tool_parser=False, reasoning_parser=False)})


@pytest.fixture
async def url(engine: FakeEngine) -> AsyncIterator[str]:
    async with serving(engine) as base:
        yield base


@pytest.fixture
async def client(url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as opened:
        yield opened


async def post(url: str, path: str, body: Any) -> tuple[int, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(url + path, data=data, headers=headers) as answer,
    ):
        return answer.status, await answer.json()


def asked(*steps: Step | Part | str, **fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": f"Hi {marker(*steps)}"}], **fields}


async def streamed(url: str, body: dict[str, Any]) -> bytes:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/v1/chat/completions", json={**body, "stream": True}) as answer,
    ):
        assert answer.status == 200
        return await answer.read()


def chunks(raw: bytes) -> list[Any]:
    events = [event for event in raw.decode().split("\n\n") if event]
    return [json.loads(event.removeprefix("data: ")) for event in events if event != "data: [DONE]"]


def golden() -> list[Any]:
    return list(_cases())


def _cases() -> Iterator[Any]:
    for case in REFUSALS.read_text("utf-8").split("# ")[1:]:
        name, _, rest = case.partition("\n")
        change, _, answer = rest.partition("\n---\n")
        status, _, body = answer.partition(" ")
        yield pytest.param(json.loads(change), int(status), json.loads(body), id=name)


@pytest.mark.parametrize(("change", "status", "body"), golden())
async def test_refuses_with_the_recorded_body(url: str, change: Any, status: int, body: Any) -> None:
    plain = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8}
    given = json.dumps({**plain, **change}).encode()
    got = await post(url, "/v1/chat/completions", given)
    served = "Valid aliases: qwen3-235b, no-parser."
    recorded = json.loads(json.dumps(body).replace("Valid aliases: qwen3-235b.", served))
    assert got == (status, recorded)


@pytest.mark.parametrize(
    ("path", "raw", "answer"),
    [
        ("/v1/chat/completions", b'\xff\xfe{"', (400, {"detail": "There was an error parsing the body"})),
        ("/v1/messages", b"{}", (404, {"detail": "Not Found"})),
        ("/v1/models", b"{}", (405, {"detail": "Method Not Allowed"})),
    ],
)
async def test_plain_refusals(url: str, path: str, raw: bytes, answer: tuple[int, Any]) -> None:
    assert await post(url, path, raw) == answer


async def test_refuses_a_prompt_longer_than_the_window(url: str) -> None:
    long = "word " * 41_000
    body = {"model": MODEL, "messages": [{"role": "user", "content": long}], "stream": True}
    status, answer = await post(url, "/v1/chat/completions", body)
    assert status == 400
    assert answer["error"]["message"] == (
        "This model's maximum context length is 40960 tokens. However, your prompt contains at least 40961 "
        "input tokens, which exceeds this limit even without any output tokens. Please reduce the length of "
        "the input prompt. (parameter=input_tokens, value=40961)"
    )
    counted = await post(url, "/tokenize", {"model": MODEL, "messages": body["messages"]})
    assert counted[1]["count"] > 41_000


async def test_whole_answer_has_the_recorded_keys(url: str) -> None:
    _, answer = await post(url, "/v1/chat/completions", asked("Glad to hear it."))
    message, choice = answer["choices"][0]["message"], answer["choices"][0]
    assert list(message) == [
        "role",
        "content",
        "refusal",
        "annotations",
        "audio",
        "function_call",
        "reasoning",
    ]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", None)
    assert set(answer["usage"]["prompt_tokens_details"]) == {"cached_tokens", "created_cache_tokens"}


async def test_stream_has_the_recorded_order(url: str) -> None:
    said = step(Think("\nLet me"), "\n\nI will", call("get_weather", city="Paris"), call("get_weather", city="Rom"))
    body = asked(said, tools=[WEATHER], stream_options={"include_usage": True, "continuous_usage_stats": True})
    raw = await streamed(url, body)
    assert raw.endswith(b"data: [DONE]\n\n")
    events = chunks(raw)
    deltas = [event["choices"][0]["delta"] for event in events[:-1]]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert deltas[-1] == {}
    named = [delta["tool_calls"][0] for delta in deltas if "tool_calls" in delta and "id" in delta["tool_calls"][0]]
    assert [(entry["index"], entry["function"]) for entry in named] == [
        (0, {"name": "get_weather"}),
        (1, {"name": "get_weather"}),
    ]
    assert "".join(delta.get("reasoning", "") for delta in deltas) == "\nLet me"
    assert events[-2]["choices"][0]["finish_reason"] == "tool_calls"
    assert events[-1]["choices"] == []
    assert events[0]["usage"]["completion_tokens"] == 0
    assert events[-1]["usage"]["prompt_tokens"] == events[0]["usage"]["prompt_tokens"]


async def test_the_sdk_reads_a_stream_and_a_whole_answer_alike(client: openai.AsyncOpenAI) -> None:
    said = step("Ein Satz – 一座桥\u2028und mehr.", call("get_weather", city="東京"), split="char")
    body = asked(said, tools=[WEATHER], tool_choice="auto")
    whole = await client.chat.completions.create(**body)
    async with client.chat.completions.stream(**body) as opened:
        async for _ in opened:
            pass
        folded = await opened.get_final_completion()
    one, other = whole.choices[0].message, folded.choices[0].message
    assert one.content == other.content == "Ein Satz – 一座桥\u2028und mehr."
    assert one.tool_calls is not None
    assert other.tool_calls is not None
    for calls in (one.tool_calls, other.tool_calls):
        wanted = {"name": "get_weather", "arguments": '{"city":"東京"}'}
        assert wanted.items() <= calls[0].model_dump()["function"].items()


async def test_steps_follow_the_assistant_turns_and_the_last_marker_wins(client: openai.AsyncOpenAI) -> None:
    first = marker("one", "two")
    turns: list[Any] = [{"role": "user", "content": first}]
    said: list[str | None] = []
    for follow in ("and?", "more?", marker("new")):
        answer = await client.chat.completions.create(model=MODEL, messages=turns)
        said.append(answer.choices[0].message.content)
        turns += [{"role": "assistant", "content": said[-1]}, {"role": "user", "content": follow}]
    answer = await client.chat.completions.create(model=MODEL, messages=turns)
    assert [*said, answer.choices[0].message.content] == ["one", "two", "Done.", "new"]


async def test_a_marker_in_a_tool_call_or_result_does_not_count(client: openai.AsyncOpenAI) -> None:
    inner = marker("inner")
    called = {"id": "1", "type": "function", "function": {"name": "get_weather", "arguments": json.dumps({"p": inner})}}
    turns: list[Any] = [
        {"role": "user", "content": marker(call("get_weather"), "outer")},
        {"role": "assistant", "content": None, "tool_calls": [called]},
        {"role": "tool", "tool_call_id": "1", "content": inner},
    ]
    answer = await client.chat.completions.create(model=MODEL, messages=turns)
    assert answer.choices[0].message.content == "outer"


async def test_attempts_count_the_requests_for_a_step(url: str) -> None:
    body = asked(Step(attempts=(refusal(503, "later", kind="ServiceUnavailable"), step("now"))))
    assert (await post(url, "/v1/chat/completions", body))[0] == 503
    for _ in range(2):
        status, answer = await post(url, "/v1/chat/completions", body)
        assert (status, answer["choices"][0]["message"]["content"]) == (200, "now")


@pytest.mark.parametrize("fields", [{"packet": 3}, {"packet": "all"}, {"packet": 1, "split": "char"}])
async def test_packets_change_no_byte(url: str, fields: dict[str, Any]) -> None:
    plain = chunks(await streamed(url, asked(step("a桥b c"))))
    cut = chunks(await streamed(url, asked(step("a桥b c", **fields))))
    texts = ["".join(event["choices"][0]["delta"].get("content", "") for event in found) for found in (plain, cut)]
    assert texts == ["a桥b c", "a桥b c"]


async def test_line_ends_comments_and_raw_text(url: str) -> None:
    said = step("a", Raw(": mine\r\n\r\n"), newline="\r\n", comments=True, done=False)
    raw = await streamed(url, asked(said))
    assert raw.count(b": keep-alive\r\n\r\n") == 3
    assert b": mine\r\n\r\n" in raw
    assert b"[DONE]" not in raw


async def test_late_breaks(url: str) -> None:
    died = await streamed(url, asked(step("a", Break("error"), "b")))
    assert died.endswith(
        b'data: {"error": {"message": "EngineCore encountered an issue. See stack trace (above) for the root '
        b'cause.", "type": "InternalServerError", "param": null, "code": 500}}\n\ndata: [DONE]\n\n'
    )
    assert b'finish_reason":"' not in died
    cut = await streamed(url, asked(step("a", Break("eof"), "b")))
    assert b"[DONE]" not in cut
    with pytest.raises(aiohttp.ClientError):
        await streamed(url, asked(step("a", Break("reset"))))
    status, answer = await post(url, "/v1/chat/completions", asked(step("a", Break("error"))))
    assert (status, answer["error"]["type"]) == (500, "InternalServerError")


async def test_limits_stops_and_switches_are_obeyed(url: str) -> None:
    async def said(body: dict[str, Any]) -> tuple[Any, ...]:
        _, answer = await post(url, "/v1/chat/completions", body)
        choice = answer["choices"][0]
        return choice["message"]["content"], choice["finish_reason"], choice["stop_reason"]

    assert await said(asked("one two three", max_tokens=2)) == ("one two", "length", None)
    assert await said(asked("one STOP three", stop=["x", "STOP"])) == ("one ", "stop", "STOP")
    thought = step(Think("hm"), "yes")
    off = {"chat_template_kwargs": {"enable_thinking": False}}
    for change, wanted in (({}, "hm"), (off, None), ({"reasoning_effort": "none"}, None)):
        _, answer = await post(url, "/v1/chat/completions", asked(thought, **change))
        assert answer["choices"][0]["message"]["reasoning"] == wanted
    twice = step(call("get_weather", city="A"), call("get_weather", city="B"))
    _, answer = await post(url, "/v1/chat/completions", asked(twice, tools=[WEATHER], parallel_tool_calls=False))
    assert len(answer["choices"][0]["message"]["tool_calls"]) == 1
    raw = await said({**asked(step(call("get_weather", city="A")), tools=[WEATHER], tool_choice="none")})
    assert raw[0] == '<tool_call>\n{"name": "get_weather", "arguments": {"city":"A"}}\n</tool_call>'
    named = asked(tools=[WEATHER], tool_choice={"type": "function", "function": {"name": "get_weather"}})
    named["messages"] = [{"role": "user", "content": "no script"}]
    _, answer = await post(url, "/v1/chat/completions", named)
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert json.loads(answer["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"]) == {"city": "example"}


async def test_deltas_and_usage_as_the_script_writes_them(url: str) -> None:
    said = step(Delta({"reasoning_content": "old name"}), usage={"prompt_tokens": 9, "total_tokens": 9})
    events = chunks(await streamed(url, asked(said, stream_options={"include_usage": True})))
    assert events[1]["choices"][0]["delta"] == {"reasoning_content": "old name"}
    assert events[-1]["usage"]["prompt_tokens"] == 9
    silent = chunks(await streamed(url, asked(step("a", usage="never"), stream_options={"include_usage": True})))
    assert all("usage" not in event for event in silent)


async def _read(session: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> bytes:
    async with session.post(url, json=body) as answer:
        return await answer.read()


async def test_a_client_that_leaves_is_seen(engine: FakeEngine, url: str) -> None:
    for stream in (True, False):
        body = asked(step("a", Pause(30), "b"), stream=stream)
        async with aiohttp.ClientSession() as session:
            before = len(engine.chats)
            asking = asyncio.create_task(_read(session, f"{url}/v1/chat/completions", body))
            async with asyncio.timeout(10):
                while len(engine.chats) == before:
                    await asyncio.sleep(0.01)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        async with asyncio.timeout(10):
            while engine.chats[-1].disconnected_at is None:
                await asyncio.sleep(0.01)


async def test_a_silence_can_be_ended(engine: FakeEngine, url: str) -> None:
    said = Step(parts=step("a", Pause(30), "b").parts, before_headers=30, before_first=30)
    for stream in (True, False):
        engine.forget()
        async with aiohttp.ClientSession() as session, asyncio.timeout(15):
            asking = asyncio.create_task(_read(session, f"{url}/v1/chat/completions", asked(said, stream=stream)))
            while not engine.chats:
                await asyncio.sleep(0.01)
            assert not asking.done()
            engine.go_on()
            assert b"b" in await asking


async def test_prefix_cache_counts_whole_blocks(url: str) -> None:
    first: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "word " * 300}]}
    later = {**first, "messages": [*first["messages"], {"role": "assistant", "content": "ok"}]}
    later["messages"] = [*later["messages"], {"role": "user", "content": "again"}]
    cached = []
    for body in (first, later):
        _, answer = await post(url, "/v1/chat/completions", body)
        cached.append(answer["usage"]["prompt_tokens_details"]["cached_tokens"])
    assert cached[0] == 0
    assert cached[1] > 200
    assert cached[1] % 128 == 0


async def test_ray_serve_wraps_errors_and_lacks_routes() -> None:
    async with serving(FakeEngine({"m": Behaviour(server="ray")})) as url:
        body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
        _, answer = await post(url, "/v1/chat/completions", {**body, "tools": []})
        assert answer["error"]["type"] == "VLLMValidationError"
        assert answer["error"]["message"].endswith("omit the field entirely. (parameter=tools)")
        _, answer = await post(url, "/v1/chat/completions", {**body, "max_tokens": 50_000})
        assert answer["error"]["message"].startswith("Message: max_tokens=50000 cannot be greater than")
        assert (await post(url, "/tokenize", body))[0] == 400
        async with aiohttp.ClientSession() as session:
            statuses = {}
            for path in ("/health", "/version", "/metrics", "/-/healthz"):
                async with session.get(url + path) as got:
                    statuses[path] = got.status
            async with session.get(f"{url}/v1/models") as got:
                listed = (await got.json())["data"][0]
        assert statuses == {"/health": 404, "/version": 404, "/metrics": 404, "/-/healthz": 200}
        assert "max_model_len" not in listed
        assert listed["metadata"]["max_request_context_length"] == 40960


async def test_no_parser_and_strict_template() -> None:
    models = {"raw": Behaviour(tool_parser=False, reasoning_parser=False), "strict": Behaviour(system_anywhere=False)}
    async with serving(FakeEngine(models)) as url:
        body = asked(step(Think("hm"), call("get_weather", city="A")), tools=[WEATHER], tool_choice="none")
        _, answer = await post(url, "/v1/chat/completions", {**body, "model": "raw"})
        assert answer["choices"][0]["message"]["content"].startswith("<think>\nhm\n</think>\n\n<tool_call>\n{")
        turns = [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]
        status, answer = await post(url, "/v1/chat/completions", {"model": "strict", "messages": turns})
        assert (status, answer["error"]["message"]) == (400, "System message must be at the beginning.")


async def test_keeps_every_request_and_forgets_them(engine: FakeEngine, url: str) -> None:
    await post(url, "/v1/chat/completions", asked(Say("a")))
    await post(url, "/v1/chat/completions", {"model": MODEL, "messages": [], "tools": []})
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{url}/_requests") as answer:
            kept = await answer.json()
        async with session.delete(f"{url}/_requests") as answer:
            assert answer.status == 204
    assert [(one["status"], one["turn"]) for one in kept] == [(200, 0), (400, None)]
    assert "must not be an empty array" in kept[1]["refusal"]["error"]["message"]
    assert engine.requests == []


async def test_runs_as_a_program() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.fakes.engine", "--model", "vision", stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        said = json.loads(await asyncio.wait_for(process.stdout.readline(), 10))
        body = asked(step(Call("f", "[1]")))
        status, answer = await post(said["url"], "/v1/chat/completions", {**body, "model": "vision"})
    finally:
        process.terminate()
        await process.wait()
    assert said["models"] == ["vision"]
    assert status == 200
    assert answer["model"] == "vision"
