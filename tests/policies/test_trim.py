"""The last resort: old tool results cut down, and nothing else as long as they suffice."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qiao.core.conversation import Conversation, Part, Text, Tool, ToolCall, ToolResult, Turn
from qiao.policies.prefix import fold_system
from qiao.policies.trim import CHARACTERS_PER_TOKEN, LEFT_OUT, to_free, trim
from tests.policies.test_history import assistant, result, user

LONG = "line of a file\n" * 400
NOTE = "characters of this old tool result left out"


def session(rounds: int, **fields: object) -> Conversation:
    turns = [user("the task " + LONG)]
    for number in range(rounds):
        turns.append(assistant(f"step {number}", ToolCall(f"t{number}", "Read", '{"path":"x"}')))
        turns.append(user(result(f"t{number}", f"{number}: {LONG}")))
    return msgspec.structs.replace(
        Conversation("m", tuple(turns), system=("s" * 9000,), tools=(Tool("Read"),)), **fields
    )


def results(conversation: Conversation) -> list[str]:
    return [
        part.parts[0].text
        for turn in conversation.turns
        for part in turn.parts
        if isinstance(part, ToolResult) and isinstance(part.parts[0], Text)
    ]


def characters(conversation: Conversation) -> int:
    def size(part: Part) -> int:
        match part:
            case Text():
                return len(part.text)
            case ToolCall():
                return len(part.arguments)
            case ToolResult():
                return sum(len(block.text) for block in part.parts if isinstance(block, Text))
            case _:
                return 0

    return sum(size(part) for turn in conversation.turns for part in turn.parts)


def test_the_oldest_results_go_first_and_say_so() -> None:
    before = session(5)
    done = trim(before, 2000)
    short = [NOTE in text for text in results(done.conversation)]
    assert short == [True, True, False, False, False]
    assert done.results == 2
    assert done.note == "trimmed: 2 old tool results shortened"
    first = results(done.conversation)[0]
    assert first.startswith("0: line of a file")
    assert first.endswith("line of a file\n")
    assert characters(before) - characters(done.conversation) >= 2000 * CHARACTERS_PER_TOKEN


def test_what_must_stay_stays() -> None:
    """System prompt, tools, the user's own words, the last turn, and every pair."""
    before = session(5)
    done = trim(before, 10**6)
    after = done.conversation
    assert (after.system, after.tools) == (before.system, before.tools)
    assert after.turns[0] == before.turns[0]
    assert after.turns[-1] == before.turns[-1]
    assert [turn.role for turn in after.turns] == [turn.role for turn in before.turns]
    pairs = [part for turn in after.turns for part in turn.parts if isinstance(part, ToolCall | ToolResult)]
    for call, answer in zip(pairs[::2], pairs[1::2], strict=True):
        assert isinstance(call, ToolCall)
        assert isinstance(answer, ToolResult)
        assert call.id == answer.call_id
    assert done.results == 4


def test_many_small_results_become_notes() -> None:
    turns = [user("the task")]
    for number in range(20):
        turns += [assistant(ToolCall(f"t{number}", "Read", "{}")), user(result(f"t{number}", "word " * 100))]
    done = trim(Conversation("m", tuple(turns)), 1000)
    short = [text == LEFT_OUT for text in results(done.conversation)]
    assert sum(short) == done.results > 5
    assert short == sorted(short, reverse=True)


def test_then_arguments_then_old_texts() -> None:
    turns = (
        user("old words " + LONG),
        assistant("text " + LONG, ToolCall("1", "Write", json.dumps({"path": "a.txt", "content": LONG, "n": 3}))),
        user(result("1", "written")),
        Turn("system", (Text(LONG),)),
        user("now this"),
    )
    done = trim(Conversation("m", turns), 10**6)
    after = done.conversation.turns
    call = next(part for part in after[1].parts if isinstance(part, ToolCall))
    arguments = json.loads(call.arguments)
    assert arguments["path"] == "a.txt"
    assert arguments["n"] == 3
    assert "this old argument" in arguments["content"]
    assert "this old text" in str(after[0]) + str(after[1])
    assert after[3:] == turns[3:]
    assert (done.results, done.texts) == (0, 3)


def test_folded_system_turns_stay_whole() -> None:
    """Templates that take none get them as reminders, in a tool result or beside the user's words."""
    turns = (
        user("old words " + LONG),
        Turn("system", (Text("first rule " + LONG),)),
        assistant(ToolCall("1", "Read", "{}")),
        user(result("1", LONG)),
        Turn("system", (Text("second rule " + LONG),)),
        assistant("b"),
        user("now this"),
    )
    folded, _ = fold_system(turns)
    done = trim(Conversation("m", folded), 10**6)
    reminders = [
        block.text
        for turn in done.conversation.turns
        for part in turn.parts
        for block in (part.parts if isinstance(part, ToolResult) else (part,))
        if isinstance(block, Text) and block.text.startswith("<system-reminder>")
    ]
    assert reminders == [f"<system-reminder>\n{rule} rule {LONG}\n</system-reminder>" for rule in ("first", "second")]
    assert (done.results, done.texts) == (1, 1)
    assert results(done.conversation) == [LEFT_OUT]


@pytest.mark.parametrize("arguments", ["no json", "[1]", "x" * 3000, json.dumps({"a": [1] * 3000})])
def test_arguments_without_long_texts_stay(arguments: str) -> None:
    turns = (user("a"), assistant(ToolCall("1", "f", arguments)), user(result("1", "ok")), user("b"))
    assert trim(Conversation("m", turns), 10**6).conversation.turns == turns


def test_nothing_to_cut() -> None:
    short = Conversation("m", (user("a"), assistant("b"), user(LONG)))
    done = trim(short, 100)
    assert (done.conversation, done.note) == (short, "")


def test_the_next_turn_is_cut_at_the_same_place() -> None:
    """What grows by less than a quarter of the window keeps the beginning of its prompt."""
    window = 40_000
    before, later = session(30), session(31)
    tokens = characters(before) // CHARACTERS_PER_TOKEN
    grown = characters(later) // CHARACTERS_PER_TOKEN
    assert to_free(tokens - window, window) == to_free(grown - window, window)
    first = trim(before, to_free(tokens - window, window)).conversation.turns
    second = trim(later, to_free(grown - window, window)).conversation.turns
    assert second[: len(first) - 1] == first[:-1]


@given(excess=st.integers(-5, 10**6), window=st.integers(1, 10**6))
def test_to_free_is_enough_and_in_quarters(excess: int, window: int) -> None:
    tokens = to_free(excess, window)
    assert tokens >= excess
    assert tokens % max(1, window // 4) == 0
    assert tokens < max(1, excess) + max(1, window // 4)


@given(rounds=st.integers(0, 6), tokens=st.integers(1, 20_000))
def test_trimming_twice_changes_nothing_more_than_once(rounds: int, tokens: int) -> None:
    once = trim(session(rounds), tokens).conversation
    freed = characters(session(rounds)) - characters(once)
    again = trim(once, max(1, tokens - freed // CHARACTERS_PER_TOKEN)).conversation if freed else once
    assert characters(again) <= characters(once)
    assert [turn.role for turn in again.turns] == [turn.role for turn in session(rounds).turns]
