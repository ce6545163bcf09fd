"""What the engine's prefix cache needs, seen from outside: what the engine receives for what a client sends."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.fakes.behaviour import Behaviour
from tests.fakes.script import call, marker, step, text_of
from tests.integration.conftest import MODEL, Stage, Stages
from tests.integration.test_gateway_http import post

pytestmark = pytest.mark.timeout(60)


def tool(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "description": f"{name} does it.", "input_schema": {"type": "object"}, **fields}


def request(messages: list[dict[str, Any]], tools: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    session = json.dumps({"session_id": fields.pop("session", "one")})
    return {
        "model": MODEL,
        "max_tokens": 100,
        "system": "You are.",
        "messages": messages,
        "tools": tools,
        "metadata": {"user_id": session},
        **fields,
    }


def grown(key: str) -> list[list[dict[str, Any]]]:
    """The histories of three requests; the model calls a tool twice."""
    first = {"role": "user", "content": f"Go. {marker(step(call('Bash')), step(call('Bash')), 'Done.', key=key)}"}
    history = [[first]]
    for number in (1, 2):
        use = {"type": "tool_use", "id": f"toolu_{number}", "name": "Bash", "input": {}}
        back = {"type": "tool_result", "tool_use_id": f"toolu_{number}", "content": f"out {number}"}
        history.append([*history[-1], {"role": "assistant", "content": [use]}, {"role": "user", "content": [back]}])
    return history


def answered(stage: Stage, body: dict[str, Any]) -> dict[str, Any]:
    """The body that the engine was sent for `body`."""
    reply = post(stage, body)
    assert reply.status == 200, reply.body
    sent: dict[str, Any] = stage.engine.chats[-1].body
    return sent


def names(body: dict[str, Any]) -> list[str]:
    return [each["function"]["name"] for each in body.get("tools", [])]


def test_a_tool_that_comes_late_does_not_change_the_list(stage: Stage) -> None:
    one, two, three = grown("late")
    begun = [tool("Bash"), tool("WaitForMcpServers")]
    first = answered(stage, request(one, begun))
    second = answered(stage, request(two, [*begun, tool("mcp__people__greet")]))
    third = answered(stage, request(three, [tool("Bash"), tool("mcp__people__greet")]))
    assert first["tools"] == second["tools"] == third["tools"]
    assert names(first) == ["Bash", "WaitForMcpServers"]
    written = text_of(second["messages"][-1]["content"])
    assert "mcp__people__greet does it." in written
    assert "WaitForMcpServers" in text_of(third["messages"][-1]["content"])
    prompts = [chat.prompt for chat in stage.engine.chats]
    assert prompts[1].startswith(prompts[0])
    assert prompts[2].startswith(prompts[1])


def test_a_list_that_loses_most_of_its_tools_stays_whole(stage: Stage) -> None:
    one, two, three = grown("lost")
    begun = [tool(name) for name in ("Bash", "Read", "Write", "Grep")]
    first = answered(stage, request(one, begun))
    assert answered(stage, request(two, begun))["tools"] == first["tools"]
    third = answered(stage, request(three, begun[:1]))
    assert third["tools"] == first["tools"]
    assert '"Grep" is no longer available' in text_of(third["messages"][-1]["content"])
    prompts = [chat.prompt for chat in stage.engine.chats]
    assert prompts[2].startswith(prompts[1])


def test_each_conversation_has_its_own_list(stage: Stage) -> None:
    one, two, _ = grown("own")
    answered(stage, request(one, [tool("Bash")], session="a"))
    answered(stage, request(one, [tool("Bash"), tool("Read")], session="b"))
    assert names(answered(stage, request(two, [tool("Bash"), tool("Read")], session="a"))) == ["Bash"]
    assert names(answered(stage, request(two, [tool("Bash"), tool("Read")], session="b"))) == ["Bash", "Read"]


def test_a_gateway_that_saw_no_beginning_takes_the_list_as_it_is(stage: Stage) -> None:
    _, two, three = grown("unseen")
    assert names(answered(stage, request(two, [tool("Bash"), tool("Read")]))) == ["Bash", "Read"]
    assert names(answered(stage, request(three, [tool("Bash"), tool("Read"), tool("Write")]))) == ["Bash", "Read"]


def test_a_forced_late_tool_is_listed_for_that_request_only(stage: Stage) -> None:
    one, two, three = grown("forced")
    late = [tool("Bash"), tool("Late")]
    answered(stage, request(one, [tool("Bash")]))
    forced = answered(stage, request(two, late, tool_choice={"type": "tool", "name": "Late"}))
    assert names(forced) == ["Bash", "Late"]
    assert names(answered(stage, request(three, late))) == ["Bash"]


def test_counting_neither_remembers_nor_differs(stage: Stage) -> None:
    one, two, _ = grown("counted")
    begun, later = [tool("Bash")], [tool("Bash"), tool("Late")]
    counted = {**request(one, later), "max_tokens": None}
    post(stage, {name: value for name, value in counted.items() if value is not None}, "/v1/messages/count_tokens")
    answered(stage, request(one, begun))
    assert names(answered(stage, request(two, later))) == ["Bash"]


THOUGHT = [
    {"type": "thinking", "thinking": "Hm.", "signature": ""},
    {"type": "text", "text": "So."},
]


@pytest.mark.parametrize(
    ("switch", "model", "sent", "kwarg"),
    [
        ([], "qwen3-235b", False, None),
        (["--reasoning-history", "drop"], "qwen3-235b", False, None),
        (["--reasoning-history", "send"], "qwen3-235b", True, None),
        (["--reasoning-history", "keep"], "qwen3.8-27b", True, True),
        ([], "qwen3.8-27b", True, True),
        (["--reasoning-history", "send"], "qwen3.8-27b", True, None),
    ],
)
def test_earlier_reasoning_is_a_switch(
    stages: Stages, switch: list[str], model: str, sent: bool, kwarg: bool | None
) -> None:
    stage = stages(model, *switch, behaviour=Behaviour())
    history = [
        {"role": "user", "content": f"Go. {marker('Done.', 'Done.')}"},
        {"role": "assistant", "content": THOUGHT},
        {"role": "user", "content": "On."},
    ]
    body = answered(stage, {"model": model, "max_tokens": 50, "messages": history})
    assert (body["messages"][1].get("reasoning") == "Hm.") is sent
    assert (body.get("chat_template_kwargs") or {}).get("preserve_thinking") is kwarg


def test_a_salt_parts_the_caches_of_keys(stages: Stages) -> None:
    plain, salted = stages(apart="plain"), stages(MODEL, "--cache-salt", "a secret")
    other = stages(MODEL, "--cache-salt", "another secret")
    bodies = [
        answered(stage, {"model": MODEL, "max_tokens": 50, "messages": grown("salt")[0]})
        for stage in (plain, salted, salted, other)
    ]
    assert "cache_salt" not in bodies[0]
    assert bodies[1]["cache_salt"] == bodies[2]["cache_salt"] != bodies[3]["cache_salt"]
    assert stages(MODEL, "--cache-salt", "a secret").key not in bodies[1]["cache_salt"]
