"""MCP's long tool names before an engine that takes 64 characters: the engine never sees them, the client no others."""

from __future__ import annotations

from typing import Any

import pytest

from qiao.policies.tool_names import short_name
from tests.fakes.script import Step, call, marker, refusal, step
from tests.integration.conftest import MODEL, Stage, Stages
from tests.integration.test_no_restart import both, post

pytestmark = pytest.mark.timeout(60)

NAME = "mcp__plugin_company_wide_knowledge_base__search_documents_by_their_owner"
SHORT = short_name(NAME, 64)
SCHEMA = {"type": "object", "properties": {"owner": {"type": "string"}, "page": {"type": "integer"}}}
REFUSED = (
    "Invalid 'tools[0].function.name': string too long. Expected a string with maximum length 64, but got a string "
    f"with length {len(NAME)} instead."
)


def asked(*steps: Step, **fields: Any) -> dict[str, Any]:
    earlier = {"type": "tool_use", "id": "toolu_1", "name": NAME, "input": {"owner": "me"}}
    return {
        "model": MODEL,
        "max_tokens": 500,
        "tools": [{"name": NAME, "description": "Searches.", "input_schema": SCHEMA}],
        "messages": [
            {"role": "user", "content": f"Search. {marker('already answered', *steps)}"},
            {"role": "assistant", "content": [earlier]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "nothing"}]},
        ],
        **fields,
    }


def names_sent(stage: Stage) -> set[str]:
    body = stage.engine.chats[-1].body
    calls = [each for message in body["messages"] for each in message.get("tool_calls", ())]
    choice = body.get("tool_choice")
    named = [choice] if isinstance(choice, dict) else []
    return {each["function"]["name"] for each in (*body["tools"], *calls, *named)}


@pytest.mark.parametrize("written", [SHORT, NAME, SHORT.replace("_", "-"), SHORT[:-1]])
def test_openais_own_api_sees_short_names(stages: Stages, written: str) -> None:
    stage = stages(MODEL, "--flavor", "openai", apart="openai")
    stage.inexact_usage = True
    choice = {"type": "tool", "name": NAME}
    message = both(stage, asked(step(call(written, owner="me", page="3")), tool_choice=choice))
    assert [(block["name"], block["input"]) for block in message["content"]] == [(NAME, {"owner": "me", "page": 3})]
    assert names_sent(stage) == {SHORT}


def test_calls_in_the_text_too(stages: Stages) -> None:
    stage = stages(MODEL, "--flavor", "openai", "--tool-parser", "hermes", apart="text")
    stage.inexact_usage = True
    text = f'<tool_call>\n{{"name": "{SHORT}", "arguments": {{"owner": "me"}}}}\n</tool_call>'
    message = both(stage, asked(step(text)))
    assert [(block["name"], block["input"]) for block in message["content"]] == [(NAME, {"owner": "me"})]
    assert SHORT in names_sent(stage)
    assert NAME not in str(stage.engine.chats[-1].body)


def test_a_refusal_teaches_it(stages: Stages) -> None:
    stage = stages(MODEL, apart="long names")
    stage.refusals = True
    plain = asked(step(call(NAME, owner="me")))
    assert post(stage, plain).json["content"][0]["name"] == NAME
    assert names_sent(stage) == {NAME}
    reply = post(stage, asked(Step(attempts=(refusal(400, REFUSED), step(call(SHORT, owner="me"))))))
    assert reply.headers["x-qiao-healed"] == "long_tool_names"
    assert reply.json["content"][0]["name"] == NAME
    assert names_sent(stage) == {SHORT}
    again = post(stage, asked(step(call(SHORT, owner="me"))))
    assert "x-qiao-healed" not in again.headers
    assert again.json["content"][0]["name"] == NAME
    assert names_sent(stage) == {SHORT}
