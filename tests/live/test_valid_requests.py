"""The drawn requests are worth asking: nothing that the API has is missing from them, and none is refused unread."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

from anthropic.types import beta as sdk

from qiao.core.anthropic import request
from qiao.core.anthropic.request import decode
from qiao.core.body import EXTRAS
from tests.core.anthropic.test_request_conformance import IGNORED, REFUSED, members, type_strings
from tests.live.valid_requests import BUILTIN, Json, collect, requests, showcase

NOT_ASKED = {"container_upload": "refused: there are no containers here", "tool_removal": "the same as an addition"}
ALWAYS_REFUSED = {"compaction", "thread"}


@cache
def drawn() -> list[Json]:
    return [*showcase(), *collect(200, 20, requests())]


def types_in(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("type"), str):
            yield value["type"]
        for inner in value.values():
            yield from types_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from types_in(inner)


def test_every_block_is_asked() -> None:
    known = {name for shape in members(sdk.BetaContentBlockParam) for name in type_strings(shape)}
    found = {name for body in drawn() for name in types_in(body["messages"])}
    assert known - found == set(NOT_ASKED) & known
    assert {"tool_reference", "browser_state", "tool_addition"} <= found


def test_every_field_is_asked() -> None:
    found = {name for body in drawn() for name in body}
    assert (request.READ | REFUSED | set(IGNORED)) - found == ALWAYS_REFUSED
    assert "a_field_of_tomorrow" in found - EXTRAS


def test_every_tool_and_choice_is_asked() -> None:
    tools = {tool.get("type") or "custom" for body in drawn() for tool in body.get("tools", ())}
    assert {tool["type"] for tool in BUILTIN} | {"custom"} <= tools
    assert {body["tool_choice"]["type"] for body in drawn() if "tool_choice" in body} == {"auto", "any", "tool", "none"}
    assert {body["thinking"]["type"] for body in drawn() if "thinking" in body} == {
        *("enabled", "adaptive", "between_tools", "disabled")
    }


def test_none_is_refused_before_it_is_sent() -> None:
    for body in drawn():
        decode(json.dumps(body).encode())
