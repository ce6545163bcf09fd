"""Tools on a real vLLM through the gateway: calls, results, choices, and a server that was started without a parser."""

from __future__ import annotations

from typing import Any

import pytest

from tests.live.conftest import BARE, PARSING, Stages
from tests.live.stage import Stage, text_of
from tests.live.vllm.script import call, marker, said

WEATHER = {
    "name": "get_weather",
    "description": "The weather of a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
TIME = {"name": "get_time", "input_schema": {"type": "object", "properties": {"zone": {"type": "string"}}}}
TOOLS = [WEATHER, TIME]
ADAPTIVE = {"type": "adaptive"}


def calls_of(message: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(block["name"], block["input"]) for block in message["content"] if block["type"] == "tool_use"]


def test_a_call(stage: Stage) -> None:
    prompt = "Weather? " + marker(said("I look.", think="Hm.", calls=[call("get_weather", city="Pa\nris", days=2)]))
    message = stage.both(prompt, tools=TOOLS, thinking=ADAPTIVE)
    assert [block["type"] for block in message["content"]] == ["thinking", "text", "tool_use"]
    assert calls_of(message) == [("get_weather", {"city": "Pa\nris", "days": 2})]
    assert message["stop_reason"] == "tool_use"


def test_arguments_are_streamed(stage: Stage) -> None:
    prompt = "Weather? " + marker(said(calls=[call("get_weather", city="a long name of a city, in many words")]))
    streamed = stage.stream(prompt, tools=TOOLS)
    pieces = [event for event in streamed.events if event.get("delta", {}).get("type") == "input_json_delta"]
    assert len(pieces) > 5


def test_parallel_calls(stage: Stage) -> None:
    both = [call("get_weather", city="Paris"), call("get_time", zone="UTC")]
    prompt = "Both? " + marker(said("Both at once.", think="Hm.", calls=both))
    message = stage.both(prompt, tools=TOOLS, thinking=ADAPTIVE)
    assert calls_of(message) == [("get_weather", {"city": "Paris"}), ("get_time", {"zone": "UTC"})]
    ids = [block["id"] for block in message["content"] if block["type"] == "tool_use"]
    assert len(set(ids)) == 2


def test_one_call_only(stage: Stage) -> None:
    """The second call is a text that vLLM's grammar forbids here, so the script holds only one."""
    prompt = "One? " + marker(said(calls=[call("get_weather", city="Paris")]))
    choice = {"type": "auto", "disable_parallel_tool_use": True}
    message = stage.both(prompt, tools=TOOLS, tool_choice=choice)
    assert calls_of(message) == [("get_weather", {"city": "Paris"})]


def test_a_round_trip(stage: Stage) -> None:
    first = said("I look.", think="Hm.", calls=[call("get_weather", city="Paris"), call("get_time")])
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "Weather? " + marker(first, said("It is 18 °C.", think="So."))}
    ]
    answer = stage.stream(messages, tools=TOOLS, thinking=ADAPTIVE).message
    assert answer["stop_reason"] == "tool_use"
    weather, time = [block["id"] for block in answer["content"] if block["type"] == "tool_use"]
    content = [
        {"type": "tool_result", "tool_use_id": weather, "content": [{"type": "text", "text": "18 °C"}]},
        {"type": "tool_result", "tool_use_id": time, "content": "no clock here", "is_error": True},
        {"type": "text", "text": "Go on.", "cache_control": {"type": "ephemeral"}},
    ]
    messages += [{"role": "assistant", "content": answer["content"]}, {"role": "user", "content": content}]
    assert text_of(stage.both(messages, tools=TOOLS, thinking=ADAPTIVE)) == "It is 18 °C."
    roles = [message["role"] for message in stage.chats()[-1].asked["messages"]]
    assert roles[:4] == ["user", "assistant", "tool", "tool"]


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "get_weather"}], ids=["any", "named"])
def test_a_forced_call(stage: Stage, choice: dict[str, Any]) -> None:
    prompt = "Weather? " + marker(said(calls=[call("get_weather", city="Paris")]))
    message = stage.both(prompt, tools=TOOLS, tool_choice=choice)
    assert calls_of(message) == [("get_weather", {"city": "Paris"})]
    assert message["stop_reason"] == "tool_use"


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "get_weather"}], ids=["any", "named"])
def test_a_forced_call_by_the_random_model(stage: Stage, choice: dict[str, Any]) -> None:
    """Whatever the model writes within the grammar, the stream is right and no broken call is said to be whole."""
    for strict in (None, True):
        tools = [{**tool, **({"strict": True} if strict else {})} for tool in TOOLS]
        fields: dict[str, Any] = {"tools": tools, "tool_choice": choice, "max_tokens": 40}
        for message in (stage.whole("Weather?", **fields), stage.stream("Weather?", **fields).message):
            assert message["stop_reason"] in ("tool_use", "max_tokens", "end_turn"), message
            if message["stop_reason"] == "tool_use":
                assert all(isinstance(given, dict) for _, given in calls_of(message))


def test_no_call_wanted(stage: Stage) -> None:
    prompt = "Weather? " + marker("It is warm.")
    assert text_of(stage.both(prompt, tools=TOOLS, tool_choice={"type": "none"})) == "It is warm."


def test_no_tools_at_all(stage: Stage) -> None:
    for choice in (None, {"type": "auto"}, {"type": "any"}, {"type": "none"}):
        assert text_of(stage.both("Hi. " + marker("Hello."), tools=[], tool_choice=choice)) == "Hello."
    assert all("tools" not in chat.asked and "tool_choice" not in chat.asked for chat in stage.chats())


def test_a_call_that_the_limit_cuts(stage: Stage) -> None:
    prompt = "Weather? " + marker(said("I look.", calls=[call("get_weather", city="one two three four five six")]))
    whole = stage.whole(prompt, tools=TOOLS, max_tokens=25)
    assert whole["stop_reason"] == "max_tokens"
    assert calls_of(whole) == []
    assert stage.stream(prompt, tools=TOOLS, max_tokens=25).message["stop_reason"] == "max_tokens"


def test_a_strict_schema_that_the_grammar_refuses(stage: Stage) -> None:
    """vLLM answers 400 to the whole request, also with `auto`; it is sent again without that tool's `strict`, and the
    next request knows."""
    broken = {"type": "object", "properties": {"x": {"$ref": "#/$defs/Nope"}}}
    tools = [{"name": "odd", "input_schema": broken, "strict": True}, WEATHER]
    prompt = "Weather? " + marker(said(calls=[call("get_weather", city="Paris")]))
    assert calls_of(stage.both(prompt, tools=tools)) == [("get_weather", {"city": "Paris"})]
    assert [chat.status for chat in stage.chats()] == [400, 200, 200]
    assert [found.headers.get("x-qiao-healed") for found in stage.tap.exchanges] == ["strict_schema", None]


def test_a_strict_schema_that_the_grammar_refuses_in_a_stream(stages: Stages) -> None:
    """A stream is refused after its head."""
    stage = stages(PARSING, "--tool-parser", "engine", apart="a strict stream")
    broken = {"type": "object", "properties": {"x": {"$ref": "#/$defs/Nope"}}}
    tools = [WEATHER, {"name": "odd", "input_schema": broken, "strict": True}, {**TIME, "strict": True}]
    prompt = "Weather? " + marker(said(calls=[call("get_weather", city="Paris")]))
    assert calls_of(stage.stream(prompt, tools=tools).message) == [("get_weather", {"city": "Paris"})]
    assert [chat.status for chat in stage.chats()] == [200, 200]
    strict = [tool["function"].get("strict") for tool in stage.chats()[-1].asked["tools"]]
    assert strict == [None, None, True]


@pytest.mark.usefixtures("bare")
def test_a_server_without_a_parser(stages: Stages) -> None:
    """It is asked as it wants to be asked, after one refusal at most. (Forced calls there are answered under a grammar,
    which forbids this script.)"""
    bare = stages(BARE, apart="what it learns")
    for choice in (None, {"type": "auto"}, {"type": "none"}):
        assert text_of(bare.both("Hi. " + marker("Hello."), tools=TOOLS, tool_choice=choice)) == "Hello."
    assert [chat.status for chat in bare.chats()].count(400) <= 1
