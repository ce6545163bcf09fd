"""What we send out comes back as it was: ids of engines that Anthropic's rules forbid, sealed reasoning."""

from __future__ import annotations

import json
import re

from hypothesis import given
from hypothesis import strategies as st

from qiao.core.anthropic.ids import from_client, to_client
from qiao.core.anthropic.request import decode
from qiao.core.anthropic.signature import seal, unseal
from qiao.core.conversation import Reasoning, ToolCall, ToolResult


@given(st.text())
def test_any_id_survives_the_way_to_the_client_and_back(call_id: str) -> None:
    shown = to_client(call_id)
    assert from_client(shown) == call_id
    assert call_id == "" or re.fullmatch(r"[A-Za-z0-9_-]+", shown)


@given(st.text(alphabet=st.characters(exclude_categories=("Cs",))))
def test_sealed_reasoning_opens_again(reasoning: str) -> None:
    assert unseal(seal(reasoning)) == reasoning


def test_a_request_gives_the_engine_its_own_ids_and_reasoning_back() -> None:
    call_id = to_client("functions.read:0")
    body = {
        "model": "m",
        "max_tokens": 5,
        "messages": [
            {"role": "user", "content": "x"},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "", "signature": seal("because")},
                    {"type": "tool_use", "id": call_id, "name": "read", "input": {}},
                ],
            },
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call_id, "content": "y"}]},
        ],
    }
    turns = decode(json.dumps(body).encode()).turns
    parts = [part for turn in turns for part in turn.parts]
    assert [part.text for part in parts if isinstance(part, Reasoning)] == ["because"]
    assert [part.id for part in parts if isinstance(part, ToolCall)] == ["functions.read:0"]
    assert [part.call_id for part in parts if isinstance(part, ToolResult)] == ["functions.read:0"]
