"""What is made of a conversation's turns does not depend on what was asked before, and is kept in bounded memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qiao.core.beginnings import Beginnings
from qiao.core.conversation import Document, Image, Part, Reasoning, Text, ToolCall, ToolResult, Turn


def turn(word: str) -> Turn:
    return Turn("user", (Text(word),))


def said(state: list[str], turn: Turn) -> None:
    state += [part.text for part in turn.parts if isinstance(part, Text)]


@given(
    asked=st.lists(st.lists(st.sampled_from("abc"), max_size=5), max_size=20),
    most=st.integers(1, 3),
    most_characters=st.integers(1, 40),
)
def test_the_state_is_that_of_the_turns_alone(asked: list[list[str]], most: int, most_characters: int) -> None:
    beginnings = Beginnings(list[str], said, list, most=most, most_characters=most_characters)
    for words in asked:
        turns = tuple(map(turn, words))
        assert beginnings.of(turns) == words
        assert beginnings.of(turns) == words


def test_what_was_said_stays() -> None:
    beginnings = Beginnings(list[str], said, list)
    first = beginnings.of((turn("a"),))
    beginnings.of((turn("a"), turn("b")))
    assert first == ["a"]


def test_only_new_turns_are_taken() -> None:
    taken: list[str] = []

    def step(state: list[str], turn: Turn) -> None:
        said(taken, turn)

    beginnings = Beginnings(list[str], step, list)
    beginnings.of((turn("a"), turn("b")))
    beginnings.of((turn("a"), turn("b"), turn("c")))
    beginnings.of((turn("a"), turn("b"), turn("c")))
    assert taken == ["a", "b", "c"]
    beginnings.of((turn("a"), turn("b")))
    assert taken == ["a", "b", "c", "a", "b"], "turns were taken back"


def test_a_state_that_broke_is_not_gone_on_with() -> None:
    def step(state: list[str], turn: Turn) -> None:
        said(state, turn)
        if state[-1] == "bad":
            raise ValueError("bad")

    beginnings = Beginnings(list[str], step, list)
    beginnings.of((turn("a"),))
    with pytest.raises(ValueError, match="bad"):
        beginnings.of((turn("a"), turn("b"), turn("bad")))
    assert beginnings.of((turn("a"), turn("b"))) == ["a", "b"]


def test_the_conversation_that_was_used_least_recently_is_forgotten() -> None:
    taken: list[str] = []

    def step(state: list[str], turn: Turn) -> None:
        said(taken, turn)

    beginnings = Beginnings(list[str], step, list, most=2)
    for word in "abacab":
        beginnings.of((turn(word),))
    assert taken == ["a", "b", "c", "b"]
    assert len(beginnings) == 2


@pytest.mark.parametrize(
    "part",
    [
        Text("x" * 60),
        Reasoning("x" * 60),
        ToolCall("c", "Bash", "x" * 60),
        ToolResult("c", (Text("x" * 60),)),
        Image(data="x" * 60),
        Image(url="x" * 60),
        Document("application/pdf", "x" * 60),
    ],
)
def test_long_conversations_are_not_kept(part: Part) -> None:
    beginnings = Beginnings(list[str], said, list, most_characters=200)
    beginnings.of((Turn("user", (part,)),))
    assert len(beginnings) == 0
    for number in range(20):
        beginnings.of((turn(f"{number:40}"),))
    assert len(beginnings) == 5
