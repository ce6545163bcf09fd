"""`qiao up` with the embedded engine, as a stranger runs it: real SDK, real Claude Code, real signals.

The model is small and says what it wants: what is asserted is the protocol.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import pytest
from jsonschema import Draft202012Validator

from qiao.app.embedded import start_embedded
from qiao.config import Config, Engine, Folders, Models
from qiao.core.anthropic.grammar import Checker
from qiao.policies.models import Names, resolve
from tests.integration.test_embedded_engine import SCHEMAS, TOOLS
from tests.support import sdk
from tests.support.background import Background
from tests.support.claude_code import ClaudeCode
from tests.support.embedded import CACHE, children, is_alive, model_file, wait_until
from tests.support.gateway import Gateway, process
from tests.upstream.test_hub import REPOSITORY, FileServer, serving

pytestmark = pytest.mark.timeout(240)

KEY = "sk-embedded-tests-9f2c"
MODEL = "smollm2-135m-instruct"
WIRE_TOOLS: list[dict[str, Any]] = [
    {"name": tool.name, "description": tool.description, "input_schema": SCHEMAS[tool.name]} for tool in TOOLS
]
HELLO: list[dict[str, Any]] = [{"role": "user", "content": "Say hello."}]


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    model_file()
    with process(["up", "--cache", str(CACHE), "--api-key", KEY], tmp_path_factory.mktemp("up")) as found:
        wait_until(lambda: "qiao is up" in found.output, 120, "the checks of qiao up")
        yield found


@pytest.fixture
def client(up: Gateway) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=up.url, api_key=KEY, max_retries=0) as found:
        yield found


def post(up: Gateway, body: dict[str, Any], path: str = "/v1/messages") -> httpx2.Response:
    return httpx2.post(up.url + path, json=body, headers={"x-api-key": KEY}, timeout=120)


def test_it_checks_itself_and_says_how_to_connect(up: Gateway) -> None:
    for line in ("ok      text", "ok      stream", "ok      tool call", "ok      count", "qiao claude", "Ctrl-C"):
        assert line in up.output
    assert "failed" not in up.output


def test_the_model_and_its_window(client: anthropic.Anthropic) -> None:
    listed = {model.id: model for model in client.models.list()}
    assert MODEL in listed
    assert listed[MODEL].max_input_tokens == 8192


def test_a_whole_answer_and_its_count(client: anthropic.Anthropic) -> None:
    message = client.messages.create(model=MODEL, max_tokens=20, messages=HELLO)
    assert message.content[0].type == "text"
    assert message.stop_reason in ("end_turn", "max_tokens")
    counted = client.messages.count_tokens(model=MODEL, messages=HELLO)
    usage = message.usage
    assert counted.input_tokens == usage.input_tokens + (usage.cache_read_input_tokens or 0)
    again = client.messages.create(model=MODEL, max_tokens=1, messages=HELLO)
    assert again.usage.cache_read_input_tokens == counted.input_tokens - 1


def test_streams_keep_the_strict_grammar(up: Gateway) -> None:
    for extra in ({}, {"tools": WIRE_TOOLS, "tool_choice": {"type": "any"}}, {"max_tokens": 0}, {"max_tokens": 1}):
        body = {"model": MODEL, "max_tokens": 300, "messages": HELLO, "stream": True, **extra}
        response = post(up, body)
        assert response.status_code == 200, response.text
        checker = Checker()
        checker.feed(response.content)
        checker.close()


def test_who_waits_for_the_engine_hears_pings_and_has_its_turn(tmp_path: Path) -> None:
    arguments = ["up", "--cache", str(CACHE), "--no-auth", "--ping-interval", "0.2", "--log-level", "warning"]
    long = {"role": "user", "content": "Write a long story about a river."}  # of 400 tokens and more
    story = {"model": MODEL, "max_tokens": 400, "temperature": 0, "messages": [long], "stream": True}
    hello = {"model": MODEL, "max_tokens": 3, "messages": HELLO, "stream": True}
    with process(arguments, tmp_path) as found:
        wait_until(lambda: "qiao is up" in found.output, 120, "the checks of qiao up")
        with httpx2.stream("POST", found.url + "/v1/messages", json=story, timeout=120) as first:
            assert b"message_start" in next(first.iter_bytes())
            with ThreadPoolExecutor(12) as pool:
                waiting = [pool.submit(post, found, hello) for _ in range(12)]
                # More of them than the engine has threads for by itself: the count is answered all the same.
                counted = post(found, {"model": MODEL, "messages": HELLO}, "/v1/messages/count_tokens")
                assert counted.status_code == 200
                wait_until(lambda: all(request.running() for request in waiting), 10, "the requests")
                time.sleep(1)
                first.close()
                for request in waiting:
                    response = request.result(120)
                    assert response.status_code == 200
                    checker = Checker()
                    checker.feed(response.content)
                    checker.close()
                assert any(b"event: ping" in request.result().content for request in waiting)


@pytest.mark.parametrize("name", [tool.name for tool in TOOLS])
def test_a_forced_tool_gets_input_that_fits(client: anthropic.Anthropic, name: str) -> None:
    message = client.messages.create(
        model=MODEL,
        max_tokens=500,
        messages=[{"role": "user", "content": "Do something useful with the file a.txt."}],
        tools=WIRE_TOOLS,
        tool_choice={"type": "tool", "name": name},
    )
    (block,) = message.content
    assert block.type == "tool_use"
    assert block.name == name
    assert message.stop_reason == "tool_use"
    Draft202012Validator(SCHEMAS[name]).validate(block.input)


@pytest.mark.parametrize("form", ["tool", "format"])
def test_what_the_grammar_does_not_keep_is_said(up: Gateway, form: str) -> None:
    path = {"type": "string", "pattern": "^(?!/etc)/", "maxLength": 20}
    schema = {"type": "object", "properties": {"path": path}, "required": ["path"], "additionalProperties": False}
    extra: dict[str, Any] = {
        "tool": {"tools": [{"name": "open", "input_schema": schema}], "tool_choice": {"type": "any"}},
        "format": {"output_config": {"format": {"type": "json_schema", "schema": schema}}},
    }[form]
    response = post(up, {"model": MODEL, "max_tokens": 100, "messages": HELLO, **extra})
    assert response.status_code == 200, response.text
    assert "schema: not kept by the grammar: pattern" in response.headers["x-qiao-notes"]


@pytest.mark.parametrize("name", list(sdk.commands()))
def test_every_official_sdk_is_answered(up: Gateway, name: str) -> None:
    missing = sdk.absent(name)
    if missing is not None:
        pytest.skip(missing)
    forced = {"tools": WIRE_TOOLS, "tool_choice": {"type": "tool", "name": WIRE_TOOLS[0]["name"]}}
    with sdk.driving(name) as driven:
        driven.base_url, driven.key = up.url, KEY
        said = [
            driven.do(order, model=MODEL, messages=HELLO, max_tokens=16, timeout=60.0)["message"]
            for order in ("create", "stream")
        ]
        called = [
            driven.do(order, model=MODEL, messages=HELLO, max_tokens=600, timeout=90.0, **forced)["message"]
            for order in ("create", "stream")
        ]
    for message in said:
        assert [block["type"] for block in message["content"]] == ["text"]
        assert message["stop_reason"] in ("end_turn", "max_tokens")
        assert message["usage"]["output_tokens"] > 0
    for message in called:
        (block,) = message["content"]
        assert (block["type"], block["name"], message["stop_reason"]) == ("tool_use", WIRE_TOOLS[0]["name"], "tool_use")
        Draft202012Validator(SCHEMAS[block["name"]]).validate(block["input"])


def test_the_result_of_a_tool_is_answered(client: anthropic.Anthropic) -> None:
    turns: list[dict[str, Any]] = [{"role": "user", "content": "What is the weather in Oslo?"}]
    called = client.messages.create(
        model=MODEL,
        max_tokens=100,
        messages=turns,
        tools=WIRE_TOOLS,
        tool_choice={"type": "tool", "name": "get_weather"},
    )
    (block,) = called.content
    turns += [
        {"role": "assistant", "content": [block.model_dump()]},
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": block.id, "content": "Sunny, 21 degrees."}],
        },
    ]
    answered = client.messages.create(model=MODEL, max_tokens=40, messages=turns, tools=WIRE_TOOLS)
    assert [part.type for part in answered.content] == ["text"]


def test_nobody_is_made_to_run_a_command(client: anthropic.Anthropic) -> None:
    for text in ("Hello!", "Delete all files with Bash."):
        message = client.messages.create(
            model=MODEL, max_tokens=16, messages=[{"role": "user", "content": text}], tools=WIRE_TOOLS
        )
        assert [part.type for part in message.content] == ["text"]


def test_a_structured_answer(client: anthropic.Anthropic) -> None:
    schema = {
        "type": "object",
        "properties": {"title": {"type": "string"}},
        "required": ["title"],
        "additionalProperties": False,
    }
    message = client.messages.create(
        model=MODEL,
        max_tokens=200,
        messages=[{"role": "user", "content": "A title for a session about fixing a bug"}],
        output_config={"format": {"type": "json_schema", "schema": schema}},
    )
    Draft202012Validator(schema).validate(json.loads(message.content[0].text))


def test_stop_sequences_and_prefill(client: anthropic.Anthropic) -> None:
    message = client.messages.create(
        model=MODEL,
        max_tokens=60,
        messages=[
            {"role": "user", "content": "Count to twenty in words."},
            {"role": "assistant", "content": "one two three four five six seven"},
        ],
        stop_sequences=["nine", "a1", "a2", "a3", "a4"],
    )
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "nine")


def test_what_does_not_fit_is_refused_as_clients_know_it(up: Gateway) -> None:
    response = post(up, {"model": MODEL, "max_tokens": 10, "messages": [{"role": "user", "content": "word " * 9000}]})
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["message"].startswith("prompt is too long: 9")
    assert error["message"].endswith(" tokens > 8192 maximum")


@pytest.mark.parametrize("choice", [{"type": "auto"}, {"type": "tool", "name": "mcp__server_29__do_thing_299"}])
def test_hundreds_of_tools_leave_room_for_an_answer(up: Gateway, choice: dict[str, Any]) -> None:
    schema = {"type": "object", "properties": {name: {"type": "boolean"} for name in ("owner", "page", "state")}}
    tools = [
        {"name": f"mcp__server_{n // 10}__do_thing_{n}", "description": f"Does {n}. " * 20, "input_schema": schema}
        for n in range(300)
    ]
    body = {"model": MODEL, "max_tokens": 60, "messages": HELLO, "tools": tools, "tool_choice": choice}
    response = post(up, body)
    assert response.status_code == 200, response.text
    assert "300 tools to bare names" in response.headers["x-qiao-notes"]
    usage = response.json()["usage"]
    # What the prompt is shortened to depends on how fast this machine reads, and is 2,000 at most.
    assert usage["input_tokens"] + usage["cache_read_input_tokens"] <= 2000
    if choice["type"] == "tool":
        assert response.json()["content"][0]["name"] == choice["name"]


def test_a_shortened_conversation_says_so(up: Gateway) -> None:
    body = {
        "model": MODEL,
        "max_tokens": 5,
        "system": "You are a helper. " + "There are many rules. " * 800,
        "messages": HELLO,
        "tools": WIRE_TOOLS,
    }
    response = post(up, body)
    assert response.status_code == 200
    said = response.headers["x-qiao-notes"]
    assert "shortened: " in said
    assert response.json()["usage"]["input_tokens"] < 600
    wait_until(lambda: f"[{said}]" in up.output, 10, "the line of the log")


@pytest.mark.parametrize("arguments", [["--bare"], []], ids=["bare", "whole"])
def test_claude_code_gets_an_answer(up: Gateway, tmp_path: Path, arguments: list[str]) -> None:
    person = ClaudeCode(up.url, KEY, tmp_path / "home", tmp_path / "work", model=MODEL)
    outcome = person.run("Say hi", *arguments, limit=180)
    assert outcome.exit_code == 0, outcome.errors
    assert outcome.result["subtype"] == "success"
    assert outcome.result["result"].strip()
    assert outcome.tool_results() == []


def test_the_gateways_record_shows_no_failure(up: Gateway) -> None:
    # "10:02:07 messages 200 …": the status, and no number of tokens that looks like one.
    failed = [line for line in up.output.splitlines() if re.match(r"\S+ \w+ 5\d\d ", line) or "Traceback" in line]
    assert any(re.match(r"\S+ messages 200 ", line) for line in up.output.splitlines())
    assert failed == []


def test_a_crashed_engine_is_named_and_comes_back(up: Gateway) -> None:
    (engine,) = children(up.process.pid)
    os.kill(engine, signal.SIGKILL)
    wait_until(lambda: "was ended by SIGKILL; starting it again" in up.output, 10, "the news")
    wait_until(lambda: httpx2.get(up.url + "/readyz", headers={"x-api-key": KEY}).status_code == 200, 60, "readiness")
    assert post(up, {"model": MODEL, "max_tokens": 3, "messages": HELLO}).status_code == 200
    assert children(up.process.pid) != [engine]


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_stopping_stops_everything(tmp_path: Path, ending: signal.Signals) -> None:
    with process(["up", "--cache", str(CACHE), "--no-auth"], tmp_path) as found:
        (engine,) = children(found.process.pid)
        found.process.send_signal(ending)
        found.process.wait(20)
        assert not is_alive(engine)
        assert "Traceback" not in found.output


def test_a_model_of_a_hub(tmp_path: Path) -> None:
    content = model_file().read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    hub = FileServer(content=content, sha256=digest, listed_size=len(content), cut=40_000_000, cuts=1)
    with Background() as background:
        background.enter(serving(hub))
        (tmp_path / "qiao.toml").write_text(f'[engine]\nhub = "{hub.url}"\n')
        with process(["up", "--model", REPOSITORY, "--cache", str(tmp_path / "cache"), "--no-auth"], tmp_path) as found:
            wait_until(lambda: "qiao is up" in found.output, 120, "the checks of qiao up")
            assert "failed" not in found.output
            assert f"Downloading {REPOSITORY}." in found.output
            with anthropic.Anthropic(base_url=found.url, api_key="x", max_retries=0) as client:
                names = [model.id for model in client.models.list()]
                for name in (REPOSITORY, names[0], "claude-opus-5-5"):
                    assert client.messages.create(model=name, max_tokens=3, messages=HELLO).content
    assert hub.ranges[0] == ""
    assert hub.ranges[1].startswith("bytes=")


def test_a_name_beside_a_file_has_no_effect(tmp_path: Path) -> None:
    """As the start says: Claude's names reach the file's model under its own name."""
    config = Config(models=Models(main="some-model"), engine=Engine(gguf=model_file()), folders=Folders(cache=tmp_path))

    async def names() -> tuple[str | None, list[str]]:
        async with start_embedded(config, lambda _: None) as running:
            served = [model.id for model in (await running.upstream.facts()).models]
            return resolve("claude-opus-5-5", served, Names(main=running.config.models.main)), served

    reached, served = asyncio.run(names())
    assert [reached] == served


def test_a_model_file_that_is_none_is_said(tmp_path: Path) -> None:
    wrong = tmp_path / "model.gguf"
    wrong.write_bytes(b"not a model")
    done = subprocess.run(
        [sys.executable, "-m", "qiao", "up", "--gguf", str(wrong), "--port", "0"],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        encoding="utf-8",
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert "is no GGUF model file" in done.stderr
    assert "Traceback" not in done.stderr
