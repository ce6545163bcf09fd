"""The official SDKs read our answers, streamed and whole, as the same message (law 4), and what they send arrives."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.fakes.script import Call, Part, Pause, Step, Think, call, marker, step
from tests.integration.conftest import MODEL, Stage, Stages, connected
from tests.support.sdk import Sdk

pytestmark = pytest.mark.timeout(60)

WEATHER = {
    "name": "get_weather",
    "description": "The weather in a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city"],
    },
}
THINKING = {"type": "enabled", "budget_tokens": 1024}


def asked(*steps: Step | Part | str, **fields: Any) -> dict[str, Any]:
    """The fields of a request that carries a script."""
    turn = {"role": "user", "content": f"Go on. {marker(*steps)}"}
    return {"model": MODEL, "max_tokens": 2000, "messages": [turn], **fields}


def essence(message: dict[str, Any]) -> dict[str, Any]:
    """What two answers to the same script have in common: all but ids and what the prefix cache had."""
    blocks = [
        {key: block[key] for key in ("type", "text", "thinking", "name", "input") if block.get(key) is not None}
        for block in message["content"]
    ]
    usage = message["usage"]
    prompt = usage["input_tokens"] + usage["cache_read_input_tokens"] + usage["cache_creation_input_tokens"]
    whole = {key: message[key] for key in ("type", "role", "model", "stop_reason")}
    stopped_by = message.get("stop_sequence")
    return {**whole, "stop_sequence": stopped_by, "content": blocks, "prompt": prompt, "said": usage["output_tokens"]}


ANSWERS: dict[str, tuple[Step, list[dict[str, Any]], str]] = {
    "text": (step("Hello – 你好."), [{"type": "text", "text": "Hello – 你好."}], "end_turn"),
    "line separators": (
        step("one\u2028two\u2029three\x85four\r\nfive", split="char"),
        [{"type": "text", "text": "one\u2028two\u2029three\x85four\r\nfive"}],
        "end_turn",
    ),
    "thinking": (
        step(Think("Let me see."), "Yes."),
        [{"type": "thinking", "thinking": "Let me see."}, {"type": "text", "text": "Yes."}],
        "end_turn",
    ),
    "a call": (
        step(Think("hm"), "I look.", call("get_weather", city="Paris", days=2)),
        [
            {"type": "thinking", "thinking": "hm"},
            {"type": "text", "text": "I look."},
            {"type": "tool_use", "name": "get_weather", "input": {"city": "Paris", "days": 2}},
        ],
        "tool_use",
    ),
    "parallel calls": (
        step(call("get_weather", city="東京"), call("get_weather", city='a "quoted" \\ city'), split="char"),
        [
            {"type": "tool_use", "name": "get_weather", "input": {"city": "東京"}},
            {"type": "tool_use", "name": "get_weather", "input": {"city": 'a "quoted" \\ city'}},
        ],
        "tool_use",
    ),
    "a call without arguments": (
        step(Call("get_weather", "")),
        [{"type": "tool_use", "name": "get_weather", "input": {}}],
        "tool_use",
    ),
    "every packet a byte": (
        step(Think("a桥"), "b桥", call("get_weather", city="桥"), packet=1, newline="\r\n", comments=True),
        [
            {"type": "thinking", "thinking": "a桥"},
            {"type": "text", "text": "b桥"},
            {"type": "tool_use", "name": "get_weather", "input": {"city": "桥"}},
        ],
        "tool_use",
    ),
    "all in one packet": (
        step("one two three", call("get_weather", city="Rom"), packet="all"),
        [
            {"type": "text", "text": "one two three"},
            {"type": "tool_use", "name": "get_weather", "input": {"city": "Rom"}},
        ],
        "tool_use",
    ),
    "a filter": (step("I can", finish="content_filter"), [{"type": "text", "text": "I can"}], "refusal"),
    "finish says stop in spite of a call": (
        step(call("get_weather", city="Oslo"), finish="stop"),
        [{"type": "tool_use", "name": "get_weather", "input": {"city": "Oslo"}}],
        "tool_use",
    ),
    "no end mark": (step("fine", done=False), [{"type": "text", "text": "fine"}], "end_turn"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_streamed_and_whole_answers_are_the_same_message(client: Sdk, stage: Stage, name: str) -> None:
    said, content, stop_reason = ANSWERS[name]
    params = asked(said, tools=[WEATHER], thinking=THINKING)
    whole = client.do("create", **params)["message"]
    streamed = client.do("stream", **params)
    assert essence(whole) == essence(streamed["message"])
    assert essence(whole)["content"] == content
    assert whole["stop_reason"] == stop_reason
    assert whole["model"] == MODEL
    assert streamed["text"] == "".join(block.get("text", "") for block in content)
    assert streamed["request_id"].startswith("req_")
    assert whole["id"].startswith("msg_")
    assert whole["id"] != streamed["message"]["id"]


def test_a_stop_sequence_is_named(client: Sdk, stage: Stage) -> None:
    params = asked("one END two", stop_sequences=["</severity>", "END"])
    for order in ("create", "stream"):
        message = client.do(order, **params)["message"]
        assert (message["stop_reason"], message["stop_sequence"]) == ("stop_sequence", "END")
        assert message["content"][0]["text"] == "one "


def test_more_stop_sequences_than_the_engine_takes(client: Sdk, stage: Stage) -> None:
    stops = ["@1", "@2", "@3", "@4", "@5", "@6"]
    params = asked(step("text up to @6 and on", split="char"), stop_sequences=stops)
    for order in ("create", "stream"):
        message = client.do(order, **params)["message"]
        assert (message["stop_reason"], message["stop_sequence"]) == ("stop_sequence", "@6")
        assert message["content"][0]["text"] == "text up to "


def test_the_token_limit_is_told(client: Sdk, stage: Stage) -> None:
    params = asked("one two three four five", max_tokens=3)
    for order in ("create", "stream"):
        message = client.do(order, **params)["message"]
        assert message["stop_reason"] == "max_tokens"
        assert message["content"][0]["text"] == "one two three"


def test_a_tool_round_trip(client: Sdk, stage: Stage) -> None:
    calls = step("I look.", call("get_weather", city="Paris"), call("get_weather", city="Rom"))
    params = asked(calls, "18 and 25 degrees.", tools=[WEATHER])
    first = client.do("stream", **params)["message"]
    asked_for = [block for block in first["content"] if block["type"] == "tool_use"]
    results = [
        {"type": "tool_result", "tool_use_id": asked_for[0]["id"], "content": "18"},
        {"type": "tool_result", "tool_use_id": asked_for[1]["id"], "content": [{"type": "text", "text": "25"}]},
    ]
    kept = [
        {key: block[key] for key in ("type", "text", "id", "name", "input") if key in block}
        for block in first["content"]
    ]
    turns = [*params["messages"], {"role": "assistant", "content": kept}, {"role": "user", "content": results}]
    second = client.do("stream", **{**params, "messages": turns})["message"]
    assert second["content"][0]["text"] == "18 and 25 degrees."
    assert second["stop_reason"] == "end_turn"
    sent = stage.engine.chats[-1]
    assert [message["role"] for message in sent.messages] == ["user", "assistant", "tool", "tool"]
    assert [message["content"] for message in sent.messages[2:]] == ["18", "25"]
    assert json.loads(sent.messages[1]["tool_calls"][1]["function"]["arguments"]) == {"city": "Rom"}
    # The engine's prefix cache needs the second prompt to go on where the first one ended.
    assert sent.prompt.startswith(stage.engine.chats[0].prompt)
    assert second["usage"]["cache_read_input_tokens"] > 0


@pytest.mark.parametrize(
    ("choice", "wanted"),
    [
        ({"type": "auto"}, "auto"),
        ({"type": "any"}, "required"),
        ({"type": "none"}, "none"),
        ({"type": "tool", "name": "get_weather"}, {"type": "function", "function": {"name": "get_weather"}}),
    ],
)
def test_tool_choices_arrive(client: Sdk, stage: Stage, choice: dict[str, Any], wanted: Any) -> None:
    said = "no call" if choice["type"] in ("auto", "none") else call("get_weather", city="Bonn")
    message = client.do("create", **asked(said, tools=[WEATHER], tool_choice=choice))["message"]
    assert stage.engine.chats[-1].body.get("tool_choice", "auto") == wanted
    assert message["stop_reason"] == ("end_turn" if isinstance(said, str) else "tool_use")


def test_one_call_at_a_time_when_asked(client: Sdk, stage: Stage) -> None:
    both = step(call("get_weather", city="A"), call("get_weather", city="B"))
    choice = {"type": "auto", "disable_parallel_tool_use": True}
    for order in ("create", "stream"):
        message = client.do(order, **asked(both, tools=[WEATHER], tool_choice=choice))["message"]
        assert [block["input"] for block in message["content"]] == [{"city": "A"}]


def test_thinking_can_be_turned_off(client: Sdk, stage: Stage) -> None:
    params = asked(step(Think("hm"), "yes"), thinking={"type": "disabled"})
    message = client.do("create", **params)["message"]
    assert [block["type"] for block in message["content"]] == ["text"]


def test_a_system_prompt_in_blocks_arrives(client: Sdk, stage: Stage) -> None:
    blocks = [{"type": "text", "text": "Be kind."}, {"type": "text", "text": "Be brief."}]
    client.do("create", **asked("yes", system=blocks))
    first = stage.engine.chats[-1].messages[0]
    assert first["role"] == "system"
    assert "Be kind." in first["content"]
    assert "Be brief." in first["content"]


def test_a_big_stream(client: Sdk, stage: Stage) -> None:
    text = "".join(f"Line {number}: 一二三 – and some more words to make it long.\n" for number in range(500))
    streamed = client.do("stream", **asked(step(text, split="token", packet=4096), max_tokens=100_000))
    assert streamed["text"] == text
    assert streamed["message"]["content"][0]["text"] == text


def test_pings_do_not_disturb(client: Sdk, stages: Stages) -> None:
    stage = stages(MODEL, "--ping-interval", "0.1")
    said = step("one ", Pause(0.8), "two", call("get_weather", city="Paris"), before_first=0.8)
    streamed = connected(client, stage).do("stream", **asked(said, tools=[WEATHER]))
    assert streamed["text"] == "one two"
    assert [block["type"] for block in streamed["message"]["content"]] == ["text", "tool_use"]
    assert stage.tap.exchanges[-1].body.count(b"event: ping\n") >= 3


def test_a_prefix_of_the_answer_is_continued(client: Sdk, stage: Stage) -> None:
    params = asked("unused", " is four.")
    params["messages"].append({"role": "assistant", "content": "Two and two"})
    message = client.do("create", **params)["message"]
    assert stage.engine.chats[-1].body["continue_final_message"] is True
    assert stage.engine.chats[-1].prompt.endswith("Two and two")
    assert message["role"] == "assistant"


def test_tokens_are_counted_as_the_engine_counts_them(client: Sdk, stage: Stage) -> None:
    params = asked("yes", tools=[WEATHER], system="Be kind.")
    counted = client.do("count", **{key: value for key, value in params.items() if key != "max_tokens"})
    usage = client.do("create", **params)["message"]["usage"]
    assert counted["input_tokens"] == usage["input_tokens"] + usage["cache_read_input_tokens"]


def test_models_are_listed_and_found(client: Sdk, stage: Stage) -> None:
    listed = client.do("models", limit=1)
    assert MODEL in [model["id"] for model in listed]
    found = client.do("model", id=MODEL)
    assert found["type"] == "model"
    assert found["id"] == MODEL
    assert found["max_input_tokens"] == 131072
    assert found["created_at"].startswith("20")


@pytest.mark.parametrize("name", ["claude-sonnet-4-5", "claude-3-5-haiku-20241022", "claude-opus-4-1[1m]"])
def test_claude_names_reach_the_model_and_are_echoed(client: Sdk, stage: Stage, name: str) -> None:
    message = client.do("create", **asked("yes") | {"model": name})["message"]
    assert message["model"] == name
    assert stage.engine.chats[-1].body["model"] == MODEL
