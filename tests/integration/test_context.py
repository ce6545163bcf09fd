"""The window, through the whole gateway: counts, limits, refusals, trimming, and what is told about each."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from qiao.core.anthropic.grammar import check
from tests.fakes.behaviour import Behaviour
from tests.fakes.prompt import count
from tests.fakes.script import marker, step
from tests.integration.conftest import Stage, Stages
from tests.support.plain_http import Reply, ask

WINDOW = 8192
SMALL = Behaviour(max_model_len=WINDOW)
CHATTER = "talk " * 500


def body(prompt: str, **fields: Any) -> dict[str, Any]:
    return {"model": "qwen3-235b", "max_tokens": 4000, "messages": [{"role": "user", "content": prompt}], **fields}


def session(rounds: int, prompt: str = "Read.") -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = [{"role": "user", "content": prompt}]
    for number in range(rounds):
        use = {"type": "tool_use", "id": f"t{number}", "name": "Read", "input": {"path": "x"}}
        result = {"type": "tool_result", "tool_use_id": f"t{number}", "content": f"{number} " + "word " * 300}
        messages += [{"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
    return messages


def post(stage: Stage, sent: dict[str, Any], path: str = "/v1/messages") -> Reply:
    headers = {"x-api-key": stage.key, "anthropic-version": "2023-06-01"}
    return ask(stage.url, "POST", path, sent, headers=headers)


@pytest.fixture
def small(stages: Stages) -> Stage:
    return stages(behaviour=SMALL)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("max_tokens", [1, 4000, 128_000])
def test_a_prompt_over_the_window_never_reaches_the_engine(small: Stage, stream: bool, max_tokens: int) -> None:
    sent = body("word " * 30_000, stream=stream, max_tokens=max_tokens)
    reply = post(small, sent)
    assert reply.status == 400
    counted = post(small, {"model": sent["model"], "messages": sent["messages"]}, "/v1/messages/count_tokens")
    tokens = counted.json["input_tokens"]
    assert reply.json["error"] == {
        "type": "invalid_request_error",
        "message": f"prompt is too long: {tokens} tokens > {WINDOW} maximum",
    }
    assert small.engine.chats == []


@pytest.mark.parametrize("stream", [False, True])
def test_the_window_ends_the_answer(small: Stage, stream: bool) -> None:
    """The limit that was sent is ours: the client did not ask for it, and is told what it was."""
    prompt = marker(step(CHATTER)) + " word"
    counting = body(prompt)
    del counting["max_tokens"]
    base = post(small, counting, "/v1/messages/count_tokens").json["input_tokens"]
    prompt += " word" * (WINDOW - base - 300)
    reply = post(small, body(prompt, stream=stream))
    assert reply.status == 200
    message = check(reply.body) if stream else reply.json
    assert message["stop_reason"] == "model_context_window_exceeded"
    chat = small.engine.chats[0]
    assert chat.body["max_completion_tokens"] == WINDOW - count(chat.prompt)
    assert re.search(r"max_tokens: 4000 asked, \d+ left in the window", reply.headers["x-qiao-notes"])


def test_max_tokens_ends_the_answer(small: Stage) -> None:
    reply = post(small, body(marker(step(CHATTER)), max_tokens=20))
    assert reply.json["stop_reason"] == "max_tokens"


def test_trimming_is_told(stages: Stages) -> None:
    stage = stages("qwen3-235b", "--on-overflow", "trim", behaviour=SMALL)
    prompt = "My words stay. " + marker(*["Well done."] * 45)
    reply = post(stage, body("", messages=session(40, prompt), system="Be brief."))
    assert reply.status == 200, reply.body
    assert int(reply.headers["x-qiao-trimmed"]) > 10
    assert "old tool results shortened" in reply.headers["x-qiao-notes"]
    sent = stage.engine.chats[0].messages
    assert sent[0] == {"role": "system", "content": "Be brief."}
    assert sent[1]["content"] == prompt
    assert sent[-1]["content"] == "39 " + "word " * 300
    assert "left out" in sent[3]["content"]
    metrics = ask(stage.url, "GET", "/metrics").body.decode()
    assert re.search(r"^qiao_trimmed_total [1-9]", metrics, re.MULTILINE)
    assert "trimmed" in stage.gateway.output


def test_edits_are_applied_and_told(small: Stage) -> None:
    edit = {
        "type": "clear_tool_uses_20250919",
        "trigger": {"type": "input_tokens", "value": 3000},
        "keep": {"type": "tool_uses", "value": 1},
        "clear_tool_inputs": ["Read"],
    }
    sent = body("", messages=session(12), context_management={"edits": [edit]})
    reply = post(small, sent)
    (applied,) = reply.json["context_management"]["applied_edits"]
    assert (applied["type"], applied["cleared_tool_uses"]) == ("clear_tool_uses_20250919", 11)
    tools = [message for message in small.engine.chats[0].messages if message["role"] == "tool"]
    assert [message["content"].startswith("[old tool result") for message in tools] == [True] * 11 + [False]
    del sent["max_tokens"]
    counted = post(small, sent, "/v1/messages/count_tokens")
    assert counted.json["input_tokens"] == count(small.engine.chats[0].prompt)
    original = counted.json["context_management"]["original_input_tokens"]
    assert original > counted.json["input_tokens"] + 3000
    freed = original - counted.json["input_tokens"]
    assert 0.5 < applied["cleared_input_tokens"] / freed < 2
    assert counted.headers["x-qiao-count"] == "exact"


@pytest.mark.parametrize(("server", "said"), [("vllm", "exact"), ("llamacpp", "exact"), ("ray", "tokenizer")])
def test_who_counted_is_said(stages: Stages, server: Any, said: str) -> None:
    stage = stages(behaviour=Behaviour(server=server))
    reply = post(stage, {"model": stage.model, "messages": session(2)}, "/v1/messages/count_tokens")
    assert reply.headers["x-qiao-count"] == said
    assert json.loads(reply.body)["input_tokens"] > 500


def test_the_window_is_told(small: Stage) -> None:
    headers = {"x-api-key": small.key, "anthropic-version": "2023-06-01"}
    (model,) = ask(small.url, "GET", "/v1/models", headers=headers).json["data"]
    assert (model["max_input_tokens"], model["max_model_len"]) == (WINDOW, WINDOW)
