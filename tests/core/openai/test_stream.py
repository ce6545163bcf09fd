"""Chunks of an engine as events, where no recorded stream shows it."""

from __future__ import annotations

import json
from typing import Any

from qiao.core.events import Event, Finished, ToolArgumentsAdded, ToolCallStarted
from qiao.core.openai.stream import Decoder


def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
    return f"data: {json.dumps({'choices': [{'index': 0, 'delta': delta, 'finish_reason': finish}]})}\n\n".encode()


def test_arguments_before_the_name_are_kept_also_where_the_name_comes_with_none() -> None:
    decoder = Decoder()
    events: list[Event] = []
    for call in (
        {"index": 0, "function": {"arguments": '{"a":1}'}},
        {"index": 0, "id": "c", "function": {"name": "f", "arguments": ""}},
    ):
        events += decoder.feed(chunk({"tool_calls": [call]}))
    events += decoder.feed(chunk({}, "tool_calls")) + decoder.close()
    assert events == [ToolCallStarted(0, "c", "f"), ToolArgumentsAdded(0, '{"a":1}'), Finished("tool_calls")]
