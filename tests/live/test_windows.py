"""Counts and the window on a real vLLM: what is counted is what is sent, and what does not fit is said truly."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.live.stage import MODEL, WINDOW, Stage, prompt_tokens, request
from tests.live.test_tools import TOOLS
from tests.live.vllm.script import marker, said
from tests.support.plain_http import ask

ADAPTIVE = {"type": "adaptive"}
CALLED = [
    {"role": "user", "content": "Weather?"},
    {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "Hm.", "signature": "x"},
            {"type": "text", "text": "I look."},
            {"type": "tool_use", "id": "a", "name": "get_weather", "input": {"city": "Paris", "days": 2}},
            {"type": "tool_use", "id": "b", "name": "get_time", "input": {}},
        ],
    },
    {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "a", "content": "18 °C"},
            {"type": "tool_result", "tool_use_id": "b", "is_error": True, "content": [{"type": "text", "text": "no"}]},
            {"type": "text", "text": "Go on."},
        ],
    },
    {"role": "system", "content": "Be brief."},
]
SHAPES: dict[str, dict[str, Any]] = {
    "words": {"prompt": "Hi"},
    "thinking": {"prompt": "Hi", "thinking": ADAPTIVE},
    "thinking by default": {"prompt": "Hi", "thinking": None},
    "effort": {"prompt": "Hi", "thinking": ADAPTIVE, "output_config": {"effort": "low"}},
    "effort alone": {"prompt": "Hi", "thinking": None, "output_config": {"effort": "high"}},
    "budget": {
        "prompt": marker(said("Hi.", think="Hm.")),
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "max_tokens": 2000,
    },
    "system": {"prompt": "Hi", "system": [{"type": "text", "text": "One."}, {"type": "text", "text": "Two."}]},
    "tools": {"prompt": "Hi", "tools": TOOLS},
    "no tools": {"prompt": "Hi", "tools": []},
    "no call wanted": {"prompt": "Hi", "tools": TOOLS, "tool_choice": {"type": "none"}},
    "a forced call": {"prompt": "Hi", "tools": TOOLS, "tool_choice": {"type": "any"}},
    "results": {"prompt": CALLED, "tools": TOOLS},
    "results, thinking": {"prompt": CALLED, "tools": TOOLS, "thinking": ADAPTIVE},
    "an answer that has begun": {"prompt": [*CALLED[:1], {"role": "assistant", "content": "It is"}]},
    "a form": {
        "prompt": "Hi",
        "output_config": {"format": {"type": "json_schema", "schema": {"enum": ["yes", "no"]}}},
    },
    "a form with tools": {
        "prompt": "Hi",
        "tools": TOOLS,
        "output_config": {"format": {"type": "json_schema", "schema": {"enum": ["yes", "no"]}}},
    },
}


@pytest.mark.parametrize("name", list(SHAPES))
def test_what_is_counted_is_what_is_sent(stage: Stage, name: str) -> None:
    shape = {"max_tokens": 2, **SHAPES[name]}
    prompt = shape.pop("prompt")
    counted = stage.count(prompt, **shape)
    assert prompt_tokens(stage.whole(prompt, **shape)) == counted
    assert prompt_tokens(stage.stream(prompt, **shape).message) == counted


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("max_tokens", [100, 32_000, 128_000])
def test_a_prompt_that_does_not_fit(stage: Stage, stream: bool, max_tokens: int) -> None:
    """The engine's own message says only that it is one token too many."""
    prompt = "Long. " + "word " * 45_000
    error = stage.refused(400, request(prompt, max_tokens=max_tokens, stream=stream, tools=TOOLS))
    assert error["type"] == "invalid_request_error"
    found = re.fullmatch(r"prompt is too long: (\d+) tokens > (\d+) maximum", error["message"])
    assert found is not None, error
    assert int(found[2]) == WINDOW
    assert int(found[1]) == stage.count(prompt, tools=TOOLS) > 45_000


@pytest.mark.parametrize("thinking", [None, ADAPTIVE], ids=["plain", "thinking"])
def test_a_grown_conversation_is_counted_by_what_it_grew_by(stage: Stage, thinking: dict[str, str] | None) -> None:
    """The sum of the pieces is what the engine itself counts for the whole, turn after turn, near the limit."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Read. " + "word " * 4000}]
    shape = {"tools": TOOLS, "max_tokens": 1, **({} if thinking is None else {"thinking": thinking})}
    for turn in range(4):
        counted = stage.count(messages, **shape)
        assert prompt_tokens(stage.whole(messages, **shape)) == counted
        call = {"type": "tool_use", "id": f"t{turn}", "name": TOOLS[0]["name"], "input": {"city": "桥" * turn}}
        result = {"type": "tool_result", "tool_use_id": f"t{turn}", "content": f"{turn}: " + "37 °C – naïve\n" * 50}
        said: dict[str, Any] = {"type": "text", "text": "Well,\n"}
        messages += [{"role": "assistant", "content": [said, call]}, {"role": "user", "content": [result]}]
        if turn == 2:
            messages += [{"role": "assistant", "content": "Fine."}, {"role": "user", "content": "And now?"}]
    asked = [exchange.asked for exchange in stage.behind.exchanges if exchange.path == "/tokenize"]
    assert sum(len(str(ask)) > 20_000 for ask in asked) == 1, "only the first count was of the whole"


def test_a_prompt_that_leaves_little_room(stage: Stage) -> None:
    """The answer is as long as the window allows, and says that the window ended it; too little room is too long."""
    base = stage.count("x")
    prompt = "x" + " word" * (WINDOW - base - 1100)
    assert stage.count(prompt) == WINDOW - 1100
    for message in (stage.whole(prompt, max_tokens=1500), stage.stream(prompt, max_tokens=1500).message):
        assert message["usage"]["output_tokens"] <= 1100
        if message["stop_reason"] != "end_turn":
            assert message["stop_reason"] == "model_context_window_exceeded"
    error = stage.refused(400, request(prompt + " word" * 1095, max_tokens=1000))
    assert error["message"] == f"prompt is too long: {WINDOW - 5} tokens > {WINDOW - 1024} maximum"
    assert not any(exchange.status == 400 for exchange in stage.chats())


def test_the_window_is_told(stage: Stage) -> None:
    listed = ask(stage.url, "GET", "/v1/models", headers=stage.headers).json["data"]
    assert [(model["id"], model["max_input_tokens"]) for model in listed] == [(MODEL, WINDOW)]


def test_usage_counts_what_the_cache_held(stage: Stage) -> None:
    """Both ends of a stream name the same total, whatever the cache gave; a second time it gives most of it."""
    prompt = "A long prompt that is asked twice. " + "one two three " * 200 + marker("Yes.")
    first = stage.stream(prompt)
    second = stage.stream(prompt)
    whole = stage.whole(prompt)
    assert prompt_tokens(first.message) == prompt_tokens(second.message) == prompt_tokens(whole)
    assert first.message["usage"]["cache_read_input_tokens"] < 256
    for message in (second.message, whole):
        assert message["usage"]["cache_read_input_tokens"] >= 512
    start = second.events[0]["message"]["usage"]
    assert prompt_tokens({"usage": start}) == prompt_tokens(second.message)
