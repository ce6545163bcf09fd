"""Laws of OpenAI clients: garbage yields a Fault, nothing is lost, history only grows, and it does not matter through
which protocol a conversation comes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from qiao.core.anthropic.request import decode as decode_anthropic
from qiao.core.conversation import Conversation, Document, Image, Reasoning, Text, ToolCall, ToolResult
from qiao.core.exchange import Exchange
from qiao.core.fault import Fault
from qiao.core.openai import answer as openai_answer
from qiao.core.openai import errors
from qiao.core.openai import request as openai_request
from qiao.core.openai.answer import Frame
from qiao.core.openai.decode import Request, decode
from qiao.core.openai.encode_stream import Encoder
from qiao.core.openai.grammar import check
from qiao.core.openai.stream import Decoder
from qiao.core.openai.target import Target
from qiao.policies import prepare
from qiao.profiles import find
from tests.core.anthropic.conversations import render
from tests.fuzz.laws import cut
from tests.properties.test_anthropic_request import json_values, odd_object, parsed, places, replaced, value_at, words
from tests.properties.test_core_stream import chunks_of, scripts

GOLDEN = Path(__file__).parents[1] / "golden" / "openai_ingress"
BODIES = [
    path.read_bytes().partition(b"\n----------\n")[0].partition(b"\n")[2] for path in sorted(GOLDEN.glob("*.case"))
]
REQUESTS = list(parsed(BODIES))
FRAME = Frame("chatcmpl-1", "m", 1_760_000_000, usage_in_stream=True)
FREE = Frame("chatcmpl-1", "m", 1_760_000_000, usage_in_stream=True, free_text={"f0": "function", "f1": "custom"})
TARGET = Target("m")
PROFILE = find("Qwen/Qwen3-235B-A22B-Instruct-2507")
TOOL = {"name": "f", "description": "d", "input_schema": {"type": "object"}}
PNG = "iVBORw0KGgo="

cuts = st.lists(st.integers(0, 10**6), max_size=8)
names = st.sampled_from(
    [
        *(
            "type",
            "text",
            "content",
            "role",
            "arguments",
            "function",
            "id",
            "name",
            "tools",
            "image_url",
            "file",
            "url",
        ),
        *("tool_choice", "response_format", "json_schema", "schema", "messages", "max_tokens", "tool_calls", "stop"),
    ]
)


# Garbage


def check_well_formed(conversation: Conversation) -> None:
    """What every later room may rely on."""
    render(conversation).encode()  # no lone surrogate anywhere
    assert conversation.model
    assert all(conversation.system)
    for turn in conversation.turns:
        allowed = {
            "system": (Text,),
            "user": (Text, Image, Document, ToolResult, Reasoning),
            "assistant": (Text, Reasoning, ToolCall),
        }[turn.role]
        for part in turn.parts:
            assert isinstance(part, allowed), turn
            if isinstance(part, ToolCall):
                assert isinstance(json.loads(part.arguments), dict)
            if isinstance(part, Image):
                assert (part.data is None) != (part.url is None)
    tool_names = [tool.name for tool in conversation.tools]
    assert len(set(tool_names)) == len(tool_names)
    for tool in conversation.tools:
        assert isinstance(json.loads(tool.parameters), dict)
    assert conversation.tool_choice.mode == "auto" or conversation.tools
    assert conversation.tool_choice.name is None or conversation.tool_choice.name in tool_names
    assert conversation.max_tokens is None or conversation.max_tokens > 0
    openai_request.encode(prepare(conversation, PROFILE, target=TARGET).conversation, TARGET)


def read(body: bytes) -> None:
    """Any exception but a Fault fails the test."""
    result: Request | Fault
    try:
        result = decode(body)
    except Fault as fault:
        result = fault
    if isinstance(result, Request):
        check_well_formed(result.conversation)
    else:
        assert result.kind == "invalid_request"
        error = json.loads(errors.body(result))["error"]
        assert error["message"]


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


@given(odd_object(), odd_object(), odd_object())
def test_bytes_pass_through(schema: str, arguments: str, extra: str) -> None:
    call = '{"function":{"arguments":' + json.dumps(arguments) + ',"name":"f"},"id":"1"}'
    body = (
        '{"model":"m","messages":[{"tool_calls":[' + call + '],"role":"assistant"}],"tools":[{"function":{"name":"f",'
        '"parameters": ' + schema + ' }}],"chat_template_kwargs":' + extra + "}"
    )
    conversation = decode(body.encode()).conversation
    (part,) = conversation.turns[0].parts
    assert isinstance(part, ToolCall)
    assert part.arguments == arguments.strip()
    assert conversation.tools[0].parameters == schema
    assert bytes(conversation.extras["chat_template_kwargs"]).decode() == extra


# Conversations, told in both protocols


@st.composite
def conversations(draw: st.DrawFn, start: int = 0) -> list[tuple[str, Any]]:
    """Exchanges of (what a person or the system says, what the model said and the results of its calls)."""
    told: list[tuple[str, Any]] = []
    for number in range(draw(st.integers(1, 3))):
        told.append(("user", draw(st.lists(words, min_size=1, max_size=2))))
        if draw(st.booleans()):
            told.append(("picture", None))
        if draw(st.booleans()):
            told.append(("system", draw(words)))
        calls = [
            (f"call_{start}_{number}_{index}", value, draw(words))
            for index, value in enumerate(draw(st.lists(st.dictionaries(words, json_values, max_size=2), max_size=2)))
        ]
        said = draw(st.none() | words)
        told.append(("assistant", (draw(st.none() | words), said if said or calls else "Yes.", calls)))
    told.append(("user", draw(st.lists(words, min_size=1, max_size=2))))
    return told


def told_to_openai(told: list[tuple[str, Any]]) -> Iterator[dict[str, Any]]:
    for kind, value in told:
        match kind:
            case "user":
                yield {"role": "user", "content": [{"type": "text", "text": text} for text in value]}
            case "picture":
                picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
                yield {"role": "user", "content": [picture]}
            case "system":
                yield {"role": "system", "content": value}
            case _:
                reasoning, said, calls = value
                message: dict[str, Any] = {"role": "assistant", "content": said}
                if reasoning:
                    message |= {"reasoning_content": reasoning, "reasoning": reasoning}
                if calls:
                    message["tool_calls"] = [
                        {"id": name, "type": "function", "function": {"name": "f", "arguments": json.dumps(arguments)}}
                        for name, arguments, _ in calls
                    ]
                yield message
                for name, _, result in calls:
                    yield {"role": "tool", "tool_call_id": name, "content": result}


def told_to_anthropic(told: list[tuple[str, Any]]) -> Iterator[dict[str, Any]]:
    for kind, value in told:
        match kind:
            case "user":
                yield {"role": "user", "content": [{"type": "text", "text": text} for text in value]}
            case "picture":
                source = {"type": "base64", "media_type": "image/png", "data": PNG}
                yield {"role": "user", "content": [{"type": "image", "source": source}]}
            case "system":
                yield {"role": "system", "content": value}
            case _:
                reasoning, said, calls = value
                blocks: list[dict[str, Any]] = []
                if reasoning:
                    blocks.append({"type": "thinking", "thinking": reasoning, "signature": ""})
                if said:
                    blocks.append({"type": "text", "text": said})
                blocks += [
                    {"type": "tool_use", "id": name, "name": "f", "input": arguments} for name, arguments, _ in calls
                ]
                yield {"role": "assistant", "content": blocks}
                if calls:
                    results = [
                        {"type": "tool_result", "tool_use_id": name, "content": result} for name, _, result in calls
                    ]
                    yield {"role": "user", "content": results}


def openai_body(told: list[tuple[str, Any]], **fields: Any) -> bytes:
    head = [{"role": "system", "content": "Be kind."}, {"role": "developer", "content": "Be brief."}]
    tool = {"name": TOOL["name"], "description": TOOL["description"], "parameters": TOOL["input_schema"]}
    tools = [{"type": "function", "function": tool}]
    body = {"model": "m", "messages": [*head, *told_to_openai(told)], "tools": tools, "max_tokens": 500}
    return json.dumps(body | fields).encode()


def anthropic_body(told: list[tuple[str, Any]], **fields: Any) -> bytes:
    head = [{"type": "text", "text": "Be kind."}, {"type": "text", "text": "Be brief."}]
    body = {"model": "m", "system": head, "messages": list(told_to_anthropic(told)), "tools": [TOOL], "max_tokens": 500}
    return json.dumps(body | fields).encode()


def sent(conversation: Conversation) -> bytes:
    return openai_request.encode(prepare(conversation, PROFILE, target=TARGET, window=32_768).conversation, TARGET)


OPTIONS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"stream": True}, {"stream": True}),
    ({"stop": ["A", "B"]}, {"stop_sequences": ["A", "B"]}),
    ({"tool_choice": "required", "parallel_tool_calls": False},
     {"tool_choice": {"type": "any", "disable_parallel_tool_use": True}}),
    ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, {"tool_choice": {"type": "tool", "name": "f"}}),
    ({"temperature": 0.5, "top_p": 0.9, "top_k": 5, "seed": 3}, {"temperature": 0.5, "top_p": 0.9, "top_k": 5,
                                                                 "seed": 3}),
    ({"reasoning_effort": "none"}, {"thinking": {"type": "disabled"}}),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}},
     {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}}),
]  # fmt: skip


@settings(deadline=None)
@given(conversations(), st.sampled_from(OPTIONS))
def test_the_engine_cannot_tell_the_protocols_apart(
    told: list[tuple[str, Any]], options: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    through_openai = decode(openai_body(told, **options[0])).conversation
    through_anthropic = decode_anthropic(anthropic_body(told, **options[1]))
    assert sent(through_openai) == sent(through_anthropic)


@settings(deadline=None)
@given(conversations(), conversations(start=1))
def test_the_next_prompt_begins_with_this_one(before: list[tuple[str, Any]], after: list[tuple[str, Any]]) -> None:
    earlier = json.loads(sent(decode(openai_body(before)).conversation))["messages"]
    reply = ("assistant", ("Hm.", "Well.", [("call_between", {}, "done")]))
    later = json.loads(sent(decode(openai_body([*before, reply, *after])).conversation))["messages"]
    assert later[: len(earlier)] == earlier


@settings(deadline=None)
@given(conversations())
def test_no_text_is_lost_and_the_order_stays(told: list[tuple[str, Any]]) -> None:
    conversation = decode(openai_body(told)).conversation
    check_well_formed(conversation)
    found = [words for turn in conversation.turns for words in texts_of(turn.parts)]
    wanted: list[str] = []
    for kind, value in told:
        match kind:
            case "user":
                wanted += value
            case "system":
                wanted.append(value)
            case "assistant":
                reasoning, said, calls = value
                wanted += [text for text in (reasoning, said) if text]
                wanted += [json.dumps(arguments) for _, arguments, _ in calls] + [result for *_, result in calls]
    assert found == wanted


def texts_of(parts: tuple[Any, ...]) -> Iterator[str]:
    for part in parts:
        match part:
            case Text(text=text) | Reasoning(text=text):
                yield text
            case ToolCall(arguments=text):
                yield text
            case ToolResult(parts=inner):
                yield from texts_of(inner)


# Answers


def essence(completion: dict[str, Any]) -> dict[str, Any]:
    """What a client has in hand at the end, streamed or not."""
    message = completion["message"]
    return {
        "content": message.get("content") or "",
        "reasoning": message.get("reasoning_content"),
        "same": message.get("reasoning"),
        "calls": message.get("tool_calls"),
        "finish": completion["finish_reason"],
        "stop": completion["stop_reason"],
        "usage": completion["usage"],
    }


def run(pieces: list[bytes], *, stream: bool, frame: Frame = FRAME) -> dict[str, Any]:
    exchange = Exchange(Decoder(), Encoder(frame) if stream else None, id_prefix="call_1")
    out = b"".join([exchange.receive(piece) for piece in pieces]) + exchange.eof()
    if stream:
        checker = check(out, usage=True, free_text=frame.free_text)
        return essence(
            {
                "message": checker.message,
                "finish_reason": checker.finish_reason,
                "stop_reason": checker.stop_reason,
                "usage": checker.usage,
            }
        )
    answer = exchange.answer()
    assert answer.fault is None
    completion = json.loads(openai_answer.encode(answer, frame))
    return essence({**completion["choices"][0], "usage": completion["usage"]})


@given(scripts(), cuts, cuts)
@settings(max_examples=200, deadline=None)
def test_any_cut_gives_the_same_answer_and_stream_equals_whole(
    script: list[tuple[str, Any]], argument_cuts: list[int], byte_cuts: list[int]
) -> None:
    whole = run([chunks_of(script, [])], stream=False)
    assert run(cut(chunks_of(script, argument_cuts), byte_cuts), stream=True) == whole


@given(scripts(), cuts, cuts, words)
@settings(max_examples=200, deadline=None)
def test_free_text_comes_whole_however_it_was_cut(
    script: list[tuple[str, Any]], argument_cuts: list[int], byte_cuts: list[int], patch: str
) -> None:
    script = [("call", {"input": patch}), *script]
    whole = run([chunks_of(script, [])], stream=False, frame=FREE)
    assert run(cut(chunks_of(script, argument_cuts), byte_cuts), stream=True, frame=FREE) == whole
    assert whole["calls"][0]["function"] == {"name": "f0", "arguments": patch}


@given(scripts(), cuts)
@settings(max_examples=200, deadline=None)
def test_what_we_write_we_can_read(script: list[tuple[str, Any]], byte_cuts: list[int]) -> None:
    """One gateway behind another: the answer is the same as behind one."""
    first = Exchange(Decoder(), Encoder(FRAME), id_prefix="call_1")
    data = chunks_of(script, [])
    streamed = first.receive(data) + first.eof()
    assert run(cut(streamed, byte_cuts), stream=True) == run([data], stream=True)
    folding = Exchange(Decoder(), None, id_prefix="call_1")
    folding.receive(data)
    folding.eof()
    body = openai_answer.encode(folding.answer(), FRAME)
    again = Exchange(Decoder(whole=True), None, id_prefix="call_1")
    again.receive(body)
    again.eof()
    ours = json.loads(openai_answer.encode(again.answer(), FRAME))
    kept = [choice["message"] for choice in (json.loads(body)["choices"][0], ours["choices"][0])]
    assert kept[0].get("tool_calls") == kept[1].get("tool_calls")
    assert kept[0].get("reasoning") == kept[1].get("reasoning")
    assert (kept[0]["content"] or "").strip() == (kept[1]["content"] or "").strip()


@given(st.binary(max_size=300), st.booleans())
@settings(max_examples=300, deadline=None)
def test_garbage_from_the_engine_is_a_fault(data: bytes, whole: bool) -> None:
    exchange = Exchange(Decoder(whole=whole), Encoder(FRAME), id_prefix="call_1")
    out = exchange.receive(data) + exchange.eof()
    assert exchange.facts.fault is not None or exchange.facts.finish is not None
    checker = check(out)
    assert (checker.error is not None) == (exchange.facts.fault is not None)


@given(st.text(max_size=40), st.sampled_from(["invalid_request", "not_found", "api", "overloaded"]))
def test_every_fault_is_an_error_object(message: str, kind: Any) -> None:
    error = json.loads(errors.body(Fault(kind, message)))["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert 400 <= errors.status(Fault(kind, message)) < 600
