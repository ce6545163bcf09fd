"""What `qiao up` asks its own gateway before it says that all is well: a text, a stream, a forced call, a count."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec

from qiao.errors import QiaoError
from qiao.upstream.gateway import GatewayClient

_TOOL: dict[str, Any] = {
    "name": "report_sum",
    "description": "Report the sum of two numbers.",
    "input_schema": {
        "type": "object",
        "properties": {"sum": {"type": "integer", "description": "the sum"}},
        "required": ["sum"],
        "additionalProperties": False,
    },
}


class Check(msgspec.Struct, frozen=True):
    """One check and how it went. `problem` None: well. `note`: what was seen."""

    name: str
    seconds: float
    note: str = ""
    problem: str | None = None


class _Wrong(Exception):
    """The answer came, and is not what it has to be."""


async def self_check(gateway: GatewayClient, model: str) -> AsyncIterator[Check]:
    """The checks, each as soon as it is done."""
    question: dict[str, Any] = {
        "model": model,
        "max_tokens": 16,
        "messages": [{"role": "user", "content": "Say hello."}],
    }
    checks: tuple[tuple[str, Callable[[], Awaitable[str]]], ...] = (
        ("text", lambda: _text(gateway, question)),
        ("stream", lambda: _stream(gateway, question)),
        ("tool call", lambda: _tool_call(gateway, model)),
        ("count", lambda: _count(gateway, question)),
    )
    for name, check in checks:
        started = time.monotonic()
        try:
            note, problem = await check(), None
        except (QiaoError, _Wrong) as error:
            note, problem = "", str(error)
        yield Check(name, time.monotonic() - started, note, problem)


async def _text(gateway: GatewayClient, question: dict[str, Any]) -> str:
    return _words(await gateway.message(question))


async def _stream(gateway: GatewayClient, question: dict[str, Any]) -> str:
    return _words(await gateway.stream(question))


async def _tool_call(gateway: GatewayClient, model: str) -> str:
    message = await gateway.message(
        {
            "model": model,
            "max_tokens": 128,
            "messages": [{"role": "user", "content": "What is 2 + 3? Report it."}],
            "tools": [_TOOL],
            "tool_choice": {"type": "tool", "name": _TOOL["name"]},
        }
    )
    calls = [block for block in _blocks(message) if block.get("type") == "tool_use"]
    if len(calls) != 1 or calls[0].get("name") != _TOOL["name"]:
        raise _Wrong(f"the model was made to call {_TOOL['name']} and did not")
    if not isinstance(calls[0].get("input"), dict) or not isinstance(calls[0]["input"].get("sum"), int):
        raise _Wrong(f"the call's input does not fit the tool's schema: {calls[0].get('input')!r}")
    return f"{_TOOL['name']}({calls[0]['input']['sum']})"


async def _count(gateway: GatewayClient, question: dict[str, Any]) -> str:
    tokens = await gateway.count({"model": question["model"], "messages": question["messages"]})
    if tokens <= 0:
        raise _Wrong("a prompt counts as no tokens")
    return f"{tokens} tokens"


def _words(message: dict[str, Any]) -> str:
    kinds = [block.get("type") for block in _blocks(message)]
    text = "".join(str(block.get("text", "")) for block in _blocks(message))
    # A model that reasons may spend the few tokens on that: the chain is proven all the same.
    if not text.strip() and "thinking" not in kinds:
        raise _Wrong("the answer is empty")
    return msgspec.json.encode(text.strip()[:40]).decode() if text.strip() else "reasoning"


def _blocks(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message.get("content")
    return [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []
