"""Counts by prefix: which conversations share one, and which templates can be counted in pieces."""

from __future__ import annotations

import time

import msgspec
import pytest

from qiao.core.conversation import Conversation, Image, Reasoning, Text, Tool, ToolCall, ToolResult, Turn
from qiao.core.openai.target import Target
from qiao.policies.counts import (
    STUB,
    Known,
    PrefixCounts,
    alone,
    behind_stub,
    digests,
    has_images,
    is_additive,
    reasoning_trial,
    steering,
    trial,
)
from tests.policies.test_history import assistant, result, user

TARGET = Target("m")
TURNS = (user("a"), assistant(ToolCall("1", "f", "{}")), user(result("1", "b")), assistant("c"), user("d"))
TALK = Conversation("m", TURNS, system=("s",), tools=(Tool("f"),))


def changed(**fields: object) -> Conversation:
    return msgspec.structs.replace(TALK, **fields)


def test_a_grown_conversation_begins_with_the_digests_of_the_earlier_one() -> None:
    longer = digests(changed(turns=(*TURNS, assistant("e"), user("f"))), TARGET)
    assert longer[: len(TURNS)] == digests(TALK, TARGET)
    assert len(set(longer)) == len(TURNS) + 2


@pytest.mark.parametrize(
    "other",
    [
        changed(system=("t",)),
        changed(tools=()),
        changed(tools=(Tool("f", "words"),)),
        changed(turns=(user("b"), *TURNS[1:])),
        changed(turns=(Turn("system", TURNS[0].parts), *TURNS[1:])),
        changed(extras={"chat_template_kwargs": msgspec.Raw(b'{"enable_thinking":false}')}),
    ],
)
def test_what_stands_in_the_prompt_changes_every_digest(other: Conversation) -> None:
    assert not set(digests(other, TARGET)) & set(digests(TALK, TARGET))


def test_what_does_not_stand_in_the_prompt_changes_none() -> None:
    other = changed(max_tokens=7, stream=True, stop=("x",), extras={"seed": msgspec.Raw(b"7")}, session="abc")
    assert digests(other, TARGET) == digests(TALK, TARGET)
    assert digests(TALK, Target("n")) != digests(TALK, TARGET)


def test_words_and_thoughts_are_told_apart() -> None:
    said = changed(turns=(user("a"), assistant("x"), user("b")))
    thought = changed(turns=(user("a"), assistant(Reasoning("x")), user("b")))
    assert digests(said, TARGET)[1] != digests(thought, TARGET)[1]


def test_the_longest_known_beginning_is_found() -> None:
    kept = PrefixCounts()
    chain = digests(TALK, TARGET)
    assert kept.longest(chain) is None
    kept.remember(chain[0], 10)
    kept.remember(chain[2], 30, is_sum=True)
    assert kept.longest(chain) == Known(3, 30, is_sum=True)
    assert kept.longest(chain[:2]) == Known(1, 10)


def test_memory_is_bounded_and_what_is_used_stays() -> None:
    kept = PrefixCounts(capacity=10)
    for number in range(100):
        kept.remember(b"%d" % number, number)
        kept.longest([b"0"])
    assert len(kept) == 10
    assert kept.longest([b"0"]) == Known(1, 0)
    assert kept.longest([b"50"]) is None


@pytest.mark.parametrize(
    ("turns", "start", "expected"),
    [
        (TURNS, 1, True),
        (TURNS, 3, True),
        (TURNS, 2, False),  # a user turn may join the one before
        (TURNS, 0, False),
        (TURNS, 5, False),
        (TURNS[:4], 3, False),  # the last turn is to be continued
        # Reasoning goes when the user speaks again, and stays through a tool loop.
        (
            (user("a"), assistant(Reasoning("x"), ToolCall("1", "f", "{}")), user(result("1", "b")), *TURNS[3:]),
            3,
            False,
        ),
        (
            (
                user("a"),
                assistant(Reasoning("x"), ToolCall("1", "f", "{}")),
                user(result("1", "b")),
                assistant(ToolCall("2", "f", "{}")),
                user(result("2", "b")),
            ),
            3,
            True,
        ),
    ],
)
def test_is_additive(turns: tuple[Turn, ...], start: int, expected: bool) -> None:
    assert is_additive(turns, start) is expected


def test_where_reasoning_is_kept_the_user_takes_none_away() -> None:
    whole, opening, growth = reasoning_trial(TALK)
    start = len(opening.turns)
    assert whole.turns == (*opening.turns, *growth.turns[1:])
    assert not is_additive(whole.turns, start)
    assert is_additive(whole.turns, start, keeps_reasoning=True)
    assert not is_additive(TURNS, 2, keeps_reasoning=True)


def test_what_steers_a_template() -> None:
    other = changed(turns=TURNS[:1], system=(), tools=(), max_tokens=7)
    kept = changed(extras={"chat_template_kwargs": msgspec.Raw(b'{"preserve_thinking":true}')})
    assert steering(other, TARGET) == steering(TALK, TARGET)
    assert len({steering(TALK, TARGET), steering(kept, TARGET), steering(TALK, Target("n"))}) == 3


def test_pieces() -> None:
    grown = behind_stub(TALK, 3)
    assert (grown.system, grown.tools, grown.turns) == ((), (), (STUB, *TURNS[3:]))
    assert alone(TALK).turns == (STUB,)
    whole, opening, growth = trial(TALK)
    assert whole.turns == (*opening.turns, *growth.turns[1:])
    assert is_additive(whole.turns, len(opening.turns))
    assert any(isinstance(part, ToolResult) for turn in growth.turns for part in turn.parts)


def test_images_are_seen() -> None:
    assert not has_images(TALK)
    assert has_images(changed(turns=(user(Text("a"), Image("image/png", "AA")),)))


def test_a_long_conversation_costs_milliseconds() -> None:
    """400 KB in 300 turns, 100,000 tokens: the least of ten is far under the 5 ms that a count may add."""
    turns = tuple(user("word " * 260) if i % 2 == 0 else assistant("word " * 260) for i in range(301))
    long = changed(turns=turns)

    def took() -> float:
        begun = time.perf_counter()
        digests(long, TARGET)
        return time.perf_counter() - begun

    assert min(took() for _ in range(10)) < 0.004
