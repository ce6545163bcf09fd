"""`thinking: enabled` with a budget. vLLM takes a budget only with a reasoning parser; without one it refuses, and a
stream is refused after its head (measured on 0.32.0): as a 400 before the stream for a whole answer, as the first event
for a streamed one.
"""

from __future__ import annotations

import http.client
import json
from typing import Any

import pytest

from tests.live.conftest import BARE, Stages
from tests.live.stage import Stage, text_of
from tests.live.vllm.script import marker, said
from tests.live.vllm.server import NAME, Server

THINKING = {"type": "enabled", "budget_tokens": 1024}
PROMPT = "Say it. " + marker(said("Yes.", think="Hm."))


def answered_by(server: Server, body: dict[str, Any]) -> tuple[int, bytes]:
    """What the engine itself says."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    try:
        whole = {"model": NAME, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4, **body}
        connection.request("POST", "/v1/chat/completions", json.dumps(whole), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_with_a_reasoning_parser_it_is_taken(stage: Stage) -> None:
    message = stage.both(PROMPT, thinking=THINKING, max_tokens=2000)
    assert [block["type"] for block in message["content"]] == ["thinking", "text"]
    assert [chat.asked["thinking_token_budget"] for chat in stage.chats()] == [1024, 1024]
    assert [chat.status for chat in stage.chats()] == [200, 200]


def test_how_the_engine_refuses_without_one(bare: Stage) -> None:
    """What the next test stands on; a vLLM that does otherwise makes this fail."""
    status, whole = answered_by(bare.server, {"thinking_token_budget": 1024})
    assert status == 400
    assert b"thinking_token_budget is set but reasoning_config is not configured" in whole
    status, streamed = answered_by(bare.server, {"thinking_token_budget": 1024, "stream": True})
    assert status == 200
    assert streamed.startswith(b'data: {"error": {"message": "thinking_token_budget is set but reasoning_config')


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_without_one_it_is_left_out(stages: Stages, stream: bool) -> None:
    bare = stages(BARE, apart=f"budget, {stream}")
    for _ in range(2):
        fields: dict[str, Any] = {"thinking": THINKING, "max_tokens": 2000}
        message = bare.stream(PROMPT, **fields).message if stream else bare.whole(PROMPT, **fields)
        assert text_of(message).endswith("Yes.")
    # Connection by connection, so not always in the order in which they were asked.
    assert sorted("thinking_token_budget" in chat.asked for chat in bare.chats()) == [False, False, True]
    healed = [found.headers.get("x-qiao-healed") for found in bare.tap.exchanges]
    assert healed == ["thinking_budget", None]
