"""The least that a session can cost: the prompts of a gateway that knew the end of the conversation from the beginning.

Written without anything of qiao's, so that a mistake there shows. All requests of a conversation are cut out of its
last one: the tools are those of the first request, everything else stands where it was said. Only the chat template may
then change what was there before, by taking old reasoning out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

Body = dict[str, Any]
History = Literal["drop", "send", "keep"]

KEEP = {"chat_template_kwargs": {"preserve_thinking": True}}
"""What a request says to a template that can keep the reasoning of all turns, as those of Qwen3.6 and 3.8 can."""


def ideal(requests: Sequence[Body], history: History) -> list[Body]:
    """OpenAI bodies for the Anthropic requests of one conversation."""
    last = requests[-1]
    listed = [tool for tool in requests[0]["tools"] if not tool.get("defer_loading")]
    known = {tool["name"]: tool for tool in last["tools"]}
    system = "\n\n".join(
        block["text"] for block in last["system"] if not block["text"].startswith("x-anthropic-billing-header")
    )
    written = [converted(message, known, listed, history) for message in last["messages"]]
    bodies = []
    for request in requests:
        turns = [turn for group in written[: len(request["messages"])] for turn in group]
        bodies.append(
            {
                "model": last["model"],
                "messages": [{"role": "system", "content": system}, *turns],
                "tools": [function(tool) for tool in listed],
                **(KEEP if history == "keep" else {}),
            }
        )
    return bodies


def converted(message: Body, known: Mapping[str, Body], listed: Sequence[Body], history: History) -> list[Body]:
    content = message["content"]
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    texts = [block["text"] for block in blocks if block["type"] == "text"]
    if message["role"] == "assistant":
        thoughts = "".join(block["thinking"] for block in blocks if block["type"] == "thinking")
        calls = [
            {
                "id": block["id"],
                "type": "function",
                "function": {"name": block["name"], "arguments": json.dumps(block["input"], ensure_ascii=False)},
            }
            for block in blocks
            if block["type"] == "tool_use"
        ]
        turn: Body = {"role": "assistant", "content": "".join(texts)}
        if calls:
            turn["tool_calls"] = calls
        if thoughts and history != "drop":
            turn["reasoning"] = thoughts
        return [turn]
    results = [block for block in blocks if block["type"] == "tool_result"]
    if not results:
        return [{"role": message["role"], "content": "\n\n".join(text for text in texts if text)}]
    turns = [
        {
            "role": "tool",
            "tool_call_id": result["tool_use_id"],
            "content": ("Error: " if result.get("is_error") else "") + words(result, known, listed),
        }
        for result in results
    ]
    turns[-1]["content"] = "\n\n".join([turns[-1]["content"], *texts])
    return turns


def words(result: Body, known: Mapping[str, Body], listed: Sequence[Body]) -> str:
    content = result.get("content") or "(no output)"
    if isinstance(content, str):
        return content
    parts = []
    for block in content:
        if block["type"] == "text":
            parts.append(block["text"])
        elif block["type"] == "tool_reference":
            tool = known[block["tool_name"]]
            parts.append(json.dumps(tool["name"] if tool in listed else function(tool), ensure_ascii=False))
    return "\n\n".join(parts)


def function(tool: Body) -> Body:
    shown = {"name": tool["name"], "description": tool.get("description", ""), "parameters": tool["input_schema"]}
    return {"type": "function", "function": shown}
