"""Decoding of requests, beyond the golden cases: limits, hostile bytes, what is kept of the client's bytes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from qiao.core.anthropic.request import _known_frame, decode, decode_count
from qiao.core.body import EXTRAS, MAX_DROPPED, MAX_NAME
from qiao.core.conversation import Conversation, Reasoning, Text, Thinking, ToolCall
from qiao.core.fault import Fault
from qiao.core.json_text import MAX_DEPTH, UNREADABLE_KEY, mend_surrogates


def request(**fields: Any) -> bytes:
    base = {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "Hello"}]}
    return json.dumps(base | fields).encode()


def raw_request(field: str) -> bytes:
    return b'{"model":"m","max_tokens":5,"messages":[{"role":"user","content":"Hello"}],' + field.encode() + b"}"


def call_with(arguments: str) -> bytes:
    message = '{"role":"assistant","content":[{"type":"tool_use","id":"1","name":"f","input":' + arguments + "}]}"
    return ('{"model":"m","max_tokens":5,"messages":[' + message + "]}").encode()


def arguments_of(conversation: Conversation) -> str:
    part = conversation.turns[0].parts[0]
    assert isinstance(part, ToolCall)
    return part.arguments


HOSTILE = {
    "empty": b"",
    "white_space": b" \n\t ",
    "mark_only": b"\xef\xbb\xbf",
    "mark_twice": b"\xef\xbb\xbf\xef\xbb\xbf{}",
    "utf16": '{"model":"m"}'.encode("utf-16"),
    "null": b"null",
    "number": b"12",
    "huge_number": b"9" * 10_000,
    "string": b'"hello"',
    "lone_surrogate_at_the_end": b'"\\ud800',
    "array": b"[]",
    "arrays_unclosed": b"[" * 100_000,
    "arrays_closed": b"[" * 100_000 + b"]" * 100_000,
    "objects_unclosed": b'{"a":' * 100_000,
    "deep_field": raw_request('"x":' + "[" * 1_000_000 + "]" * 1_000_000),
    "deep_schema": raw_request('"tools":[{"name":"f","input_schema":' + '{"a":' * 5000 + "1" + "}" * 5001 + "]"),
    "deep_extra": raw_request('"chat_template_kwargs":' + '{"a":' * 300 + "1" + "}" * 300),
    "deep_example": raw_request(
        '"tools":[{"name":"f","input_schema":{},"input_examples":[' + "[" * 300 + "]" * 300 + "]}]"
    ),
    "deep_input": call_with('{"a":' * 300 + "1" + "}" * 300),
    "nan": raw_request('"temperature":NaN'),
    "infinity": raw_request('"temperature":1e999'),
    "huge_integer": raw_request('"top_k":' + "9" * 5000),
    "surrogate_in_utf8": raw_request('"system":"x"').replace(b"x", b"\xed\xa0\x80"),
    "utf8_in_text": raw_request('"system":"x"').replace(b'"x"', b'"\xff"'),
    "utf8_in_schema": raw_request('"tools":[{"name":"f","input_schema":{"a":"?"}}]').replace(b"?", b"\xff"),
    "utf8_in_extra": raw_request('"cache_salt":"?"').replace(b"?", b"\xff"),
    "utf8_in_input": call_with('{"a":"?"}').replace(b"?", b"\xff"),
    "utf8_in_key": b'{"\xff":1}',
    "nul": b"\x00",
    "control_character": raw_request('"system":"a\nb"'),
    "bad_escape": raw_request('"system":"\\q"'),
    "long_tag": raw_request('"system":[{"type":"' + "x" * 1_000_000 + '"}]'),
    "numeric_tag": raw_request('"system":[{"type":5}]'),
    "trailing": raw_request('"system":"x"') + b"{}",
}


@pytest.mark.parametrize("read", [decode, decode_count])
@pytest.mark.parametrize("name", HOSTILE)
def test_garbage_is_a_fault(name: str, read: Callable[[bytes], Conversation]) -> None:
    with pytest.raises(Fault) as caught:
        read(HOSTILE[name])
    assert caught.value.kind == "invalid_request"
    assert caught.value.party == "client"
    assert 0 < len(caught.value.message) < 500


def test_every_depth_is_read_or_refused() -> None:
    """The reader's own limit depends on how deep the caller stands: around it, cutting may pass and reading fail."""
    refusals = set()
    for depth in range(1, 2000):
        unread = "[" * depth + "]" * depth
        body = f'{{"model":"m","max_tokens":5,"messages":[{{"role":"user","content":"x","y":{unread}}}]}}'
        try:
            decode(body.encode())
        except Fault as fault:
            refusals.add(fault.message)
    assert all("nested" in message for message in refusals)


def test_unread_fields_may_hold_what_they_like() -> None:
    assert decode(raw_request('"x":' + "9" * 10_000)).dropped == ("x",)
    assert decode(raw_request('"x":1e999')).dropped == ("x",)


def test_dropped_names_are_bounded() -> None:
    names = {f"field_{number}_{'x' * 200}": 1 for number in range(1000)}
    dropped = decode(request(**names)).dropped
    assert len(dropped) == MAX_DROPPED
    assert max(map(len, dropped)) == MAX_NAME


def test_too_many_messages() -> None:
    message = {"role": "user", "content": "x"}
    with pytest.raises(Fault, match=r"^messages: at most 100000 messages are allowed, got 100001$"):
        decode(request(messages=[message] * 100_001))


def test_the_deepest_schema_passes() -> None:
    schema = '{"a":' * MAX_DEPTH + "1" + "}" * MAX_DEPTH
    assert decode(raw_request('"tools":[{"name":"f","input_schema":' + schema + "}]")).tools[0].parameters == schema
    deeper = '{"a":' + schema + "}"
    with pytest.raises(Fault, match=r"^tools\.0\.input_schema: JSON nested deeper than 256 levels"):
        decode(raw_request('"tools":[{"name":"f","input_schema":' + deeper + "}]"))


def test_brackets_in_strings_and_side_by_side_are_no_depth() -> None:
    code = json.dumps({"code": '[{"' * 1000 + "\\", "list": [[]] * 1000})
    assert arguments_of(decode(call_with(code))) == code


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('{"a": 1,  "b":[1.50, 1E3]}', '{"a": 1,  "b":[1.50, 1E3]}'),
        ("{}", "{}"),
        ('"{\\"a\\": 1}"', '{"a": 1}'),
        ('" {\\"a\\": 1}\\n"', '{"a": 1}'),
        ('"{\\"a\\": \\"\\\\ud800\\"}"', '{"a": "\\ufffd"}'),
        ('"{\\"a\\": 1,}"', json.dumps({UNREADABLE_KEY: '{"a": 1,}'}, separators=(",", ":"))),
        ('"' + '{\\"a\\":' * 300 + "1" + "}" * 300 + '"', None),
        ('"' + '{\\"a\\":' * 5000 + "1" + "}" * 5000 + '"', None),
        ("true", '{"__unparsed":"true"}'),
    ],
)
def test_tool_inputs_become_objects(text: str, wanted: str | None) -> None:
    arguments = arguments_of(decode(call_with(text)))
    assert isinstance(json.loads(arguments), dict)
    if wanted is None:
        assert json.loads(arguments) == {UNREADABLE_KEY: json.loads(text)}
    else:
        assert arguments == wanted


def test_extras_keep_their_bytes_but_not_the_body() -> None:
    conversation = decode(raw_request('"chat_template_kwargs": {"a":  1},"seed":null'))
    assert {name: bytes(raw) for name, raw in conversation.extras.items()} == {"chat_template_kwargs": b'{"a":  1}'}
    assert msgspec.json.encode(conversation.extras) == b'{"chat_template_kwargs":{"a":  1}}'


def test_no_extra_can_reach_what_clients_share() -> None:
    assert not EXTRAS & {"kv_transfer_params", "model", "messages", "stream", "n", "request_id", "user", "tools"}


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (rb"\ud800", rb"\ufffd"),
        (rb"\uDFFF", rb"\ufffd"),
        (rb"\ud83d\ude00", rb"\ud83d\ude00"),
        (rb"\ud83d\ud83d\ude00", rb"\ufffd\ud83d\ude00"),
        (rb"\ude00\ud83d", rb"\ufffd\ufffd"),
        (rb"\\ud800", rb"\\ud800"),
        (rb"\\\ud800", rb"\\\ufffd"),
        (rb"\ud83d \ude00", rb"\ufffd \ufffd"),
        (rb"\u00e9 \ud7ff \ue000", rb"\u00e9 \ud7ff \ue000"),
        (b"nothing", b"nothing"),
    ],
)
def test_lone_surrogates_are_mended(given: bytes, wanted: bytes) -> None:
    assert mend_surrogates(given) == wanted


def test_surrogates_everywhere() -> None:
    body = (
        rb'{"model":"m\ud800","max_tokens":5,"system":"\udc00","messages":[{"role":"assistant","content":['
        rb'{"type":"tool_use","id":"\ud800","name":"f","input":{"\ud800":"\ud83d"}}]}],'
        rb'"tools":[{"name":"f","input_schema":{"title":"\ud800"}}],"\ud800":1}'
    )
    conversation = decode(body)
    assert conversation.model == "m\ufffd"
    assert conversation.system == ("\ufffd",)
    assert arguments_of(conversation) == r'{"\ufffd":"\ufffd"}'
    assert conversation.tools[0].parameters == r'{"title":"\ufffd"}'
    assert conversation.dropped == ("\ufffd",)


def test_sessions_are_stable_and_unreadable() -> None:
    def session(user_id: str) -> str | None:
        conversation = decode(request(metadata={"user_id": user_id}))
        assert conversation.names_session == ('"session_id": "s' in user_id)
        return conversation.session

    one = session(json.dumps({"device_id": "a", "session_id": "s1"}))
    assert one == session(json.dumps({"session_id": "s1", "device_id": "b"}))
    assert one != session(json.dumps({"session_id": "s2", "device_id": "a"}))
    assert one is not None
    assert len(one) == 32
    assert "s1" not in one
    assert session("") is None
    for odd in ("{", '{"session_id": 5}', "[]", '{"session_id": ""}', "[" * 10_000, '"\\ud800"'):
        assert session(odd) not in (None, one)


def test_signatures_of_others_pass() -> None:
    blocks = [{"type": "thinking", "thinking": "hm", "signature": "made up"}, {"type": "text", "text": "Hi"}]
    (turn,) = decode(request(messages=[{"role": "assistant", "content": blocks}])).turns
    assert turn.parts == (Reasoning("hm", "made up"), Text("Hi"))


def test_an_effort_of_a_turn_needs_no_thinking_field() -> None:
    messages = [{"role": "user", "content": "x"}, {"role": "system", "output_config": {"effort": "low"}}]
    assert decode(request(messages=messages, output_config={"effort": "high"})).thinking.effort == "low"


@pytest.mark.parametrize(
    ("thinking", "wanted"),
    [({"type": "adaptive"}, Thinking("on")), ({"type": "disabled"}, Thinking("off")), (None, Thinking())],
)
def test_an_effort_that_nobody_knows_is_none(thinking: dict[str, str] | None, wanted: Thinking) -> None:
    messages = [{"role": "user", "content": "x"}, {"role": "system", "output_config": {"effort": "heroic"}}]
    decoded = decode(request(messages=messages, output_config={"effort": "high"}, thinking=thinking))
    assert (decoded.thinking, decoded.dropped) == (wanted, ("output_config.effort",))


def test_thinking_that_is_off_has_no_effort() -> None:
    messages = [{"role": "user", "content": "x"}, {"role": "system", "output_config": {"effort": "low"}}]
    assert decode(request(messages=messages, thinking={"type": "disabled"})).thinking == Thinking("off")


def test_what_comes_again_with_every_request_is_read_as_at_first() -> None:
    """Whatever was read before it: the same without messages, the same to be counted, or one that was refused."""
    frames = [
        {"system": "Be kind.", "metadata": {"user_id": "u"}, "min_p": 0.1, "stream": True},
        {"system": [{"type": "text", "text": "Be kind."}], "stop_sequences": ["a"], "temperature": 0.5},
        {"system": "x" * 300_000, "thinking": {"type": "enabled", "budget_tokens": 2048}, "max_tokens": 4096},
        {f"field{number}": number for number in range(100)},
    ]
    for frame in frames:
        bodies = [request(messages=[{"role": "user", "content": word}], **frame) for word in "abc"]
        _known_frame.cache_clear()
        with pytest.raises(Fault):
            decode(request(messages=[], **frame))
        counted, *decoded = decode_count(bodies[0]), *map(decode, bodies)
        assert [each.turns[0].parts for each in decoded] == [(Text("a"),), (Text("b"),), (Text("c"),)]
        for each in decoded:
            assert msgspec.structs.replace(each, turns=decoded[0].turns) == decoded[0]
        assert counted == msgspec.structs.replace(decoded[0], max_tokens=0, stream=False)
        _known_frame.cache_clear()
        assert decode(bodies[2]) == decoded[2]


def test_counting_sees_the_same_conversation() -> None:
    fields: dict[str, Any] = {"system": "Be kind.", "tools": [{"name": "f", "input_schema": {}}]}
    whole = decode(request(stream=True, **fields))
    counted = decode_count(request(**fields))
    assert msgspec.structs.replace(whole, max_tokens=0, stream=False) == counted


def test_hostile_bodies_take_linear_time() -> None:
    bodies = [
        raw_request('"system":"' + "\\\\" * 1_000_000 + '\\ud800"'),
        raw_request('"system":"' + "\\ud800" * 300_000 + '"'),
        call_with('{"a":[' + ",".join(["{}"] * 500_000) + "]}"),
        call_with('{"a":"' + '[\\"' * 500_000 + '"}'),
        raw_request(",".join(f'"f{number}":1' for number in range(200_000))),
        raw_request('"system":[' + ",".join(['{"text":"x","type":"text"}'] * 50_000) + "]"),
    ]
    started = time.perf_counter()
    for body in bodies:
        decode(body)
    # Two seconds are needed on a slow machine; what is quadratic takes hours.
    assert time.perf_counter() - started < 30


def test_an_empty_salt_is_none() -> None:
    """vLLM refuses it."""
    assert "cache_salt" not in decode(request(cache_salt="")).extras
    assert bytes(decode(request(cache_salt="x")).extras["cache_salt"]) == b'"x"'
