"""A tool list that stays the same while a client's own list grows and shrinks."""

from __future__ import annotations

import json

import msgspec

from qiao.core.conversation import Conversation, Tool, ToolChoice, ToolReference, ToolResult, Turn
from qiao.core.openai.request import encode
from qiao.policies import Switches, prepare
from qiao.policies.tool_history import ToolHistory, follow
from qiao.profiles import find
from qiao.profiles.engines import target_for
from tests.policies.test_history import assistant, call, result, system, user

BASH = Tool("Bash", "Runs.", '{"type":"object", "properties":{}}')
WAIT = Tool("WaitForMcpServers", "Waits.")
GREET = Tool("mcp__people__greet", "Greets.", '{"type": "object",  "properties": {"x": {}}}')
FETCH = Tool("WebFetch", "Fetches.", deferred=True)
ASKED = (user("go"),)
ANSWERED = (*ASKED, assistant(call("1")), user(result("1", "out")))
LATER = (*ANSWERED, assistant(call("2")), user(result("2", "more")), system("Environment."))
TARGET = target_for("vllm", "0.32.0", "qwen3-235b")


def asked(turns: tuple[Turn, ...], *tools: Tool, choice: ToolChoice | None = None) -> Conversation:
    return Conversation(
        model="m", turns=turns, tools=tools, session="s", max_tokens=100, tool_choice=choice or ToolChoice()
    )


def replayed(*requests: Conversation) -> tuple[ToolHistory | None, list[dict[str, object]]]:
    """The requests of one conversation, as the engine gets them."""
    history = None
    bodies = []
    for conversation in requests:
        history = follow(history, conversation)
        prepared = prepare(conversation, find("qwen3-235b"), target=TARGET, tool_history=history)
        bodies.append(json.loads(encode(prepared.conversation, TARGET)))
    return history, bodies


def names(body: dict[str, object]) -> list[str]:
    tools = body.get("tools", [])
    assert isinstance(tools, list)
    return [tool["function"]["name"] for tool in tools]


def contents(body: dict[str, object]) -> list[str]:
    messages = body["messages"]
    assert isinstance(messages, list)
    return [message["content"] or "" for message in messages]


def test_tools_that_arrive_later_are_written_where_they_came_and_the_first_list_stays() -> None:
    _, (first, second, third) = replayed(asked(ASKED, BASH), asked(ANSWERED, BASH, GREET), asked(LATER, BASH, GREET))
    assert names(first) == names(second) == names(third) == ["Bash"]
    assert first["messages"] == second["messages"][: len(first["messages"])]  # type: ignore[index, arg-type]
    assert second["messages"] == third["messages"][: len(second["messages"])]  # type: ignore[index, arg-type]
    written = contents(second)[-1]
    assert written.startswith("out\n\n<system-reminder>")
    assert '"parameters":{"type": "object",  "properties": {"x": {}}}' in written
    assert "Greets." in written


def test_behind_a_system_turn_they_are_part_of_it() -> None:
    turns = (*ANSWERED, system("People is connected."))
    _, (_, body) = replayed(asked(ASKED, BASH), asked(turns, BASH, GREET))
    assert contents(body)[-1].startswith("People is connected.\n\n")
    assert "mcp__people__greet" in contents(body)[-1]


def test_a_removed_tool_stays_in_the_list_and_a_note_says_that_it_is_gone() -> None:
    _, (first, second, third) = replayed(asked(ASKED, BASH, WAIT), asked(ANSWERED, BASH), asked(LATER, BASH, WAIT))
    assert names(first) == names(second) == names(third) == ["Bash", "WaitForMcpServers"]
    assert '"WaitForMcpServers" is no longer available' in contents(second)[-1]
    assert '"WaitForMcpServers" is available' in contents(third)[-1]
    assert contents(third)[: len(contents(second))] == contents(second)


def test_a_changed_definition_is_written_anew_in_its_place() -> None:
    changed = msgspec.structs.replace(BASH, description="Runs a command.")
    _, (first, second) = replayed(asked(ASKED, BASH), asked(ANSWERED, changed))
    assert first["tools"] == second["tools"]
    assert "Runs a command." in contents(second)[-1]


def test_under_a_grammar_they_are_listed_for_that_request() -> None:
    _, (_, forced, free) = replayed(
        asked(ASKED, BASH),
        asked(ANSWERED, BASH, GREET, choice=ToolChoice("any")),
        asked(LATER, BASH, GREET),
    )
    assert names(forced) == ["Bash", "mcp__people__greet"]
    assert names(free) == ["Bash"]
    strict = msgspec.structs.replace(GREET, strict=True)
    assert names(replayed(asked(ASKED, BASH), asked(ANSWERED, BASH, strict))[1][1]) == ["Bash", "mcp__people__greet"]
    named = asked(ANSWERED, BASH, GREET, choice=ToolChoice("tool", "mcp__people__greet"))
    assert names(replayed(asked(ASKED, BASH), named)[1][1]) == ["Bash", "mcp__people__greet"]


def test_a_forced_tool_that_is_gone_is_not_forced() -> None:
    named = asked(ANSWERED, BASH, choice=ToolChoice("tool", "WaitForMcpServers"))
    _, (_, body) = replayed(asked(ASKED, BASH, WAIT), named)
    assert body["tool_choice"] == "auto"


def test_deferred_tools_are_not_part_of_it() -> None:
    history, (_, body) = replayed(asked(ASKED, BASH), asked(ANSWERED, BASH, FETCH))
    assert history is not None
    assert history.arrivals == ()
    assert names(body) == ["Bash"]


def test_a_history_that_was_taken_back_forgets_what_came_after() -> None:
    history, bodies = replayed(
        asked(ASKED, BASH), asked(LATER, BASH, GREET), asked(ANSWERED, BASH), asked(ANSWERED, BASH, GREET)
    )
    assert names(bodies[-1]) == ["Bash"]
    assert "mcp__people__greet" not in json.dumps(bodies[2])
    assert "mcp__people__greet" in contents(bodies[3])[-1]
    assert history is not None
    assert [arrival.place for arrival in history.arrivals] == [len(ANSWERED)]


def test_without_tools_nothing_is_remembered_and_nothing_listed() -> None:
    history, bodies = replayed(asked(ASKED, BASH), asked(ANSWERED))
    assert history is None
    assert names(bodies[1]) == []
    history, bodies = replayed(asked(ASKED), asked(ANSWERED, BASH))
    assert names(bodies[1]) == ["Bash"]


def test_the_same_list_in_another_order_changes_nothing() -> None:
    _, bodies = replayed(asked(ASKED, BASH, WAIT), asked(ANSWERED, WAIT, BASH))
    assert names(bodies[1]) == ["Bash", "WaitForMcpServers"]
    assert contents(bodies[1])[-1] == "out"


def test_repair_is_guided_by_what_the_client_offers_now() -> None:
    history = follow(follow(None, asked(ASKED, BASH, WAIT)), asked(ANSWERED, BASH, GREET))
    prepared = prepare(asked(ANSWERED, BASH, GREET), find("qwen3-235b"), target=TARGET, tool_history=history)
    assert [tool.name for tool in prepared.tools] == ["Bash", "mcp__people__greet"]
    assert any("came later" in note for note in prepared.notes)


def test_with_side_text_apart_they_are_a_user_turn() -> None:
    history = follow(follow(None, asked(ASKED, BASH)), asked(ANSWERED, BASH, GREET))
    prepared = prepare(
        asked(ANSWERED, BASH, GREET),
        find("qwen3-235b"),
        target=TARGET,
        tool_history=history,
        switches=Switches(side_text="user"),
    )
    messages = json.loads(encode(prepared.conversation, TARGET))["messages"]
    assert [message["role"] for message in messages[-2:]] == ["tool", "user"]


def test_a_found_tool_keeps_its_definition_when_its_server_goes_away() -> None:
    searched = (*ASKED, assistant(call("1")), user(ToolResult("1", (ToolReference("WebFetch"),))))
    on = (*searched, assistant(call("2")), user(result("2", "more")))
    changed = msgspec.structs.replace(FETCH, description="Another.")
    _, (first, found, gone, back) = replayed(
        asked(ASKED, BASH), asked(searched, BASH, FETCH), asked(on, BASH), asked(on, BASH, changed)
    )
    assert first["tools"] == found["tools"] == gone["tools"] == back["tools"]
    assert "Fetches." in contents(found)[-1]
    assert contents(gone)[: len(contents(found))] == contents(found)
    assert contents(back) == contents(gone)


def test_the_same_turn_asked_again_with_other_tools_is_not_a_later_one() -> None:
    """Else every other list would be told once more, and the prompt would grow with every request."""
    requests = [
        asked(ASKED, BASH),
        *[asked(ANSWERED, BASH, GREET), asked(ANSWERED, BASH), asked(ANSWERED, BASH, WAIT)] * 3,
    ]
    history, bodies = replayed(*requests)
    assert history is not None
    assert len(history.arrivals) == 1
    for number in range(1, 4):
        assert bodies[number] == bodies[number + 3] == bodies[number + 6]
    assert contents(bodies[2]) == contents(replayed(asked(ANSWERED, BASH))[1][0])


def test_another_conversation_with_the_same_first_words_is_told_nothing_of_it() -> None:
    other = (*ASKED, assistant(call("9")), user(result("9", "elsewhere")), assistant("so"), user("and now?"))
    _, bodies = replayed(
        asked(ASKED, BASH), asked(ANSWERED, BASH, GREET), asked(other, BASH), asked(LATER, BASH, GREET)
    )
    assert contents(bodies[2]) == contents(replayed(asked(other, BASH))[1][0])
    assert GREET.name in "".join(contents(bodies[3]))
