"""The laws of the answer's path: chunking never changes the message, nothing is lost, the grammar holds."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qiao.core.anthropic import answer as anthropic_answer
from qiao.core.anthropic.answer import Frame
from qiao.core.anthropic.grammar import check
from qiao.core.anthropic.stream import Encoder
from qiao.core.arguments import Arguments
from qiao.core.exchange import Exchange
from qiao.core.openai.stream import Decoder
from tests.fuzz.laws import cut, mended

FRAME = Frame(message_id="msg_1", model="m")

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
words = st.text(alphabet=st.characters(exclude_categories=("Cs",)), min_size=1, max_size=20)


@st.composite
def scripts(draw: st.DrawFn) -> list[tuple[str, Any]]:
    """What an engine says: pieces of reasoning, text and calls, in any order."""
    return draw(
        st.lists(
            st.one_of(
                st.tuples(st.just("text"), words),
                st.tuples(st.just("reasoning"), words),
                st.tuples(st.just("call"), st.dictionaries(st.text(max_size=5), json_values, max_size=3)),
                st.tuples(st.just("raw_call"), words),
            ),
            max_size=6,
        )
    )


def chunks_of(script: list[tuple[str, Any]], cuts: list[int], finish: str = "stop") -> bytes:
    """The engine's bytes for a script, as vLLM writes them; arguments come in the pieces that `cuts` makes."""
    usage = {"prompt_tokens": 10, "completion_tokens": 3}
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    index = 0
    for kind, value in script:
        if kind in ("text", "reasoning"):
            field = "content" if kind == "text" else "reasoning"
            deltas += [{field: piece} for piece in cut(value, cuts)]
            continue
        arguments = json.dumps(value) if kind == "call" else value
        deltas.append({"tool_calls": [{"index": index, "id": f"c{index}", "function": {"name": f"f{index}"}}]})
        deltas += [
            {"tool_calls": [{"index": index, "function": {"arguments": piece}}]} for piece in cut(arguments, cuts)
        ]
        index += 1
    events = [{"choices": [{"index": 0, "delta": delta}], "usage": usage} for delta in deltas]
    events.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    events.append({"choices": [], "usage": usage})
    return b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in events) + b"data: [DONE]\n\n"


def run(pieces: list[bytes], *, stream: bool) -> bytes | dict[str, Any]:
    exchange = Exchange(Decoder(), Encoder(FRAME) if stream else None, id_prefix="toolu")
    out = b"".join([exchange.receive(piece) for piece in pieces]) + exchange.eof()
    if stream:
        return check(out)
    answer = exchange.answer()
    assert answer.fault is None
    return json.loads(anthropic_answer.encode(answer, FRAME))


@given(scripts(), st.lists(st.integers(0, 10**6), max_size=6), st.lists(st.integers(0, 10**6), max_size=12))
@settings(max_examples=200, deadline=None)
def test_any_cut_gives_the_same_message_and_stream_equals_whole(
    script: list[tuple[str, Any]], argument_cuts: list[int], byte_cuts: list[int]
) -> None:
    whole = run([chunks_of(script, [])], stream=False)
    data = chunks_of(script, argument_cuts)
    streamed = run(cut(data, byte_cuts), stream=True)
    assert isinstance(whole, dict)
    assert isinstance(streamed, dict)

    def plain(message: dict[str, Any]) -> list[Any]:
        return [
            {key: block.get(key) for key in ("type", "text", "thinking", "id", "name", "input")}
            for block in message["content"]
        ]

    assert plain(streamed) == plain(whole)
    assert streamed["stop_reason"] == whole["stop_reason"]
    assert streamed["usage"] == whole["usage"]


@given(scripts(), st.lists(st.integers(0, 10**6), max_size=6))
@settings(max_examples=200, deadline=None)
def test_no_text_is_lost(script: list[tuple[str, Any]], cuts: list[int]) -> None:
    message = run([chunks_of(script, cuts)], stream=True)
    assert isinstance(message, dict)
    said = "".join("".join(value.split()) for kind, value in script if kind == "text")
    texts = "".join("".join(block["text"].split()) for block in message["content"] if block["type"] == "text")
    rest = iter(texts)
    assert all(character in rest for character in said)
    calls = [value for kind, value in script if kind == "call"]
    inputs = [block["input"] for block in message["content"] if block["type"] == "tool_use"]
    remaining = iter(inputs)
    assert all(call in remaining for call in json.loads(json.dumps(calls)))


@given(st.binary(max_size=300), st.booleans())
@settings(max_examples=300, deadline=None)
def test_garbage_from_the_engine_is_a_fault(data: bytes, whole: bool) -> None:
    exchange = Exchange(Decoder(whole=whole), Encoder(FRAME), id_prefix="toolu")
    out = exchange.receive(data) + exchange.eof()
    assert exchange.facts.fault is not None or exchange.facts.finish is not None
    check(out, exact_usage=False)


@given(json_values.filter(lambda value: isinstance(value, dict)), st.lists(st.integers(0, 10**6), max_size=10))
@settings(max_examples=300, deadline=None)
def test_valid_arguments_pass_byte_for_byte(value: Any, cuts: list[int]) -> None:
    text = json.dumps(value)
    arguments = Arguments()
    out = "".join([arguments.feed(piece) for piece in cut(text, cuts)])
    closed = arguments.close(cut=False)
    assert (out + closed.text, closed.outcome, arguments.repairs) == (text, "object", [])


@given(
    st.text(alphabet="{}[]\":,'\\ua1 tnFN.-\n`", max_size=40), st.lists(st.integers(0, 100), max_size=10), st.booleans()
)
@settings(max_examples=1000, deadline=None)
def test_mended_arguments_are_always_an_object_whatever_the_cut(text: str, cuts: list[int], was_cut: bool) -> None:
    mended(text, cuts, None, was_cut=was_cut, mend=True)


@pytest.mark.parametrize("name", [None, "", "f"])
def test_a_call_without_a_name_is_words(name: str | None) -> None:
    """Found by `make fuzz`: a call has a name, and what is no call is text."""
    deltas: list[dict[str, Any]] = [
        {"tool_calls": [{"index": 0, "id": "c", "function": {"name": name, "arguments": '{"a": '}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]},
    ]
    events = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    events.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})
    message = run([b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in events)], stream=True)
    assert isinstance(message, dict)
    (block,) = message["content"]
    found = (block["type"], block.get("name"), block.get("text") or block["input"], message["stop_reason"])
    assert found == (("tool_use", "f", {"a": 1}, "tool_use") if name else ("text", None, '{"a": 1}', "end_turn"))
