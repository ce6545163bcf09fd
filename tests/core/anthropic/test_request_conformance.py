"""The official SDK's types are the list of what exists: a new release that knows more makes these tests fail."""

from __future__ import annotations

import json
import typing
from collections.abc import Iterator
from typing import Any

import pytest
from anthropic.types import beta as sdk
from anthropic.types.beta import message_count_tokens_params, message_create_params

from qiao.core.anthropic import options, request, wire
from qiao.core.anthropic.request import decode, decode_count
from qiao.core.fault import Fault

HEADERS = {"betas", "user_profile_id", "workspace_id"}

IGNORED = {
    "cache_control": "the engine caches by itself",
    "diagnostics": "the answer says null",
    "fallback_credit_token": "nothing to pay for",
    "fallbacks": "nothing to fall back to",
    "service_tier": "one tier only",
    "speed": "one speed only",
    "safeguards": "Claude Code's, in no type of the SDK",
}
REFUSED = {"billing_policy", "compaction", "container", "inference_geo", "mcp_servers", "thread"}


def members(union: Any) -> list[Any]:
    """The TypedDicts of a union of parameters."""
    parts = [part for arm in typing.get_args(union) for part in (typing.get_args(arm) or (arm,))]
    return [part for part in parts if hasattr(part, "__required_keys__")]


def type_strings(shape: Any) -> set[str]:
    return set(literals(typing.get_type_hints(shape)["type"]))


def literals(hint: Any) -> Iterator[str]:
    """The strings of a `Literal`, wherever it stands in `hint`."""
    for arm in typing.get_args(hint):
        if isinstance(arm, str):
            yield arm
        else:
            yield from literals(arm)


def tags(union: Any) -> set[str]:
    return {str(arm.__struct_config__.tag) for arm in typing.get_args(union)}


def message_of(body: bytes) -> str:
    """What a refusal says; nothing if there is none."""
    try:
        decode(body)
    except Fault as fault:
        return fault.message
    return ""


def test_every_content_block_is_known() -> None:
    known = {name for shape in members(sdk.BetaContentBlockParam) for name in type_strings(shape)}
    assert len(known) >= 24
    assert tags(wire.ContentBlock) == known


def test_every_block_of_a_tool_result_is_known() -> None:
    content = typing.get_type_hints(sdk.BetaToolResultBlockParam)["content"]
    (blocks,) = [typing.get_args(arm)[0] for arm in typing.get_args(content) if arm is not str]
    assert tags(wire.ResultBlock) == {name for shape in members(blocks) for name in type_strings(shape)}


@pytest.mark.parametrize("params", [message_create_params, message_count_tokens_params], ids=["create", "count"])
def test_every_field_is_read_refused_or_ignored_on_purpose(params: Any) -> None:
    shape = params.MessageCountTokensParams if hasattr(params, "MessageCountTokensParams") else None
    shape = shape or params.MessageCreateParamsBase
    known = request.READ | REFUSED | set(IGNORED) | HEADERS
    assert set(shape.__annotations__) - known == set()


def test_every_tool_kind_is_known() -> None:
    kinds = {name for shape in members(sdk.BetaToolUnionParam) for name in type_strings(shape)}
    assert len(kinds) >= 28
    for kind in kinds:
        tool = {"type": kind, "name": "f", "display_width_px": 800, "display_height_px": 600, "mcp_server_name": "s"}
        tool |= {"input_schema": {"type": "object"}} if kind == "custom" else {}
        body = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}], "tools": [tool]}
        assert "unknown tool type" not in message_of(json.dumps(body).encode()), kind


def test_every_tool_we_describe_has_a_valid_schema() -> None:
    for kind in sorted({name for shape in members(sdk.BetaToolUnionParam) for name in type_strings(shape)}):
        tool = {"type": kind, "display_width_px": 800, "display_height_px": 600, "enable_zoom": True}
        body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "tools": [tool]}
        try:
            (described,) = decode_count(json.dumps(body).encode()).tools or (None,)
        except Fault:
            continue
        if described is None:
            continue
        schema = json.loads(described.parameters)
        assert schema["type"] == "object"
        assert set(schema.get("required", ())) <= set(schema["properties"])
        assert described.builtin == kind
        assert described.description


def test_every_effort_is_known() -> None:
    efforts = set(literals(typing.get_type_hints(sdk.BetaOutputConfigParam)["effort"]))
    assert len(efforts) >= 5
    assert efforts <= options.EFFORTS
