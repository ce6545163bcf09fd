"""A vLLM that was started without a parser and may not be restarted: through the gateway it does everything."""

from __future__ import annotations

import concurrent.futures
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.core.dialects.answers import Case
from tests.live.conftest import Stages
from tests.live.stage import Stage, request, spoken, text_of
from tests.live.test_tools import TOOLS, WEATHER, calls_of
from tests.live.tricky_texts import all_cases, asked, heard, is_markup, judged, thinks, tokens_of
from tests.live.vllm.script import call, marker, said
from tests.live.vllm.server import OPENING, Setup
from tests.support import mcp_server
from tests.support.claude_code import ClaudeCode
from tests.support.gateway import tools_known
from tests.support.tap import Exchange

CASES = all_cases()
OPENED = [name for name, case in CASES.items() if case.settings.get("reasoning") == "open"]
UNMARKED = ("A6", "A31")
"""A model that was asked to think and wrote no tag: to an engine with a reasoning parser all of it is reasoning."""

AT_ONCE = 6
ADAPTIVE = {"type": "adaptive"}


def not_right(stage: Stage, cases: dict[str, Case], *, thinking: bool | None = None) -> list[tuple[str, bool, str]]:
    """The cases that do not come out as wanted, whole or streamed. `thinking` None: as each case says."""

    def one(name: str, stream: bool) -> tuple[str, bool, str]:
        case = cases[name]
        wants = thinks(case) if thinking is None else thinking
        limit = tokens_of(stage.server.url, case.text) if case.settings.get("finish") == "length" else 2000
        said_ = heard(stage.post(asked(case, limit=limit, thinking=wants, stream=stream), limit=300.0))
        return name, stream, f"{judged(case, said_, thinking=wants, stream=stream)}: {said_}"

    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as threads:
        tasks = [threads.submit(one, name, stream) for name in cases for stream in (False, True)]
        return [found for task in tasks if not (found := task.result())[2].startswith("right")]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("thinking", [None, False], ids=["as the case says", "thinking off"])
def test_every_text_comes_out_as_wanted(bare: Stage, thinking: bool | None) -> None:
    cases = {name: case for name, case in CASES.items() if name not in OPENED}
    assert len(cases) == 125
    assert not_right(bare, cases, thinking=thinking) == []


@pytest.mark.timeout(600)
def test_every_text_with_thinking_on(bare: Stage) -> None:
    cases = {name: case for name, case in CASES.items() if not thinks(case)}
    assert not_right(bare, cases, thinking=True) == []


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("thinking", [None, False], ids=["as the case says", "thinking off"])
def test_a_server_with_a_parser_is_read_the_same_way(stages: Stages, thinking: bool | None) -> None:
    """Its hermes parser leaves the text alone where no call is wanted, and the gateway finds that out."""
    stage = stages()
    found = tools_known(stage.gateway.url)
    assert (found["read_by"], found["dialect"], found["engine_parser"]) == ("qiao", "hermes", True)
    left_out = OPENED if thinking is False else [*OPENED, *UNMARKED]
    cases = {name: case for name, case in CASES.items() if name not in left_out}
    assert not_right(stage, cases, thinking=thinking) == []
    assert {chat.asked["tool_choice"] for chat in stage.chats() if "tool_choice" in chat.asked} == {"none"}


@pytest.mark.timeout(600)
def test_a_template_that_opens_the_reasoning(stages: Stages) -> None:
    stage = stages(Setup(parser="off", reasoning="off", flags=OPENING))
    assert not_right(stage, {name: CASES[name] for name in OPENED}) == []
    prompt = "Weather? " + marker("Hm.\n</think>\n\n" + said("I look.", calls=[call("get_weather", city="Paris")]))
    message = stage.both(prompt, tools=TOOLS, thinking=ADAPTIVE)
    assert [block["type"] for block in message["content"]] == ["thinking", "text", "tool_use"]


def test_markup_is_understood_whatever_the_template_asks_for(bare: Stage) -> None:
    assert not_right(bare, {name: case for name, case in CASES.items() if is_markup(case)}, thinking=True) == []


@pytest.mark.timeout(400)
@pytest.mark.parametrize("think", [True, False], ids=["it thinks", "it does not think"])
def test_a_whole_session_of_claude_code(bare: Stage, tmp_path: Path, think: bool) -> None:
    """Bash, Write, Read, two calls at once, ToolSearch and the MCP tool that it finds."""
    settings = tmp_path / "mcp.json"
    server = {"type": "stdio", "command": sys.executable, "args": [str(mcp_server.__file__)]}
    settings.write_text(json.dumps({"mcpServers": {"people": server}}))
    claude = ClaudeCode(bare.url, bare.key, tmp_path / "home", tmp_path / "work")
    inside, two = claude.work / "in.txt", claude.work / "two.txt"
    inside.write_text("the secret is 桥\n")
    greet = "mcp__people__greet"

    def turn(text: str, *calls: str) -> str:
        return said(text, think="I consider it." if think else None, calls=calls)

    script = marker(
        turn("I run it.", call("Bash", command="echo one > one.txt && cat one.txt")),
        turn("", call("Write", file_path=str(two), content='two – "桥" </tool_call>\n<tool_call>{"name": "x"}\n')),
        turn("What is inside?", call("Read", file_path=str(inside))),
        turn("Both.", call("Bash", command="echo three > three.txt; cat one.txt"), call("Read", file_path=str(two))),
        turn("", call("ToolSearch", query=f"select:{greet}")),
        turn("", call(greet, person="Ada")),
        turn("All is done."),
    )
    arguments = ("--max-turns", "20", "--mcp-config", str(settings), "--strict-mcp-config")
    outcome = claude.run(f"Work. {script}", *arguments, limit=360)
    assert outcome.exit_code == 0, (outcome.result, outcome.errors)
    assert outcome.result["result"] == "All is done."
    assert outcome.result["is_error"] is False
    assert (claude.work / "one.txt").read_text() == "one\n"
    assert two.read_text() == 'two – "桥" </tool_call>\n<tool_call>{"name": "x"}\n'
    assert (claude.work / "three.txt").read_text() == "three\n"
    results = outcome.tool_results()
    assert [bool(block.get("is_error")) for block in results] == [False] * 7
    assert "the secret is 桥" in str(results[2]["content"])
    assert "Good day, Ada!" in str(results[-1]["content"])
    assert [exchange.status for exchange in bare.tap.exchanges if exchange.path == "/v1/messages"] == [200] * 7
    assert {chat.asked["tool_choice"] for chat in bare.chats()} == {"none"}


def test_many_streams_with_calls_are_not_mixed(bare: Stage) -> None:
    """24 at once, eight more than the engine takes together, each with words, thoughts and two calls of its own."""

    def one(number: int) -> str:
        city = " ".join(f"c{number}x{word}" for word in range(6))
        calls = [call("get_weather", city=city, days=number), call("get_time", zone=f"z{number}")]
        prompt = f"Case {number}. " + marker(said(f"Text {number}.", think=f"Thought {number}.", calls=calls))
        message = bare.stream(prompt, tools=TOOLS, thinking=ADAPTIVE).message
        wanted = [
            {"type": "thinking", "thinking": f"Thought {number}."},
            {"type": "text", "text": f"Text {number}."},
            {"type": "tool_use", "name": "get_weather", "input": {"city": city, "days": number}},
            {"type": "tool_use", "name": "get_time", "input": {"zone": f"z{number}"}},
        ]
        return "" if spoken(message["content"]) == wanted else f"{number}: {message['content']}"

    with concurrent.futures.ThreadPoolExecutor(24) as threads:
        assert [wrong for wrong in threads.map(one, range(24)) if wrong] == []


# -- schemas ----------------------------------------------------------------------------------------------------------

ENDLESS: dict[str, Any] = {"type": "object", "properties": {"next": {"$ref": "#"}}, "required": []}
SCHEMAS: dict[str, Any] = {
    "a reference to nowhere": {"type": "object", "properties": {"x": {"$ref": "#/$defs/Nope"}}},
    "an unknown type": {"type": "object", "properties": {"x": {"type": "strnig"}}},
    "properties as a list": {"type": "object", "properties": []},
    "a choice at the root": {"oneOf": [{"type": "object"}, {"type": "object", "required": ["x"]}]},
    "a pattern that looks ahead": {"type": "object", "properties": {"x": {"type": "string", "pattern": "^(?=a)b"}}},
    "an unknown format": {"type": "object", "properties": {"x": {"type": "string", "format": "zorg"}}},
    "endless": ENDLESS,
    "nothing at all": {},
    "as long as a book": {
        "type": "object",
        "properties": {
            f"parameter_{number}": {"type": "string", "description": "What it is for. " * 3} for number in range(600)
        },
    },
}


def served(exchanges: list[Exchange]) -> set[int | None]:
    return {exchange.status for exchange in exchanges if exchange.path == "/v1/messages"}


@pytest.mark.parametrize("name", list(SCHEMAS))
def test_broken_and_overlong_schemas_fail_no_request(bare: Stage, name: str) -> None:
    tools = [{"name": "odd", "input_schema": SCHEMAS[name]}, WEATHER]
    prompt = "Weather? " + marker(said("I look.", calls=[call("get_weather", city="Paris"), call("odd", x="b")]))
    message = bare.both(prompt, tools=tools)
    assert calls_of(message) == [("get_weather", {"city": "Paris"}), ("odd", {"x": "b"})]
    assert served(bare.tap.exchanges) == {200}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", list(SCHEMAS))
@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "odd"}], ids=["any", "named"])
def test_a_forced_call_with_such_a_schema_is_answered(bare: Stage, name: str, choice: dict[str, Any]) -> None:
    """What the random model writes under whatever grammar the server took; a schema that it refuses is left out."""
    tools = [{"name": "odd", "input_schema": SCHEMAS[name]}, WEATHER]
    fields: dict[str, Any] = {"tools": tools, "tool_choice": choice, "max_tokens": 30}
    for message in (bare.whole("Call it.", **fields), bare.stream("Call it.", **fields).message):
        assert message["stop_reason"] in ("tool_use", "max_tokens", "end_turn")
        if message["stop_reason"] == "tool_use":
            assert all(isinstance(given, dict) for _, given in calls_of(message))
    assert served(bare.tap.exchanges) == {200}


def test_a_schema_longer_than_the_window_is_an_overflow(bare: Stage) -> None:
    properties = {f"p{number}": {"type": "string", "description": "word " * 40} for number in range(1500)}
    tools = [{"name": "odd", "input_schema": {"type": "object", "properties": properties}}]
    error = bare.refused(400, request("Hi", tools=tools))
    assert error["type"] == "invalid_request_error"
    assert error["message"].startswith("prompt is too long: ")


def test_words_alone_are_words(bare: Stage) -> None:
    """The model need not call; nothing forces it."""
    assert text_of(bare.both("Hi. " + marker(said("Just words.", think="Hm.")), tools=TOOLS, thinking=ADAPTIVE)) == (
        "Just words."
    )
