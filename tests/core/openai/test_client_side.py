"""What OpenAI clients are told: errors in their words, streams to the byte; and the judge of streams, judged."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from qiao.core.events import (
    Event,
    Failed,
    Finished,
    ReasoningAdded,
    TextAdded,
    ToolArgumentsAdded,
    ToolCallEnded,
    ToolCallStarted,
    Usage,
    UsageSeen,
)
from qiao.core.fault import Fault, invalid
from qiao.core.fold import fold
from qiao.core.openai import answer, errors, free_text
from qiao.core.openai.answer import Frame
from qiao.core.openai.encode_stream import PING, Encoder
from qiao.core.openai.grammar import Checker, GrammarError, check
from qiao.core.sse import Decoder
from qiao.policies.overflow import Excess, find_excess, too_long

FRAME = Frame("chatcmpl-1", "m", 1_760_000_000)
CALL: list[Event] = [
    ToolCallStarted(4, "c1", "f"),
    ToolArgumentsAdded(4, '{"a":'),
    ToolArgumentsAdded(4, "1}"),
    ToolCallEnded(4),
]


def error(fault: Fault) -> dict[str, Any]:
    body = json.loads(errors.body(fault))
    assert set(body) == {"error"}
    return dict(body["error"])


# Errors


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (Fault("authentication", "no key"), 401, "invalid_api_key"),
        (Fault("billing", "pay"), 402, "insufficient_quota"),
        (Fault("permission", "no"), 403, "permission_denied"),
        (Fault("not_found", "Not found: GET /x"), 404, None),
        (Fault("timeout", "the body did not arrive"), 408, "timeout"),
        (Fault("timeout", "the engine said nothing", party="upstream"), 504, "timeout"),
        (Fault("conflict", "twice"), 409, "conflict"),
        (Fault("too_large", "too big"), 413, "request_too_large"),
        (Fault("too_large", "too big", error_code="request_body_too_large_after_decoding"), 413,
         "request_body_too_large_after_decoding"),
        (Fault("rate_limit", "slow down", party="upstream"), 429, "rate_limit_exceeded"),
        (Fault("api", "a bug", party="ours"), 500, None),
        (Fault("api", "broken", party="upstream"), 502, None),
        (Fault("overloaded", "busy", party="upstream"), 503, "overloaded"),
        (Fault("unavailable", "gone", party="upstream"), 503, "unavailable"),
    ],
)  # fmt: skip
def test_statuses_and_codes(fault: Fault, status: int, code: str | None) -> None:
    assert (errors.status(fault), error(fault)["code"]) == (status, code)
    assert error(fault)["message"] == fault.message


def test_the_path_of_a_field_is_its_param() -> None:
    told = error(invalid("messages.2.content.0.text", "Field required"))
    assert told["param"] == "messages[2].content[0].text"
    assert told["message"] == "messages[2].content[0].text: Field required"


@pytest.mark.parametrize(
    "message", ["The request body is empty.", "Content-Encoding: 'br' is not supported", "bad HTTP request: x: y"]
)
def test_a_colon_alone_is_no_path(message: str) -> None:
    told = error(Fault("invalid_request", message))
    assert (told["param"], told["message"]) == (None, message)


@pytest.mark.parametrize(
    ("excess", "words"),
    [
        (Excess(window=8192, prompt=9000), "context length is 8192 tokens. However, your messages resulted in 9000"),
        (Excess(window=8192, prompt=8000, exact=False), "maximum context length is 8192 tokens"),
        (Excess(prompt=9000, exact=False), "(9000 tokens) exceed the model's maximum context length"),
        (Excess(exact=False), "exceed the model's maximum context length"),
    ],
)  # fmt: skip
def test_an_overflow_is_told_in_openais_words(excess: Excess, words: str) -> None:
    """Whatever `too_long` says is recognised, and what comes of it is recognised by the next gateway."""
    told = error(Fault("invalid_request", too_long(excess)))
    assert (told["code"], told["param"]) == ("context_length_exceeded", "messages")
    assert words in told["message"]
    again = find_excess(told["message"])
    assert again is not None
    assert again.window == excess.window


def test_an_unknown_model_is_named() -> None:
    told = error(Fault("not_found", "model: gpt-4o"))
    assert (told["code"], told["param"]) == ("model_not_found", "model")
    assert "`gpt-4o`" in told["message"]


# Streams


def encoded(events: list[Event], frame: Frame = FRAME) -> bytes:
    return Encoder(frame).encode(events)


def test_a_stream_to_the_byte() -> None:
    head = b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1760000000,"model":"m","choices":[{'
    call = b'{"index":0,"id":"c1","type":"function","function":{"name":"f","arguments":""}}'
    wanted = [
        b'"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n',
        b'"index":0,"delta":{"reasoning_content":"Hm.","reasoning":"Hm."},"finish_reason":null}]}\n\n',
        b'"index":0,"delta":{"content":"A"},"finish_reason":null}]}\n\n',
        b'"index":0,"delta":{"tool_calls":[' + call + b']},"finish_reason":null}]}\n\n',
        b'"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\\"a\\":"}}]},"finish_reason":null}]}\n\n',
        b'"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"1}"}}]},"finish_reason":null}]}\n\n',
        b'"index":0,"delta":{},"finish_reason":"tool_calls","stop_reason":null}]}\n\n',
    ]
    told = encoded([ReasoningAdded("Hm."), TextAdded("A"), *CALL, Finished("tool_calls")])
    assert told == b"".join(head + line for line in wanted) + b"data: [DONE]\n\n"


def test_usage_comes_after_the_finish_if_it_was_asked_for() -> None:
    frame = Frame("chatcmpl-1", "m", 1_760_000_000, usage_in_stream=True)
    usage = Usage(prompt=10, completion=3, cached=4, created=2, reasoning=1)
    told = check(encoded([UsageSeen(usage), TextAdded("A"), Finished("stop")], frame), usage=True).usage
    assert told == {
        "prompt_tokens": 10,
        "completion_tokens": 3,
        "total_tokens": 13,
        "prompt_tokens_details": {"cached_tokens": 4, "created_cache_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 1},
    }


def test_nothing_comes_after_the_end() -> None:
    for last in (Finished("stop"), Failed(Fault("api", "x"))):
        encoder = Encoder(FRAME)
        encoder.encode([TextAdded("A"), last])
        assert encoder.is_over
        assert encoder.encode([TextAdded("B"), Finished("stop")]) == b""


def test_odd_names_and_texts() -> None:
    frame = Frame("chatcmpl-1", '100%s "model"', 1_760_000_000)
    told = check(encoded([TextAdded("a\ud800b"), TextAdded("%d \u2028"), Finished("stop")], frame))
    assert told.message["content"] == "a\ufffdb%d \u2028"


def test_a_ping_is_a_comment() -> None:
    assert Decoder().feed(PING) == []
    assert PING.startswith(b":")


def test_hidden_reasoning_is_in_neither_answer() -> None:
    frame = Frame("chatcmpl-1", "m", 1_760_000_000, show_reasoning=False)
    events: list[Event] = [ReasoningAdded("Hm."), TextAdded("A"), Finished("stop")]
    assert b"Hm." not in encoded(events, frame)
    assert b"Hm." not in answer.encode(fold(events), frame)


# Tools whose input is free text


@pytest.mark.parametrize("text", ["", 'a "b"\n\\', "桥\u2028", "{}"])
def test_free_text_goes_and_comes_back(text: str) -> None:
    assert free_text.text_of(free_text.arguments_of(text)) == text


@pytest.mark.parametrize("arguments", ["{}", '{"patch":"x"}', '{"input":5}', "broken"])
def test_free_text_that_a_model_wrote_in_its_own_way_is_kept(arguments: str) -> None:
    assert free_text.text_of(arguments) == arguments


def test_free_text_that_was_cut_comes_back_as_words() -> None:
    frame = Frame("chatcmpl-1", "m", 1_760_000_000, free_text={"f": "function"})
    events: list[Event] = [*CALL[:2], ToolCallEnded(4, complete=False), Finished("length")]
    told = check(encoded(events, frame), free_text={"f"})
    assert "tool_calls" not in told.message
    whole = json.loads(answer.encode(fold(events), frame))["choices"][0]["message"]
    assert told.message["content"] == whole["content"]
    assert '{"a":' in whole["content"]


# The judge


def chunks() -> list[dict[str, Any]]:
    """A good stream, as values."""
    data = encoded([ReasoningAdded("Hm."), TextAdded("A"), *CALL, Finished("tool_calls")])
    return [json.loads(event.data) for event in Decoder().feed(data) if event.data != b"[DONE]"]


def written(values: list[dict[str, Any]], end: bytes = b"data: [DONE]\n\n") -> bytes:
    return b"".join(b"data: %b\n\n" % json.dumps(value).encode() for value in values) + end


def delta(values: list[dict[str, Any]], place: int) -> dict[str, Any]:
    found: dict[str, Any] = values[place]["choices"][0]["delta"]
    return found


def remade(change: Callable[[list[dict[str, Any]]], object]) -> bytes:
    values = chunks()
    change(values)
    return written(values)


USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
ERROR = {"message": "x", "type": "server_error", "param": None, "code": None}
WRONG: dict[str, Callable[[list[dict[str, Any]]], object]] = {
    "no role": lambda v: v.pop(0),
    "the role twice": lambda v: v.insert(0, v[0]),
    "another id": lambda v: v[2].update(id="x"),
    "another object": lambda v: [chunk.update(object="chat.completion") for chunk in v],
    "a foreign key": lambda v: [chunk.update(usage_stats=1) for chunk in v],
    "no finish reason": lambda v: v.pop(),
    "a delta after the finish": lambda v: v.append(v[2]),
    "an unknown finish reason": lambda v: v[-1]["choices"][0].update(finish_reason="eos"),
    "stop in spite of a call": lambda v: v[-1]["choices"][0].update(finish_reason="stop"),
    "tool_calls without a call": lambda v: v.__delitem__(slice(3, 6)),
    "an empty delta": lambda v: delta(v, 2).clear(),
    "an empty text": lambda v: delta(v, 2).update(content=""),
    "two things in a delta": lambda v: delta(v, 2).update(reasoning="x", reasoning_content="x"),
    "reasoning under one name": lambda v: delta(v, 1).pop("reasoning"),
    "arguments before the call": lambda v: v.insert(3, v.pop(4)),
    "arguments of another call": lambda v: delta(v, 4)["tool_calls"][0].update(index=1),
    "arguments that are no object": lambda v: v.pop(5),
    "a call without a name": lambda v: delta(v, 3)["tool_calls"][0]["function"].update(name=""),
    "a call without an id": lambda v: delta(v, 3)["tool_calls"][0].update(id=""),
    "an index that is skipped": lambda v: delta(v, 3)["tool_calls"][0].update(index=1),
    "an id that is used twice": lambda v: v.insert(6, again(v[3])),
    "two choices": lambda v: v[2]["choices"].append(v[2]["choices"][0]),
    "usage in a chunk with a choice": lambda v: v[2].update(usage=USAGE),
    "usage before the finish": lambda v: v.insert(3, {**v[2], "choices": [], "usage": USAGE}),
    "usage twice": lambda v: v.extend([{**v[2], "choices": [], "usage": USAGE}] * 2),
    "a wrong total": lambda v: v.append({**v[2], "choices": [], "usage": {**USAGE, "total_tokens": 3}}),
    "an error after the finish": lambda v: v.append({"error": ERROR}),
    "a chunk after an error": lambda v: v.insert(2, {"error": ERROR}),
    "an error without a message": lambda v: v.__setitem__(slice(2, None), [{"error": {**ERROR, "message": ""}}]),
}


def again(chunk: dict[str, Any]) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(chunk))
    copy["choices"][0]["delta"]["tool_calls"][0]["index"] = 1
    return copy


@pytest.mark.parametrize("name", WRONG)
def test_the_judge_finds(name: str) -> None:
    check(written(chunks()))
    with pytest.raises(GrammarError):
        check(remade(WRONG[name]))


def test_the_judge_wants_the_end() -> None:
    for data in (written(chunks(), end=b""), written(chunks()) + b"data: {}\n\n", written(chunks()) + b"x"):
        with pytest.raises(GrammarError):
            check(data)


def test_the_judge_wants_usage_as_it_was_asked_for() -> None:
    with pytest.raises(GrammarError):
        check(written(chunks()), usage=True)
    values = chunks()
    values.append({**values[0], "choices": [], "usage": USAGE})
    check(written(values), usage=True)
    with pytest.raises(GrammarError):
        check(written(values), usage=False)


def test_a_call_that_was_cut_is_right_only_at_a_limit() -> None:
    values = chunks()
    values.pop(5)
    values[-1]["choices"][0]["finish_reason"] = "length"
    assert check(written(values)).finish_reason == "length"


def test_the_judge_reads_in_pieces() -> None:
    checker = Checker()
    for byte in written(chunks()):
        checker.feed(bytes([byte]))
    checker.close()
    assert checker.message["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"a":1}'}
