"""Laws of decoding: garbage yields a Fault, no text is lost, bytes pass through as they are, history only grows."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from qiao.core.anthropic.request import decode, decode_count
from qiao.core.conversation import (
    Conversation,
    Document,
    Image,
    Reasoning,
    ResultPart,
    Text,
    ToolCall,
    ToolReference,
    ToolResult,
)
from qiao.core.fault import Fault
from tests.core.anthropic.conversations import render

GOLDEN = Path(__file__).parents[1] / "golden" / "anthropic_request"
BODIES = [
    path.read_bytes().partition(b"\n----------\n")[0].partition(b"\n")[2] for path in sorted(GOLDEN.glob("*.case"))
]


def parsed(bodies: list[bytes]) -> Iterator[dict[str, Any]]:
    for body in bodies:
        try:
            value = json.loads(body)
        except ValueError:
            continue
        if isinstance(value, dict):
            yield value


REQUESTS = list(parsed(BODIES))

text = st.text(st.characters(codec="utf-8"), max_size=30)
words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=10,
)
names = st.sampled_from(
    [
        *("type", "text", "content", "role", "input", "source", "id", "name", "tools", "system", "thinking", "keep"),
        *("tool_choice", "output_config", "format", "schema", "edits", "messages", "max_tokens", "tool_use_id", "data"),
    ]
)


def check_well_formed(conversation: Conversation) -> None:
    """What every later room may rely on."""
    render(conversation).encode()  # no lone surrogate anywhere
    assert conversation.model
    assert conversation.turns
    assert all(conversation.system)
    for turn in conversation.turns:
        for part in turn.parts:
            allowed = {
                "system": (Text,),
                "user": (Text, Image, Document, ToolResult),
                "assistant": (Text, Reasoning, ToolCall),
            }[turn.role]
            assert isinstance(part, allowed), turn
            if isinstance(part, ToolCall):
                assert isinstance(json.loads(part.arguments), dict)
            if isinstance(part, Image):
                assert (part.data is None) != (part.url is None)
    tool_names = [tool.name for tool in conversation.tools]
    assert len(set(tool_names)) == len(tool_names)
    assert "DeferredToolPlaceholder" not in [tool.name for tool in conversation.tools if tool.deferred]
    for tool in conversation.tools:
        assert isinstance(json.loads(tool.parameters), dict)
    assert conversation.tool_choice.mode == "auto" or conversation.tools
    assert conversation.tool_choice.name is None or conversation.tool_choice.name in tool_names


def outcome(function: Callable[[bytes], Conversation], body: bytes) -> Conversation | Fault:
    """Any exception but a Fault fails the test."""
    try:
        return function(body)
    except Fault as fault:
        return fault


def read(body: bytes) -> None:
    """Both endpoints keep the law."""
    for function in (decode, decode_count):
        result = outcome(function, body)
        if isinstance(result, Fault):
            assert result.kind == "invalid_request"
            assert result.message
        else:
            check_well_formed(result)


@given(st.binary(max_size=200))
def test_any_bytes(body: bytes) -> None:
    read(body)


@given(json_values)
def test_any_json(value: Any) -> None:
    read(json.dumps(value).encode())


@given(st.sampled_from(BODIES), st.data())
def test_damaged_bodies(body: bytes, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(body)))
    end = data.draw(st.integers(start, min(len(body), start + 20)))
    read(body[:start] + data.draw(st.binary(max_size=10)) + body[end:])
    read(body[:start])


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from places(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from places(item, (*path, index))


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    result = copy.copy(value)
    result[path[0]] = replaced(value[path[0]], path[1:], new)
    return result


@settings(max_examples=400)
@given(st.sampled_from(REQUESTS), st.data())
def test_any_value_at_any_place(request: dict[str, Any], data: st.DataObject) -> None:
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(list(places(request))))
        other = data.draw(st.sampled_from(REQUESTS))
        borrowed = st.sampled_from(list(places(other))).map(lambda where, other=other: value_at(other, where))
        new = data.draw(json_values | borrowed | st.dictionaries(names, json_values, max_size=3))
        request = replaced(request, path, new)
        if not isinstance(request, dict):
            break
    read(json.dumps(request).encode())


def value_at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


# No text is lost

text_block = st.builds(lambda t: {"type": "text", "text": t}, words)
result_block = text_block | st.builds(
    lambda t, title: {"type": "document", "title": title, "source": {"type": "text", "data": t}}, words, words
)
user_block = (
    result_block
    | st.builds(
        lambda i, c, e: {"type": "tool_result", "tool_use_id": i, "content": c, "is_error": e},
        words,
        words | st.lists(result_block, max_size=3),
        st.booleans(),
    )
    | st.builds(
        lambda t: {"type": "search_result", "source": "s", "title": "t", "content": [{"type": "text", "text": t}]},
        words,
    )
)
assistant_block = (
    text_block
    | st.builds(lambda t: {"type": "thinking", "thinking": t, "signature": ""}, words)
    | st.builds(
        lambda i, n, v: {"type": "tool_use", "id": i, "name": n, "input": v},
        words,
        words,
        json_values,
    )
    | st.builds(
        lambda v, t: {
            "type": "code_execution_tool_result",
            "content": {"type": "code_execution_result", "stdout": v, "stderr": t, "return_code": 0, "content": []},
        },
        words,
        words,
    )
    | st.builds(
        lambda t: {"type": "mcp_tool_result", "content": [{"type": "text", "text": t}], "is_error": False}, words
    )
)
message = (
    st.builds(lambda c: {"role": "user", "content": c}, words | st.lists(user_block, max_size=4))
    | st.builds(lambda c: {"role": "assistant", "content": c}, words | st.lists(assistant_block, max_size=4))
    | st.builds(lambda c: {"role": "system", "content": c}, words | st.lists(text_block, min_size=1, max_size=3))
)
messages = st.lists(message, min_size=1, max_size=6)


def body_of(history: list[dict[str, Any]], **fields: Any) -> bytes:
    return json.dumps({"model": "m", "max_tokens": 1, "messages": history} | fields, ensure_ascii=False).encode()


def texts_in(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
        return
    for block in content:
        match block["type"]:
            case "text":
                yield block["text"]
            case "thinking":
                yield block["thinking"]
            case "document":
                yield block["source"]["data"]
            case "code_execution_tool_result":
                yield block["content"]["stdout"]
                yield block["content"]["stderr"]
            case "tool_use":
                yield block["name"]
            case _:
                yield from texts_in(block["content"])


def texts_of(parts: tuple[Any, ...]) -> Iterator[str]:
    part: Text | Image | Document | Reasoning | ToolCall | ToolResult | ResultPart
    for part in parts:
        match part:
            case Text(text=words) | Reasoning(text=words):
                yield words
            case ToolCall(name=name):
                yield name
            case ToolResult(parts=inner):
                yield from texts_of(inner)
            case ToolReference(name=name):
                yield name
            case Image() | Document():
                pass


@given(messages)
def test_no_text_is_lost_and_the_order_stays(history: list[dict[str, Any]]) -> None:
    conversation = decode(body_of(history))
    check_well_formed(conversation)
    everything = "\n".join(words for turn in conversation.turns for words in texts_of(turn.parts))
    position = 0
    for turn in history:
        for wanted in texts_in(turn["content"]):
            found = everything.find(wanted, position)
            assert found >= 0, wanted
            position = found + len(wanted)


@given(messages, messages)
def test_history_only_grows(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> None:
    earlier = decode(body_of(before)).turns
    assert decode(body_of(before + after)).turns[: len(earlier)] == earlier


# What passes through keeps its bytes

spaces = st.text(" \n\t\r", max_size=3)


@st.composite
def odd_json(draw: st.DrawFn, depth: int = 0) -> str:
    """JSON text as no serializer of ours would write it."""
    kinds = ["number", "string", "word"] + (["array", "object"] if depth < 3 else [])
    match draw(st.sampled_from(kinds)):
        case "number":
            return draw(st.sampled_from(["0", "-0", "1.50", "1E3", "1e-7", "12345678901234567890", "0.1e+2"]))
        case "string":
            return draw(st.sampled_from(['""', '"a"', '"\\u0041"', '"\\/"', '"é😀"', '"\\ud83d\\ude00"', '"{[\\""']))
        case "array":
            return "[" + ",".join(draw(st.lists(odd_json(depth + 1), max_size=3))) + draw(spaces) + "]"
        case "object":
            return draw(odd_object(depth + 1))
        case _:
            return draw(st.sampled_from(["true", "false", "null"]))


@st.composite
def odd_object(draw: st.DrawFn, depth: int = 0) -> str:
    keys = draw(st.lists(st.sampled_from(['"b"', '"a"', '"\\u0061"', '""', '"é"']), max_size=3))
    members = [f"{draw(spaces)}{key}{draw(spaces)}:{draw(spaces)}{draw(odd_json(depth))}" for key in keys]
    return "{" + ",".join(members) + draw(spaces) + "}"


@given(odd_object(), odd_object(), odd_object())
def test_bytes_pass_through(schema: str, arguments: str, extra: str) -> None:
    call = '{"input":' + arguments + ',"name":"f","type":"tool_use","id":"1"}'
    body = (
        '{"model":"m","max_tokens":1,"messages":[{"content":[' + call + '],"role":"assistant"}],"tools":[{"name":"f",'
        '"input_schema": ' + schema + ' }],"chat_template_kwargs":' + extra + "}"
    )
    conversation = decode(body.encode())
    (part,) = conversation.turns[0].parts
    assert isinstance(part, ToolCall)
    assert part.arguments == arguments
    assert conversation.tools[0].parameters == schema
    assert bytes(conversation.extras["chat_template_kwargs"]).decode() == extra


# JavaScript's strings are sequences of 16-bit units, whole characters or not

unit = st.integers(0, 0xFFFF) | st.integers(0xD7F0, 0xE010) | st.sampled_from([0x5C, 0x22, 0x75, 0xD83D, 0xDE00])


@given(st.lists(unit, max_size=12))
def test_strings_of_javascript(units: list[int]) -> None:
    escaped = "".join(
        f"\\u{number:04x}" if number > 126 or number < 32 else json.dumps(chr(number))[1:-1] for number in units
    )
    exact = b"".join(number.to_bytes(2, "little") for number in units).decode("utf-16-le", "surrogatepass")
    wanted = re.sub("[\ud800-\udfff]", "\ufffd", exact)
    body = '{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"x"}],"system":"' + escaped + '"}'
    assert decode(body.encode()).system == ((wanted,) if wanted else ())
