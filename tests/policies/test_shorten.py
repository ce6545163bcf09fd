"""A long conversation for a small window: what goes, what stays, and that the head of the prompt stays the same."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qiao.core.conversation import Conversation, Part, Text, Tool, ToolCall, ToolChoice, ToolResult, Turn
from qiao.core.llamacpp.tools import described
from qiao.policies.shorten import DEFAULT_TARGET, LEAST_TARGET, Shortened, estimate, reading_time, shorten, target_for

REMINDER = "<system-reminder>\nThe date is today. " + "Rules. " * 300 + "\n</system-reminder>"
TOOLS = tuple(
    Tool(f"Tool{n}", f"Does thing {n} for you. It has many rules.\n\n" + "- Never do that. " * 150, '{"type":"object"}')
    for n in range(12)
)
SYSTEM = (
    "You are an agent.",
    "You help with software.\nBe careful. " + "More rules follow here. " * 200 + "\n# Section\n" + "x " * 500,
)


def user(*parts: Part | str) -> Turn:
    return Turn("user", tuple(Text(part) if isinstance(part, str) else part for part in parts))


def assistant(*parts: Part | str) -> Turn:
    return Turn("assistant", tuple(Text(part) if isinstance(part, str) else part for part in parts))


def agent(*turns: Turn) -> Conversation:
    return Conversation("m", turns, system=SYSTEM, tools=TOOLS, max_tokens=100)


def rounds(count: int, size: int = 400) -> list[Turn]:
    turns = []
    for n in range(count):
        turns.append(assistant(f"Step {n}.", ToolCall(f"c{n}", "Tool1", f'{{"n": {n}}}')))
        turns.append(user(ToolResult(f"c{n}", (Text(f"result {n} " + "y" * size),))))
    return turns


def words(turn: Turn) -> str:
    return " ".join(part.text for part in turn.parts if isinstance(part, Text))


def size(shortened: Shortened) -> int:
    conversation = shortened.conversation
    texts = [*conversation.system, described(conversation.tools)]
    for turn in conversation.turns:
        for part in turn.parts:
            match part:
                case Text():
                    texts.append(part.text)
                case ToolCall():
                    texts.append(part.name + part.arguments)
                case ToolResult():
                    texts += [inner.text for inner in part.parts if isinstance(inner, Text)]
    return sum(map(estimate, texts))


def test_what_fits_is_left_alone() -> None:
    asked = Conversation("m", (user("Hi"),), system=("Long rules. " * 20,), max_tokens=10)
    assert shorten(asked) == Shortened(asked)


def test_what_an_agents_client_sends_first() -> None:
    found = shorten(agent(user(REMINDER, "Say hi"), Turn("system", (Text("Environment. " * 700),))))
    assert found.conversation.turns == (user("Say hi"),)
    assert found.conversation.system == ("You are an agent.", found.conversation.system[1])
    assert found.conversation.system[1].startswith("You help with software. Be careful. More rules follow here.")
    assert sum(map(len, found.conversation.system)) <= 410
    assert [tool.description for tool in found.conversation.tools[:2]] == [
        "Does thing 0 for you. It has many rules.",
        "Does thing 1 for you. It has many rules.",
    ]
    assert [tool.parameters for tool in found.conversation.tools] == [tool.parameters for tool in TOOLS]
    assert found.note == ("shortened: 12 tools to names, system 5.7 KB to 0.4 KB, the client's reminders left out")
    assert size(found) < 600


def test_the_users_last_words_stay_whole() -> None:
    long = "word " * 4000
    found = shorten(agent(user("old"), assistant("older"), user(long)))
    assert found.conversation.turns == (user(long),)
    assert "1 of 3 turns" in found.note


def test_the_last_turns_stay_with_the_task_that_led_to_them() -> None:
    asked = agent(user("old task"), assistant("done"), user("The task"), *rounds(40))
    found = shorten(asked).conversation.turns
    assert words(found[0]) == "The task"
    assert found[-1] == asked.turns[-1]
    assert found[1].role == "assistant"
    assert 4 < len(found) < 40


def test_calls_and_results_stay_together() -> None:
    for count in range(1, 30):
        found = shorten(agent(user("The task"), *rounds(count))).conversation.turns
        calls = [part.id for turn in found for part in turn.parts if isinstance(part, ToolCall)]
        results = [part.call_id for turn in found for part in turn.parts if isinstance(part, ToolResult)]
        assert calls == results
        assert calls[-1] == f"c{count - 1}"


def test_long_results_keep_both_ends() -> None:
    result = "BEGIN " + "middle " * 5000 + "END"
    found = shorten(
        agent(user("The task"), assistant(ToolCall("1", "Tool1", "{}")), user(ToolResult("1", (Text(result),))))
    )
    (kept,) = [part for turn in found.conversation.turns for part in turn.parts if isinstance(part, ToolResult)]
    text = kept.parts[0]
    assert isinstance(text, Text)
    assert text.text.startswith("BEGIN ")
    assert text.text.endswith("END")
    assert "characters left out" in text.text
    assert "1 tool results cut" in found.note
    assert size(found) < 2100


def test_reminders_inside_results_go_too() -> None:
    asked = agent(
        user("The task"),
        assistant(ToolCall("1", "Tool1", "{}")),
        user(ToolResult("1", (Text("content"), Text(REMINDER)))),
    )
    found = shorten(asked).conversation.turns[-1].parts[0]
    assert isinstance(found, ToolResult)
    assert "Rules" not in str(found)
    assert "content" in str(found)


def test_a_prefill_stays_last() -> None:
    found = shorten(agent(user(REMINDER, "Count"), assistant("One, "))).conversation
    assert found.is_prefill
    assert found.turns[-1] == assistant("One, ")


def test_tools_that_are_not_shown_need_no_room() -> None:
    asked = Conversation("m", (user("Hi"),), tools=TOOLS, tool_choice=ToolChoice("none"), max_tokens=10)
    assert shorten(asked).note == ""


def servers(count: int) -> tuple[Tool, ...]:
    """As MCP servers bring them: long names, some parameters each."""
    schema = '{"type":"object","properties":{"owner":{},"repository":{},"page":{},"state":{}},"required":["owner"]}'
    return tuple(Tool(f"mcp__server_{n // 10}__do_thing_{n}", f"Does thing {n}. " * 9, schema) for n in range(count))


@pytest.mark.parametrize(
    ("count", "target", "note", "first"),
    [
        (12, 2000, "12 tools to names", "- mcp__server_0__do_thing_0(owner, repository?, page?, state?): Does"),
        (30, 2000, "30 tools without descriptions", "- mcp__server_0__do_thing_0(owner, repository?, page?, state?)"),
        (60, 2000, "60 tools to bare names", "- mcp__server_0__do_thing_0"),
        (300, 2000, "300 tools to bare names, 210 of them left out", "- mcp__server_0__do_thing_0"),
        (30, 400, "30 tools to bare names, 12 of them left out", "- mcp__server_0__do_thing_0"),
    ],
)
def test_many_tools_are_told_by_less(count: int, target: int, note: str, first: str) -> None:
    asked = Conversation("m", (user("Hi"),), system=SYSTEM, tools=servers(count))
    found = shorten(asked, target=target)
    told = described(found.conversation.tools)
    assert f"shortened: {note}, system" in found.note
    assert told.splitlines()[1].startswith(first)
    assert estimate(told) <= target * 0.4 + 10
    assert size(found) <= target
    # Each can be called all the same, and fits its schema.
    assert [(tool.name, tool.parameters) for tool in found.conversation.tools] == [
        (tool.name, tool.parameters) for tool in asked.tools
    ]


def test_a_tool_that_has_to_be_called_keeps_its_line() -> None:
    tools = servers(300)
    asked = Conversation("m", (user("Hi"),), tools=tools, tool_choice=ToolChoice("tool", tools[270].name))
    told = described(shorten(asked).conversation.tools).splitlines()
    assert told[-2].startswith("- mcp__server_27__do_thing_270(owner, repository?, page?, state?): Does thing 270.")
    assert told[-1] == f"… and {300 - len(told) + 2} more"
    assert estimate("\n".join(told)) <= DEFAULT_TARGET * 0.4 + 10


def test_the_head_is_the_same_in_every_turn_and_the_beginning_moves_seldom() -> None:
    turns: list[Turn] = [user(REMINDER, "The task")]
    heads, firsts = set(), []
    for n in range(60):
        turns += rounds(n + 1)[-2:]
        found = shorten(agent(*turns)).conversation
        heads.add((found.system, found.tools))
        assert words(found.turns[0]) == "The task"
        firsts.append(words(found.turns[1]))
    assert len(heads) == 1
    moves = sum(one != other for one, other in itertools.pairwise(firsts))
    assert moves < 20


@given(
    st.lists(
        st.tuples(st.sampled_from(["text", "call", "system"]), st.integers(0, 3000)),
        min_size=1,
        max_size=25,
    ),
    st.integers(200, 4000),
)
@settings(deadline=None)
def test_whatever_comes_ends_with_the_last_words_and_near_the_target(kinds: list[tuple[str, int]], target: int) -> None:
    turns: list[Turn] = [user("first")]
    for number, (kind, length) in enumerate(kinds):
        if kind == "call":
            turns += [
                assistant(ToolCall(f"c{number}", "Tool1", "{}")),
                user(ToolResult(f"c{number}", (Text(f"r{number}" + "z" * length),))),
            ]
        elif kind == "system":
            turns.append(Turn("system", (Text("s" * length),)))
        else:
            turns += [assistant(f"answer {number}"), user(f"question {number} " + "q" * min(length, 300))]
    asked = agent(*turns)
    found = shorten(asked, target=target)
    kept = found.conversation.turns
    last_words = [words(turn) for turn in turns if turn.role == "user" and words(turn)][-1]
    assert last_words in [words(turn) for turn in kept]
    calls = [part.id for turn in kept for part in turn.parts if isinstance(part, ToolCall)]
    assert calls == [part.call_id for turn in kept for part in turn.parts if isinstance(part, ToolResult)]
    assert kept[0].role == "user"
    assert not any(isinstance(part, ToolResult) for part in kept[0].parts)
    head = size(Shortened(Conversation("m", (), system=found.conversation.system, tools=found.conversation.tools)))
    # A call with its result, cut or not, and the user's words are kept in any case.
    assert size(found) <= max(target, head + int(target * 0.4)) + 700


@pytest.mark.parametrize("text", ["", "x", "word " * 100, "汉字" * 50])
def test_the_estimate_is_rather_too_high(text: str) -> None:
    assert estimate(text) >= len(text) / 4


@given(st.floats(1, 5000))
def test_the_target_is_read_in_time_wherever_that_is_possible(speed: float) -> None:
    target = target_for(speed)
    assert LEAST_TARGET <= target <= DEFAULT_TARGET
    assert target == LEAST_TARGET or reading_time(target, speed) < 10
    assert target == DEFAULT_TARGET or reading_time(target + 100, speed) > 8


def test_the_target_where_it_was_measured() -> None:
    # SmolLM2-135M on two quiet cores: 256 tokens in 0.8 s, 2,000 in 8.7 s.
    assert (target_for(320.0), round(reading_time(2000, 320.0), 1)) == (2000, 8.7)
    assert target_for(160.0) == 1100
    assert target_for(None) == target_for(10.0) == LEAST_TARGET
