"""The engine's bytes → events: recorded answers, any cut of them, and garbage."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qiao.core.conversation import Tool
from qiao.core.events import (
    Event,
    Failed,
    Finished,
    TextAdded,
    ToolArgumentsAdded,
    ToolCallEnded,
    ToolCallStarted,
    Usage,
    UsageSeen,
)
from qiao.core.llamacpp.stream import Decoder
from qiao.core.llamacpp.tools import Forced, forced

FORCED = forced((Tool("Read", "", '{"type":"object","properties":{"p":{"type":"string"}}}'),), most_calls=1, limit=999)


def data(**fields: object) -> bytes:
    piece = {"index": 0, "content": "", "tokens": [], "stop": False, "id_slot": -1, **fields}
    return f"data: {json.dumps(piece, ensure_ascii=False)}\n\n".encode()


def progress(processed: int) -> bytes:
    told = {"total": 11, "cache": 4, "processed": processed, "time_ms": 0}
    return data(tokens_predicted=0, tokens_evaluated=11, prompt_progress=told)


def last(stop_type: str, *, word: str = "", truncated: bool = False) -> bytes:
    return data(
        stop=True,
        tokens_predicted=3,
        tokens_evaluated=11,
        stop_type=stop_type,
        stopping_word=word,
        truncated=truncated,
        tokens_cached=13,
        generation_settings={"stop": []},
        timings={"cache_n": 4, "prompt_n": 7, "predicted_n": 3},
    )


def answer(*texts: str, end: bytes) -> bytes:
    return b"".join((progress(4), progress(11), *(data(content=text) for text in texts), b": ping\n\n", end))


def read(body: bytes, cuts: list[int] | None = None, made: Forced | None = None) -> list[Event]:
    decoder = Decoder(made)
    places = [0, *sorted(cut for cut in cuts or [] if cut < len(body)), len(body)]
    events: list[Event] = []
    for start, end in itertools.pairwise(places):
        events += decoder.feed(body[start:end])
    return events + decoder.close()


START = UsageSeen(Usage(prompt=11, completion=0, cached=4))
END = UsageSeen(Usage(prompt=11, completion=3, cached=4))


@pytest.mark.parametrize(
    ("end", "finished"),
    [
        (last("eos"), Finished("stop")),
        (last("limit"), Finished("length")),
        (last("limit", truncated=True), Finished("context")),
        (last("word", word="</block>"), Finished("stop_sequence", "</block>")),
    ],
)
def test_texts_and_their_ends(end: bytes, finished: Finished) -> None:
    expected = [START, TextAdded("Hi"), TextAdded(" \u2028世"), END, finished]
    assert read(answer("Hi", "", " \u2028世", end=end)) == expected


@pytest.mark.parametrize(
    ("end", "finished"),
    [
        (last("limit"), Finished("stop")),
        (last("limit", truncated=True), Finished("context")),
        (last("eos"), Finished("stop")),
    ],
)
def test_our_own_limit_is_an_ordinary_end(end: bytes, finished: Finished) -> None:
    decoder = Decoder(leashed=True)
    assert decoder.feed(answer("Hi", end=end))[-1] == finished


@settings(deadline=None)
@given(cuts=st.lists(st.integers(0, 2000), max_size=40))
def test_cuts_change_nothing(cuts: list[int]) -> None:
    body = answer("Hi", " 世界", end=last("eos"))
    assert read(body, cuts) == read(body)


def test_a_forced_call_begins_with_its_head() -> None:
    events = read(answer('{"p": "a', '}"}', "}", end=last("eos")), made=FORCED)
    assert events == [
        START,
        ToolCallStarted(0, "", "Read"),
        ToolArgumentsAdded(0, '{"p": "a'),
        ToolArgumentsAdded(0, '}"}'),
        ToolCallEnded(0),
        END,
        Finished("tool_calls"),
    ]


def test_a_forced_call_that_was_cut() -> None:
    events = read(answer('{"p": "a', end=last("limit")), made=FORCED)
    assert events[-3:] == [ToolCallEnded(0, complete=False), END, Finished("length")]


def test_an_error_in_the_stream_fails_the_answer() -> None:
    broken = b'data: {"error":{"code":500,"message":"compute error","type":"server_error"}}\n\n'
    events = read(progress(4) + broken + data(content="late"))
    assert [type(event) for event in events] == [UsageSeen, Failed]
    assert isinstance(events[1], Failed)
    assert "compute error" in events[1].fault.message
    assert events[1].fault.party == "upstream"


@pytest.mark.parametrize("tail", [b"", data(content="more")])
def test_an_end_without_a_reason_fails_the_answer(tail: bytes) -> None:
    events = read(progress(11) + data(content="Hi") + tail)
    assert isinstance(events[-1], Failed)
    assert events[1] == TextAdded("Hi")


@settings(deadline=None)
@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5))
def test_garbage_never_raises(garbage: bytes, cuts: list[int]) -> None:
    for body in (garbage, b"data: " + garbage + b"\n\n", b'data: {"content":' + garbage + b"}\n\n"):
        events = read(body, cuts)
        assert isinstance(events[-1], Failed)
        assert sum(isinstance(event, Failed | Finished) for event in events) == 1


def test_what_comes_after_the_end_is_ignored() -> None:
    assert read(answer("Hi", end=last("eos")) + data(content="late")) == read(answer("Hi", end=last("eos")))
