"""What is wrong with a request that an engine took: vLLM accepts much that a model cannot make sense of.

Every request of every integration test is held against this, so that a test about one thing also proves the rest.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tests.fakes.script import text_of

MESSAGE_KEYS = {"role", "content", "tool_calls", "tool_call_id", "name", "reasoning", "reasoning_content"}
REQUEST_KEYS = {
    "model", "messages", "tools", "tool_choice", "parallel_tool_calls", "stream", "stream_options", "max_tokens",
    "max_completion_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed", "stop",
    "response_format", "structured_outputs", "reasoning_effort", "thinking_token_budget", "include_reasoning",
    "chat_template_kwargs", "continue_final_message", "add_generation_prompt", "user", "session_id", "request_id",
    "priority", "cache_salt", "vllm_xargs", "n", "skip_special_tokens",
}  # fmt: skip
NEVER_SHOWN = ("DeferredToolPlaceholder", "x-anthropic-billing-header", "cache_control", "defer_loading")


def problems(body: Mapping[str, Any]) -> list[str]:
    """One sentence for everything that should not have been sent; empty for a clean request."""
    return [*_fields(body), *_messages(body), *_tools(body)]


def _fields(body: Mapping[str, Any]) -> Iterator[str]:
    if strange := set(body) - REQUEST_KEYS:
        yield f"fields that no engine knows: {sorted(strange)}"


def _tools(body: Mapping[str, Any]) -> Iterator[str]:
    names = [tool["function"]["name"] for tool in body.get("tools") or ()]
    if len(set(names)) < len(names):
        yield "two tools have the same name"
    for tool in body.get("tools") or ():
        if set(tool) != {"type", "function"}:
            yield f"tool {tool['function'].get('name')} has fields {sorted(tool)}"
        shown = json.dumps(tool)
        for word in NEVER_SHOWN:
            if word in shown:
                yield f"tool {tool['function']['name']} shows {word}"


def _messages(body: Mapping[str, Any]) -> Iterator[str]:
    waiting: list[str] = []
    known: set[str] = set()
    for number, message in enumerate(body["messages"]):
        where = f"messages.{number}"
        if strange := set(message) - MESSAGE_KEYS:
            yield f"{where}: fields that no engine knows: {sorted(strange)}"
        role = message.get("role")
        if role not in ("system", "user", "assistant", "tool"):
            yield f"{where}: role {role!r}"
        if role in ("system", "user") and message.get("content") in ("", []):
            yield f"{where}: an empty {role} message"
        if role == "system":
            for word in NEVER_SHOWN[:2]:
                if word in text_of(message.get("content")):
                    yield f"{where}: shows {word}"
        if role == "tool":
            answered = message.get("tool_call_id")
            if answered in waiting:
                waiting.remove(answered)
            else:
                yield f"{where}: a result for {answered!r}, which nobody waits for"
            continue
        if waiting:
            yield f"{where}: comes before the results of {waiting}"
        waiting = []
        for call in message.get("tool_calls") or ():
            if call["id"] in known:
                yield f"{where}: call id {call['id']!r} is used twice"
            known.add(call["id"])
            waiting.append(call["id"])
            if not _is_object(call["function"]["arguments"]):
                yield f"{where}: arguments of {call['function']['name']} are no JSON object"
    if waiting:
        yield f"the conversation ends before the results of {waiting}"


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False
