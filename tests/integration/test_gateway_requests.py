"""Everything a client may send is made fit for the engine: no forbidden request leaves the gateway.

The fake engine refuses what vLLM refuses, and the stage holds every request against `tests.fakes.hygiene`; so each case
here needs to say only what must have arrived.
"""

from __future__ import annotations

import base64
import itertools
import json
from typing import Any

import pytest

from tests.fakes.script import Say, Think, call, marker, step, text_of
from tests.integration.conftest import MODEL, Stage, Stages
from tests.integration.test_gateway_http import post
from tests.integration.test_sdk_answers import WEATHER, asked
from tests.support.files import pdf, png

pytestmark = pytest.mark.timeout(60)

PNG = base64.b64encode(png()).decode()
USER = {"role": "user", "content": f"Hi {marker('yes')}"}


def use(name: str = "get_weather", given: Any = None, call_id: str = "toolu_1") -> dict[str, Any]:
    return {"type": "tool_use", "id": call_id, "name": name, "input": {} if given is None else given}


def result(content: Any = "18", call_id: str = "toolu_1", **fields: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": call_id, "content": content, **fields}


def turns(*contents: Any) -> list[dict[str, Any]]:
    """The scripted user turn, then assistant and user turns by turns."""
    return [USER] + [
        {"role": "assistant" if number % 2 == 0 else "user", "content": content}
        for number, content in enumerate(contents)
    ]


def request(**fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "max_tokens": 100, "messages": [USER], **fields}


PROPER: dict[str, dict[str, Any]] = {
    "no tools in an array": request(tools=[]),
    "no tools, but a choice": request(tools=[], tool_choice={"type": "auto"}),
    "a choice without tools": request(tool_choice={"type": "any"}),
    "six stop sequences": request(stop_sequences=list("äöüßéè")),
    "thinking adaptive": request(thinking={"type": "adaptive", "display": "updates"}, output_config={"effort": "max"}),
    "thinking enabled": request(max_tokens=2000, thinking={"type": "enabled", "budget_tokens": 1024}),
    "thinking disabled with an effort": request(thinking={"type": "disabled"}, output_config={"effort": "high"}),
    "more tokens than the window": request(max_tokens=500_000),
    "sampling": request(temperature=1, top_p=0.9, top_k=20),
    "sampling at the edge": request(temperature=0, top_p=1, top_k=0),
    "safeguards and other unknown fields": request(
        safeguards=[{"type": "dangerous_tool_use", "classifier_context": {}}], speed="fast", hello={"a": 1}
    ),
    "metadata, tier, container, betas": request(
        metadata={"user_id": "{}"}, service_tier="auto", container=None, betas=["x"], diagnostics=None
    ),
    "context management": request(
        thinking={"type": "adaptive"},
        context_management={"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    ),
    "cache control everywhere": request(
        cache_control={"type": "ephemeral"},
        system=[{"type": "text", "text": "s", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
        tools=[{**WEATHER, "cache_control": {"type": "ephemeral"}, "eager_input_streaming": True}],
    ),
    "empty texts": request(
        system=[{"type": "text", "text": ""}],
        messages=[
            USER,
            {"role": "assistant", "content": ""},
            {"role": "user", "content": [{"type": "text", "text": ""}]},
        ],
    ),
    "a call whose input could not be parsed": request(
        messages=turns([use(given={"__unparsedToolInput": {"raw": '{"city": ', "len": 9}})], [result(is_error=True)])
    ),
    "a call whose input is a string": request(messages=turns([use(given="Paris")], [result()])),
    "a call whose input is a list": request(messages=turns([use(given=[1])], [result()])),
    "a call without a result": request(messages=turns([use()], "never mind")),
    "a call without a result at the end": request(messages=turns([use()], "so?", [use(call_id="toolu_2")], [])),
    "a result without a call": request(messages=turns("text", [result(call_id="toolu_9")])),
    "the same id twice": request(messages=turns([use(), use()], [result("a"), result("b")])),
    "the same id in two turns": request(messages=turns([use()], [result("a")], [use()], [result("b")])),
    "an id with strange characters": request(
        messages=turns([use(call_id="call.1:2/x y")], [result(call_id="call.1:2/x y")])
    ),
    "text before the results": request(messages=turns([use()], [{"type": "text", "text": "here:"}, result()])),
    "a result without content": request(messages=turns([use()], [{"type": "tool_result", "tool_use_id": "toolu_1"}])),
    "an empty result": request(messages=turns([use()], [result([])])),
    "a picture for a text-only model": request(
        messages=turns(
            "ok",
            [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}],
        )
    ),
    "a picture by address": request(
        messages=turns("ok", [{"type": "image", "source": {"type": "url", "url": "https://example.test/a.png"}}])
    ),
    "a search result": request(
        messages=turns(
            "ok",
            [{"type": "search_result", "source": "s", "title": "t", "content": [{"type": "text", "text": "words"}]}],
        )
    ),
    "thoughts with strange signatures": request(
        messages=turns(
            [
                {"type": "thinking", "thinking": "hm", "signature": ""},
                {"type": "redacted_thinking", "data": "xyz"},
                {"type": "text", "text": "so"},
            ],
            "go on",
        )
    ),
    "two user turns in a row": request(messages=[USER, {"role": "user", "content": "and"}]),
    "the assistant begins": request(messages=[{"role": "assistant", "content": "Hello"}, USER]),
    "a lone surrogate": request(messages=[{"role": "user", "content": f"a\ud800b {marker('yes')}"}]),
    "server tools in history": request(
        messages=turns(
            [
                {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "q"}},
                {
                    "type": "web_search_tool_result",
                    "tool_use_id": "srvtoolu_1",
                    "content": [
                        {"type": "web_search_result", "title": "T", "url": "https://x.test", "encrypted_content": "e"}
                    ],
                },
                {"type": "text", "text": "found"},
            ],
            "go on",
        )
    ),
    "predefined tools": request(
        tools=[
            {"type": "bash_20250124", "name": "bash"},
            {"type": "text_editor_20250728", "name": "str_replace_based_edit_tool", "max_characters": 1000},
            {"type": "memory_20250818", "name": "memory"},
        ]
    ),
    "an output schema": request(
        output_config={"format": {"type": "json_schema", "schema": {"type": "object", "properties": {}}}}
    ),
    "a schema with everything": request(
        tools=[
            {
                "name": "mcp__x__" + "y" * 100,
                "input_schema": {
                    "$schema": "https://json-schema.org/draft/2020-12/schema",
                    "type": "object",
                    "properties": {"a": {"anyOf": [{"type": "string", "format": "zorg"}, {"const": 1}]}},
                    "propertyNames": {"pattern": "^[a-z]+$"},
                    "additionalProperties": False,
                },
            }
        ]
    ),
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("name", PROPER)
def test_is_answered(stage: Stage, name: str, stream: bool) -> None:
    reply = post(stage, {**PROPER[name], "stream": stream})
    assert reply.status == 200, reply.body
    assert len(stage.engine.chats) == 1


def test_tokens_of_everything_can_be_counted(stage: Stage) -> None:
    for name, body in PROPER.items():
        asked_for = {key: value for key, value in body.items() if key not in ("max_tokens", "stop_sequences")}
        reply = post(stage, asked_for, "/v1/messages/count_tokens")
        assert reply.status == 200, (name, reply.body)
        assert reply.json["input_tokens"] > 0


def test_zero_tokens_warm_the_cache(stage: Stage) -> None:
    answer = post(stage, request(max_tokens=0)).json
    assert (answer["content"], answer["stop_reason"], answer["usage"]["output_tokens"]) == ([], "max_tokens", 0)
    assert len(stage.engine.chats) == 1
    assert b"message_stop" in post(stage, request(max_tokens=0, stream=True)).body


def test_system_turns_stay_where_they_are(stage: Stage) -> None:
    reminder = {"role": "system", "content": [{"type": "text", "text": "Remember."}]}
    later = {"role": "system", "content": "Once more."}
    body = request(system="Head.", messages=[USER, reminder, *turns("ok", "go on")[1:], later])
    assert post(stage, body).status == 200
    sent = stage.engine.chats[-1].messages
    assert [message["role"] for message in sent] == ["system", "user", "system", "assistant", "user", "system"]
    assert [text_of(sent[number]["content"]) for number in (0, 2, 5)] == ["Head.", "Remember.", "Once more."]


def test_system_turns_become_reminders_where_the_template_refuses_them(stages: Stages) -> None:
    stage = stages("strict-template", apart="learning")
    stage.refusals = True
    reminder = {"role": "system", "content": [{"type": "text", "text": "Remember."}]}
    body = request(model="strict-template", system="Head.", messages=[USER, reminder])
    assert post(stage, body).status == 200
    assert post(stage, body).status == 200
    # Only the first request may be refused; what it taught is kept.
    assert [chat.status for chat in stage.engine.chats] == [400, 200, 200]
    for chat in stage.engine.chats[1:]:
        assert [message["role"] for message in chat.messages] == ["system", "user"]
        assert "Remember." not in text_of(chat.messages[0]["content"])
        assert "<system-reminder>" in text_of(chat.messages[1]["content"])
        assert "Remember." in text_of(chat.messages[1]["content"])


def test_deferred_tools_appear_once_they_are_referenced(stage: Stage) -> None:
    tools = [
        WEATHER,
        {"name": "ToolSearch", "input_schema": {"type": "object", "properties": {"query": {"type": "string"}}}},
        {"name": "DeferredToolPlaceholder", "input_schema": {"type": "object"}, "defer_loading": True},
    ]
    hidden = {
        "name": "NotebookEdit",
        "description": "Edits a notebook cell.",
        "input_schema": {"type": "object", "properties": {"cell": {"type": "integer"}}},
        "defer_loading": True,
    }
    assert post(stage, request(tools=[*tools, hidden])).status == 200
    assert stage.engine.chats[-1].tool_names == ["get_weather", "ToolSearch"]
    assert "NotebookEdit" not in json.dumps(stage.engine.chats[-1].body)
    found = [result([{"type": "tool_reference", "tool_name": "NotebookEdit"}])]
    body = request(tools=[*tools, hidden], messages=turns([use("ToolSearch", {"query": "select:NotebookEdit"})], found))
    assert post(stage, body).status == 200
    sent = stage.engine.chats[-1]
    shown = text_of(sent.messages[2]["content"])
    assert sent.messages[2]["role"] == "tool"
    assert "NotebookEdit" in shown
    assert "Edits a notebook cell." in shown
    assert '"cell"' in shown
    assert sent.tool_names == ["get_weather", "ToolSearch"]
    assert "DeferredToolPlaceholder" not in json.dumps(sent.body)


def test_the_billing_header_is_left_out(stage: Stage) -> None:
    billing = "x-anthropic-billing-header: cc_version=2.1.330.abc; cc_entrypoint=sdk-cli;"
    body = request(system=[{"type": "text", "text": billing}, {"type": "text", "text": "Head."}])
    assert post(stage, body).status == 200
    assert stage.engine.chats[-1].messages[0] == {"role": "system", "content": "Head."}


def test_pdf_pages_become_text(stage: Stage) -> None:
    data = base64.b64encode(pdf("The bridge is 42 metres long")).decode()
    document = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": data}}
    for contents in (["ok", [document]], [[use("Read")], [result([document])]]):
        assert post(stage, request(messages=turns(*contents))).status == 200
        assert "The bridge is 42 metres long" in json.dumps(stage.engine.chats[-1].messages)


def test_pictures_reach_a_model_that_sees(stages: Stages) -> None:
    stage = stages("vision")
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
    both = turns([use(call_id="a"), use(call_id="b")], [result([picture], "a"), result("text", "b")])
    assert post(stage, request(model="vision", messages=both)).status == 200
    sent = stage.engine.chats[-1].messages
    assert [message["role"] for message in sent] == ["user", "assistant", "tool", "tool", "user"]
    parts = sent[-1]["content"]
    assert {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}} in parts


def test_a_picture_teaches_that_the_model_is_blind(stages: Stages) -> None:
    """A model of an unknown family: only the engine's refusal tells that it takes no pictures."""
    stage = stages("small-window", apart="learning")
    stage.refusals = True
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
    body = request(model="small-window", messages=turns("ok", [picture, {"type": "text", "text": "What is it?"}]))
    for _ in range(2):
        assert post(stage, body).status == 200
    assert [chat.status for chat in stage.engine.chats] == [400, 200, 200]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "web search": (
        request(tools=[{"type": "web_search_20250305", "name": "web_search", "max_uses": 8}]),
        "tools.0: web_search_20250305",
    ),
    "code execution": (request(tools=[{"type": "code_execution_20250825", "name": "code_execution"}]), "tools.0"),
    "an unknown tool": (request(tools=[{"type": "quantum_20301111"}]), "tools.0"),
    "server-side compaction": (request(compaction={"type": "summarize"}), "compaction"),
    "a thread": (request(thread={"type": "create"}), "thread"),
    "an mcp server": (request(mcp_servers=[{"type": "url", "url": "https://x.test", "name": "x"}]), "mcp_servers"),
    "a container upload": (
        request(messages=[{"role": "user", "content": [{"type": "container_upload", "file_id": "f"}]}]),
        "messages.0.content.0",
    ),
    "a named tool that is not there": (
        request(tools=[WEATHER], tool_choice={"type": "tool", "name": "nope"}),
        "tool_choice",
    ),
    "two tools of one name": (request(tools=[WEATHER, WEATHER]), "tools"),
    "a budget that leaves no room": (
        request(max_tokens=2000, thinking={"type": "enabled", "budget_tokens": 3000}),
        "thinking",
    ),
    "no limit": ({"model": MODEL, "messages": [USER]}, "max_tokens"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_is_refused_with_a_reason(stage: Stage, name: str) -> None:
    body, words = REFUSED[name]
    for stream in (False, True):
        reply = post(stage, {**body, "stream": stream})
        assert (reply.status, reply.json["error"]["type"]) == (400, "invalid_request_error")
        assert words in reply.json["error"]["message"]
    assert stage.engine.chats == []


def test_turn_after_turn_keeps_the_prefix(stage: Stage) -> None:
    """Law 6 over a session with reasoning, calls, system turns and the moving cache marks of Claude Code."""
    script = marker(
        step(Think("a"), Say("I look."), call("get_weather", city="A")),
        step(Think("b"), call("get_weather", city="B"), call("get_weather", city="C")),
        "done",
        key="prefix",
    )
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": [{"type": "text", "text": f"Go {script}", "cache_control": {"type": "ephemeral"}}]},
        {"role": "system", "content": [{"type": "text", "text": "Note.", "cache_control": {"type": "ephemeral"}}]},
    ]
    for _ in range(3):
        body = request(messages=messages, tools=[WEATHER], system="Head.", thinking={"type": "adaptive"})
        answer = post(stage, body).json
        messages = [{**message, "content": _unmarked(message["content"])} for message in messages] + [
            {"role": "assistant", "content": answer["content"]}
        ]
        used = [block for block in answer["content"] if block["type"] == "tool_use"]
        if used:
            messages.append({"role": "user", "content": [result("r", block["id"]) for block in used]})
    prompts = [chat.prompt for chat in stage.engine.chats]
    assert len(prompts) == 3
    for earlier, later in itertools.pairwise(prompts):
        assert later.startswith(earlier)


def _unmarked(content: Any) -> Any:
    """Claude Code moves its cache marks on, and a system turn without one becomes a plain string."""
    if isinstance(content, str):
        return content
    bare = [{key: value for key, value in block.items() if key != "cache_control"} for block in content]
    return bare[0]["text"] if len(bare) == 1 and bare[0]["type"] == "text" else bare


def test_words_of_a_server_without_parser_stay_words(stages: Stages) -> None:
    """A vLLM that was started without a tool parser still answers; calls are in test_no_restart."""
    stage = stages("no-parser")
    stage.refusals = True
    body = {**asked("just text", tools=[WEATHER]), "model": "no-parser"}
    for _ in range(2):
        reply = post(stage, body)
        assert reply.status == 200, reply.body
        assert reply.json["content"][0]["text"] == "just text"
    assert [chat.status for chat in stage.engine.chats][-1] == 200
