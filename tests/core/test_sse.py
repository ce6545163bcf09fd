"""Server-sent events: any cut of the same bytes gives the same events."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qiao.core.fault import Fault
from qiao.core.sse import Decoder, ServerSentEvent, encode

PIECES = [
    b"data: ", b"data:", b"data", b"data: {}\n\n", b"data: a\ndata: b\n\n", b"event: x\n", b"event:y\r\n", b": note\n",
    b"id: 1\n", b"\n", b"\n\n", b"\r\n", b"\r", b"x", b"\xef\xbb\xbf", "\u2028".encode(), b"data: \n\n",
]  # fmt: skip


def one_by_one(data: bytes) -> list[ServerSentEvent]:
    decoder = Decoder()
    events = [event for at in range(len(data)) for event in decoder.feed(data[at : at + 1])]
    return events + decoder.close()


@given(st.lists(st.sampled_from(PIECES), max_size=8).map(b"".join), st.lists(st.integers(0, 60), max_size=4))
@example(b"event: x\ndata: a\n\ndata: b\n\n", [9])
@example(b"\xef\xbb\xbfdata: a\n\n", [])
@example(b"data: a\n\ndata: b\n\n", [9])
@example(b"\rdata: a\n\n", [1])
def test_cuts_change_nothing(data: bytes, cuts: list[int]) -> None:
    decoder = Decoder()
    events: list[ServerSentEvent] = []
    places = sorted(min(cut, len(data)) for cut in cuts)
    for start, end in zip([0, *places], [*places, len(data)], strict=True):
        events += decoder.feed(data[start:end])
    assert events + decoder.close() == one_by_one(data)


def test_the_usual_chunk() -> None:
    decoder = Decoder()
    assert decoder.feed(b'data: {"a":1}\n\n') == [ServerSentEvent(b"", b'{"a":1}')]
    assert decoder.feed(b"event: x\n") == []
    assert decoder.feed(b"data: y\n\n") == [ServerSentEvent(b"x", b"y")]
    assert decoder.feed(b"data: z\n\n") == [ServerSentEvent(b"", b"z")]


def test_only_cr_and_lf_end_a_line() -> None:
    text = "data: a\u2028b\x0bc\x85d\n\n".encode()
    assert Decoder().feed(text) == [ServerSentEvent(b"", text[6:-2])]


def test_an_unfinished_event_is_discarded() -> None:
    decoder = Decoder()
    assert decoder.feed(b"data: a\n") == []
    assert decoder.has_partial
    assert decoder.close() == []


def test_an_endless_event_is_a_fault() -> None:
    decoder = Decoder(limit=1000)
    assert decoder.feed(b"data: " + b"x" * 900) == []
    with pytest.raises(Fault, match="more than 1000 bytes"):
        decoder.feed(b"x" * 900)


def test_what_is_encoded_is_decoded() -> None:
    assert Decoder().feed(encode("ping", b'{"type":"ping"}')) == [ServerSentEvent(b"ping", b'{"type":"ping"}')]
