"""Chunks that are read by their likeness to the one before say exactly what decoding them says."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qiao.core.anthropic.answer import Frame
from qiao.core.anthropic.grammar import check
from qiao.core.anthropic.stream import Encoder
from qiao.core.dialects import text_tools
from qiao.core.events import Event, Failed, ReasoningAdded, TextAdded, ToolArgumentsAdded, Usage, UsageSeen
from qiao.core.exchange import Exchange
from qiao.core.openai import stream
from qiao.core.openai.stream import Decoder
from tests.fuzz.laws import DECLARED, cut

Chunk = dict[str, Any]
HEAD: Chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1795330676, "model": "qwen3"}


def usage(done: int) -> Chunk:
    return {"prompt_tokens": 10, "total_tokens": 10 + done, "completion_tokens": done}


def vllm(delta: Chunk, done: int) -> Chunk:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None, "token_ids": None}
    return {**HEAD, "choices": [choice], "usage": {**usage(done), "completion_tokens_details": None}}


def vllm_without_usage(delta: Chunk, _done: int) -> Chunk:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None, "token_ids": None}
    return {**HEAD, "choices": [choice]}


def sglang(delta: Chunk, done: int) -> Chunk:
    full = {"role": None, "content": None, "reasoning_content": None, "tool_calls": None, **delta}
    choice = {"index": 0, "delta": full, "logprobs": None, "finish_reason": None, "matched_stop": None}
    return {**HEAD, "choices": [choice], "usage": {**usage(done), "prompt_tokens_details": {"cached_tokens": 4}}}


def llamacpp(delta: Chunk, _done: int) -> Chunk:
    return {"choices": [{"finish_reason": None, "index": 0, "delta": delta}], **HEAD, "system_fingerprint": "b1"}


def counts_first(delta: Chunk, _done: int) -> Chunk:
    return {"usage": usage(3), "choices": [{"index": 0, "delta": delta}], **HEAD}


def whole_message(delta: Chunk, done: int) -> Chunk:
    return {**HEAD, "choices": [{"message": delta}], "usage": usage(done), "x": {"usage": {}}}


def with_decoys(delta: Chunk, done: int) -> Chunk:
    decoys = {"note": {"content": "none", "arguments": "none", "reasoning": "none", "reasoning_content": "none"}}
    return {**decoys, "choices": [{"delta": {"note": decoys, **delta}}], "usage": usage(done)}


ENGINES = [vllm, vllm_without_usage, sglang, llamacpp, counts_first, whole_message, with_decoys]
Engine = Callable[[Chunk, int], Chunk]


def event(chunk: Chunk, *, spaced: bool = False, ascii_only: bool = False) -> bytes:
    separators = (", ", ": ") if spaced else (",", ":")
    return f"data: {json.dumps(chunk, separators=separators, ensure_ascii=ascii_only)}\n\n".encode()


def content(text: str) -> Chunk:
    return {"content": text}


def reasoning(text: str) -> Chunk:
    return {"reasoning": text}


def reasoning_content(text: str) -> Chunk:
    return {"reasoning_content": text}


def arguments(text: str) -> Chunk:
    return {"tool_calls": [{"index": 0, "function": {"arguments": text}}]}


def started(engine: Engine) -> Decoder:
    """With an open call, so that arguments are arguments."""
    decoder = Decoder()
    call = {"index": 0, "id": "c0", "type": "function", "function": {"name": "f", "arguments": ""}}
    decoder.feed(event(engine({"tool_calls": [call]}, 1)))
    return decoder


def taken(decoder: Decoder, data: bytes) -> tuple[list[Event], bool]:
    """As the exchange reads; and whether it was read by its likeness."""
    words = decoder.more(data)
    return (decoder.feed(data), False) if words is None else ([words], True)


LIKE = event(vllm(content("a"), 2))
TEXTS = ["a", " word", 'a "quoted" \\ one', "\n", "桥🌉", "\u2028", '"},"finish_reason":"stop"', '"usage":{', "a\\"]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("spaced", [False, True])
@pytest.mark.parametrize(
    ("delta", "kind"),
    [
        (content, TextAdded),
        (reasoning, ReasoningAdded),
        (reasoning_content, ReasoningAdded),
        (arguments, lambda text: ToolArgumentsAdded(0, text)),
    ],
)
def test_all_but_the_first_are_read_by_their_likeness(
    engine: Engine, spaced: bool, delta: Callable[[str], Chunk], kind: Callable[[str], Event]
) -> None:
    decoder = started(engine)
    for number, text in enumerate(["first", *TEXTS]):
        ascii_only = number % 2 == 0
        data = event(engine(delta(text), number), spaced=spaced, ascii_only=ascii_only)
        events, is_like = taken(decoder, data)
        assert is_like == (number > 0)
        assert [one for one in events if not isinstance(one, UsageSeen)] == [kind(text)]


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param(event(vllm(content(""), 2)), id="no text"),
        pytest.param(LIKE * 2, id="two events in one read"),
        pytest.param(LIKE[:-1], id="an event that is not over"),
        pytest.param(LIKE[:60], id="half an event"),
        pytest.param(event({**vllm(content("a"), 2), "id": "chatcmpl-2"}), id="another answer"),
        pytest.param(event({**vllm(content("a"), 2), "error": {"message": "died"}}), id="an error beside it"),
        pytest.param(event(vllm({"content": "a", "refusal": "b"}, 2)), id="a refusal beside it"),
        pytest.param(event(vllm({"content": None, "reasoning": "a"}, 2)), id="reasoning"),
        pytest.param(LIKE.replace(b'"finish_reason":null', b'"finish_reason":"stop"'), id="end"),
        pytest.param(LIKE.replace(b'"a"', b'"\\ud800"'), id="half a surrogate"),
        pytest.param(LIKE.replace(b'"a"', b'"\xff"'), id="no UTF-8"),
        pytest.param(LIKE.replace(b'"a"', b'"\x01"'), id="a control character"),
        pytest.param(LIKE.replace(b'"a"', b'"\\x"'), id="an escape that is none"),
        pytest.param(LIKE.replace(b":10,", b":10,\n"), id="a line break in the counts"),
        pytest.param(LIKE.replace(b'"a"', b'\n"a"'), id="a line break before the text"),
        pytest.param(LIKE.replace(b'"a"', b'\r"a"'), id="a carriage return before the text"),
        pytest.param(LIKE.replace(b":10,", b":10,\r"), id="a carriage return in the counts"),
        pytest.param(LIKE.replace(b":10,", b':"x",'), id="counts that are none"),
        pytest.param(LIKE.replace(b'{"prompt', b'[{"prompt'), id="no JSON"),
        pytest.param(b": a comment\n\n", id="a comment"),
        pytest.param(b"data: [DONE]\n\n", id="the end of the bytes"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_what_is_not_like_it_is_decoded(odd: bytes) -> None:
    """And read as it is when nobody looks for likeness."""
    decoder, plain = Decoder(), Decoder()
    for number, text in enumerate(("one", " two", " three")):
        data = event(vllm(content(text), number))
        plain.feed(data)
        assert taken(decoder, data)[1] == (number > 0)
    assert decoder.more(odd) is None
    told = decoder.untold
    after = event(vllm(content(" four"), 3))
    seen = [one for data in (odd, after) for one in taken(decoder, data)[0]] + decoder.close()
    expected = [one for data in (odd, after) for one in plain.feed(data)] + plain.close()
    assert told == Usage(prompt=10, completion=2)
    assert seen[0] == UsageSeen(told) or not odd
    assert _without_counts(seen) == _without_counts(expected)


def _without_counts(events: list[Event]) -> list[Event | str]:
    """Faults by their words."""
    told = [one for one in events if not isinstance(one, UsageSeen)]
    return [str(one.fault) if isinstance(one, Failed) else one for one in told]


@pytest.mark.parametrize(
    ("engine", "odd"),
    [
        pytest.param(llamacpp, event(llamacpp(content("a"), 2)) * 2, id="two events in one read"),
        pytest.param(llamacpp, event(llamacpp(content("a"), 2)) + b"d", id="more behind it"),
        pytest.param(
            whole_message,
            event(whole_message(content("a"), 2)).replace(b'"x":{"usage":{}}', b'"error":"broken"'),
            id="another end of the same length",
        ),
    ],
)
def test_what_does_not_end_like_it_is_decoded(engine: Engine, odd: bytes) -> None:
    decoder = Decoder()
    assert [taken(decoder, event(engine(content("a"), number)))[1] for number in range(3)] == [False, True, True]
    assert decoder.more(odd) is None


@pytest.mark.parametrize(
    "chunk",
    [
        {**vllm(content("a"), 1), "timings": {"cache_n": 5}},
        {**vllm(content("a" * 5000), 1)},
        vllm({"tool_calls": [{"index": 0, "id": "c0", "function": {"arguments": "a"}}]}, 1),
        vllm({"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "a"}}]}, 1),
        vllm({"content": "a", "reasoning": "b"}, 1),
        vllm({"refusal": "a"}, 1),
        {**vllm(content("a"), 1), "choices": [{"delta": content("a"), "finish_reason": "stop"}]},
        vllm({"content": [{"text": "a"}]}, 1),
        # No event tells of these, but they count: a call that has no name yet, a call of its own in each chunk.
        vllm({"content": "a", "tool_calls": [{"index": 1, "function": {"arguments": " "}}]}, 1),
        vllm({"reasoning": "a", "tool_calls": [{"index": 1, "function": {"arguments": " "}}]}, 1),
        vllm({"content": "a", "tool_calls": [{"id": "c1", "function": {"name": "f"}}]}, 1),
        vllm({"content": "a", "function_call": {"arguments": ""}}, 1),
        vllm({**arguments("a"), "function_call": {"arguments": ""}}, 1),
    ],
)
def test_chunks_that_give_no_pattern(chunk: Chunk) -> None:
    """Even one that is the same to the letter is decoded."""
    decoder = started(vllm)
    for _ in range(3):
        assert not taken(decoder, event(chunk))[1]


def test_an_engine_that_never_repeats_itself_is_not_compared_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0

    def counted(*arguments: Any) -> Any:
        nonlocal asked
        asked += 1
        return pattern_of(*arguments)

    pattern_of = stream.pattern_of
    monkeypatch.setattr(stream, "pattern_of", counted)
    decoder = Decoder()
    for number in range(50):
        assert not taken(decoder, event({**vllm(content("a"), number), "id": f"chatcmpl-{number}"}))[1]
    assert asked == 8


def test_counts_that_came_with_words_are_told_at_the_end_and_to_who_leaves() -> None:
    exchange = Exchange(Decoder(), Encoder(Frame(message_id="msg_1", model="m")), id_prefix="toolu")
    out = b"".join([exchange.receive(event(vllm(content(f" word{number}"), number))) for number in range(1, 6)])
    assert exchange.facts.usage == Usage(prompt=10, completion=5)
    out += exchange.receive(event({**HEAD, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}))
    out += exchange.eof()
    message = check(out)
    assert message["usage"]["output_tokens"] == 5
    assert message["content"] == [{"type": "text", "text": " word1 word2 word3 word4 word5"}]


CALL = ["I ", "will ", "look: ", "<tool", "_call>", '\n{"name": "get_weather", ', '"arguments": {}}', "\n</tool_call>"]

texts = st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=6) | st.sampled_from(
    [*TEXTS, " ", "\n\n", "<think>", "</think>", "<tool_call>", '"}}],"usage":{"prompt_tokens":1}}\n\n']
)
scripts = st.lists(
    st.tuples(st.sampled_from([content, content, content, reasoning, reasoning_content, arguments]), texts),
    max_size=12,
)


@given(
    scripts,
    st.sampled_from(ENGINES),
    st.booleans(),
    st.booleans(),
    st.sampled_from([None, "split", "hermes"]),
    st.sampled_from([(), ("word",), ("a\\",)]),
    st.lists(st.integers(0, 10**6), max_size=8),
)
@settings(max_examples=300, deadline=None)
@example([(content, text) for text in CALL], vllm, False, False, "hermes", (), [])
@example([(content, "a "), (content, "b "), (content, "c "), (reasoning, "d")], vllm, False, False, "split", (), [])
@example([(content, "a "), (content, "b "), (content, " wo"), (content, "rd")], vllm, False, False, None, ("word",), [])
def test_one_event_a_read_and_any_other_cut_give_the_same_message(
    script: list[tuple[Callable[[str], Chunk], str]],
    engine: Engine,
    spaced: bool,
    ascii_only: bool,
    reading: str | None,
    stops: tuple[str, ...],
    places: list[int],
) -> None:
    call = {"index": 0, "id": "c0", "function": {"name": "f"}}
    deltas = [{"tool_calls": [call]} if any(delta is arguments for delta, _ in script) else {"role": "assistant"}]
    deltas += [delta(text) for delta, text in script]
    pieces = [event(engine(delta, number), spaced=spaced, ascii_only=ascii_only) for number, delta in enumerate(deltas)]
    pieces.append(event({**HEAD, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}))
    pieces.append(event({**HEAD, "choices": [], "usage": usage(len(deltas))}) + b"data: [DONE]\n\n")

    def answered(reads: list[bytes]) -> tuple[Any, Any]:
        stage = None
        if reading is not None:
            stage = text_tools(reading if reading == "hermes" else None, DECLARED)
        encoder = Encoder(Frame(message_id="msg_1", model="m"))
        exchange = Exchange(Decoder(), encoder, id_prefix="toolu", stops=stops, text_tools=stage)
        out = b"".join([exchange.receive(read) for read in reads]) + exchange.eof()
        return check(out, exact_usage=False), exchange.facts.usage

    whole = answered([b"".join(pieces)])
    assert answered(pieces) == whole
    assert answered(cut(b"".join(pieces), places)) == whole
