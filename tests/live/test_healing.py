"""What vLLM 0.32 really says, and that the remedy for it works on it."""

from __future__ import annotations

from typing import Any

import pytest

from qiao.policies import refusal, remedies
from tests.live.conftest import BARE, PARSING, Stages
from tests.live.stage import CHAT, MODEL, Stage, request
from tests.live.vllm.script import marker
from tests.support.plain_http import ask

TOOL = {"type": "function", "function": {"name": "t", "parameters": {"type": "object"}}}
BAD = {"type": "object", "properties": {"a": {"type": "objectt"}}}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
FIVE = ["q", "z", "x", "j", "k"]
PICTURE = [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}]
HI = [{"role": "user", "content": "Hi"}]

# What is asked of the engine itself, beside HI, and the remedy that its answer must find.
WITH_PARSERS: dict[str, tuple[dict[str, Any], str]] = {
    "the Anthropic word": ({"tools": [TOOL], "tool_choice": "any"}, "tool_choice_refused"),
    "a tool that is not there": (
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "nope"}}},
        "forced_tool_missing",
    ),
    "a choice without tools": ({"tool_choice": "auto"}, "forced_tool_missing"),
    "an image": ({"messages": [{"role": "user", "content": PICTURE}]}, "text_model"),
    "five stops": ({"stop": FIVE}, "stop_limit"),
    "too long an answer": ({"max_tokens": 40961}, "answer_limit"),
    "the same by its newer name": ({"max_tokens": None, "max_completion_tokens": 81920}, "answer_limit"),
    "stream options without a stream": ({"stream_options": {"include_usage": True}}, "stream_options"),
    "an unknown effort": ({"reasoning_effort": "zzz"}, "effort"),
    "a prefill": ({"continue_final_message": True}, "prefill"),
    "a strict tool": (
        {"tools": [{"type": "function", "function": {"name": "t", "strict": True, "parameters": BAD}}]},
        "strict_schema",
    ),
    "a schema for the answer": (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": BAD}}},
        "answer_schema",
    ),
    "top_k": ({"top_k": -2}, "sampling_value"),
    "top_p": ({"top_p": 0}, "sampling_value"),
    "temperature": ({"temperature": 2.5}, "sampling_value"),
}
WITHOUT: dict[str, tuple[dict[str, Any], str]] = {
    "tools": ({"tools": [TOOL]}, "no_tool_parser"),
    "a call that must be": ({"tools": [TOOL], "tool_choice": "required"}, "no_tool_parser"),
    "a named call": (
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "t"}}},
        "no_tool_parser",
    ),
    "a budget for thinking": ({"thinking_token_budget": 2000}, "thinking_budget"),
}


def remedy_of(stage: Stage, changes: dict[str, Any], name: str) -> remedies.Remedy | None:
    body = {"model": MODEL, "messages": HI, "max_tokens": 8, **changes}
    asked = {field: value for field, value in body.items() if value is not None}
    reply = ask(stage.server.url, "POST", CHAT, asked)
    assert reply.status == 400, (reply.status, reply.body)
    read = refusal.read(reply.status, reply.body)
    needs = next(remedy.needs for remedy in remedies.TABLE if remedy.name == name)
    return remedies.find(read.text, read.status, used=frozenset({needs}) if needs else None)


@pytest.mark.parametrize("name", WITH_PARSERS)
def test_its_words_have_a_remedy(stage: Stage, name: str) -> None:
    changes, remedy = WITH_PARSERS[name]
    found = remedy_of(stage, changes, remedy)
    assert found is not None
    assert found.name == remedy


@pytest.mark.parametrize("name", WITHOUT)
def test_so_have_those_of_one_without_parsers(bare: Stage, name: str) -> None:
    changes, remedy = WITHOUT[name]
    found = remedy_of(bare, changes, remedy)
    assert found is not None
    assert found.name == remedy


ANTHROPIC_TOOL = {"name": "t", "input_schema": {"type": "object"}}
# What is asked, whether it is asked without from then on, and whether the engine itself is the lesson: a schema
# that makes no grammar is remembered for its tool.
HEALED: dict[str, tuple[dict[str, Any], bool, bool]] = {
    "thinking_budget": ({"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 2000}, True, True),
    "strict_schema": ({"tools": [{**ANTHROPIC_TOOL, "strict": True, "input_schema": BAD}]}, True, False),
    "answer_schema": ({"output_config": {"format": {"type": "json_schema", "schema": BAD}}}, False, False),
    "sampling_value": ({"min_p": 5}, False, False),
}


@pytest.mark.parametrize("remedy", HEALED)
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_it_is_healed(stages: Stages, remedy: str, stream: bool) -> None:
    """The client never sees the refusal; what lasts is asked without from then on."""
    setup = BARE if remedy == "thinking_budget" else PARSING
    options = ("--tool-parser", "engine") if remedy == "strict_schema" else ()
    stage = stages(setup, *options, apart=f"healing {remedy} {stream}")
    changes, is_remembered, is_kept = HEALED[remedy]
    body = {**request("Say. " + marker("yes"), stream=stream, max_tokens=50), **changes}
    first, second = stage.post(body), stage.post(body)
    assert (first.status, second.status) == (200, 200)
    assert first.headers["x-qiao-healed"] == remedy
    assert second.headers.get("x-qiao-healed") == (None if is_remembered else remedy)
    lessons = ask(stage.url, "GET", "/readyz").json["lessons"]
    (lesson,) = [each for each in lessons if each["remedy"] == remedy]
    assert (lesson["times"], lesson["is_kept"]) == (1 if is_remembered else 2, is_kept)
    assert f'qiao_healed_total{{remedy="{remedy}"}}' in ask(stage.url, "GET", "/metrics").body.decode()
