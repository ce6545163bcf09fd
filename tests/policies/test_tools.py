"""Which tools are listed, and where a tool that was found is written."""

from __future__ import annotations

import json

import pytest

from qiao.core.conversation import Conversation, Text, Tool, ToolChoice, ToolReference, ToolResult, Turn
from qiao.policies.tools import expand_references, offer
from tests.policies.test_history import assistant, call, user

BASH = Tool("Bash", "Runs.")
SEARCH = Tool("ToolSearch")
FETCH = Tool("WebFetch", "Fetches.", '{"type": "object",  "properties": {"url": {}}}', deferred=True)
CRON = Tool("CronList", deferred=True)
HOLDER = Tool("DeferredToolPlaceholder", deferred=True)
AUTO = ToolChoice()
GO = (user("go"),)
FOUND = (user("go"), assistant(call("1")), user(ToolResult("1", (ToolReference("WebFetch"),))))


def offered(*tools: Tool, choice: ToolChoice = AUTO, turns: tuple[Turn, ...] = GO) -> tuple[list[str], ToolChoice]:
    listed, chosen, _ = offer(Conversation(model="m", turns=turns, tools=tools, tool_choice=choice))
    assert not any(tool.deferred for tool in listed)
    return [tool.name for tool in listed], chosen


def test_deferred_tools_are_hidden_before_and_after_they_were_found() -> None:
    assert offered(BASH, CRON, HOLDER, SEARCH, FETCH)[0] == ["Bash", "ToolSearch"]
    assert offered(BASH, CRON, HOLDER, SEARCH, FETCH, turns=FOUND)[0] == ["Bash", "ToolSearch"]


@pytest.mark.parametrize(
    ("choice", "tools", "expected"),
    [
        (ToolChoice("any"), (BASH, FETCH, CRON), ["Bash", "WebFetch"]),
        (ToolChoice("tool", "Bash"), (BASH, FETCH, CRON), ["Bash", "WebFetch"]),
        (ToolChoice("tool", "CronList"), (FETCH, CRON, BASH), ["Bash", "WebFetch", "CronList"]),
        (ToolChoice("none"), (BASH, FETCH), ["Bash"]),
        (ToolChoice(), (Tool("Bash", strict=True), FETCH, CRON), ["Bash", "WebFetch"]),
        (ToolChoice(), (BASH, Tool("WebFetch", deferred=True, strict=True)), ["Bash", "WebFetch"]),
        (ToolChoice("none"), (Tool("Bash", strict=True), FETCH), ["Bash"]),
    ],
)
def test_under_a_grammar_what_was_found_is_listed_last(
    choice: ToolChoice, tools: tuple[Tool, ...], expected: list[str]
) -> None:
    assert offered(*tools, choice=choice, turns=FOUND)[0] == expected


def test_without_a_search_of_the_client_deferred_tools_are_listed() -> None:
    assert offered(FETCH, CRON)[0] == ["WebFetch", "CronList"]
    server_search = Tool("tool_search_tool_bm25", builtin="tool_search_tool_bm25_20251119")
    assert offered(BASH, server_search, FETCH)[0] == ["Bash", "WebFetch"]


def test_no_tools_no_choice() -> None:
    assert offered(choice=ToolChoice("any", parallel=False)) == ([], ToolChoice())
    assert offered(HOLDER, choice=ToolChoice("auto")) == ([], ToolChoice())


def test_a_forced_tool_that_does_not_exist_is_left_to_the_model() -> None:
    assert offered(BASH, choice=ToolChoice("tool", "Nope", parallel=False)) == (
        ["Bash"],
        ToolChoice("auto", parallel=False),
    )


def test_a_reference_becomes_the_definition_with_the_schema_s_bytes() -> None:
    turns, notes = expand_references(FOUND, (BASH, FETCH))
    result = turns[2].parts[0]
    assert isinstance(result, ToolResult)
    text = result.parts[0]
    assert isinstance(text, Text)
    definition = text.text.split("\n", 1)[1]
    assert '"parameters":{"type": "object",  "properties": {"url": {}}}' in definition
    assert json.loads(definition) == {
        "type": "function",
        "function": {
            "name": "WebFetch",
            "description": "Fetches.",
            "parameters": {"type": "object", "properties": {"url": {}}},
        },
    }
    assert turns[:2] == FOUND[:2]
    assert notes == ("tools: references expanded: 1",)


def test_references_to_listed_unknown_and_pretended_tools_are_short_notes() -> None:
    references = tuple(ToolReference(name) for name in ("Bash", "Nope", "DeferredToolPlaceholder"))
    turns, notes = expand_references((user(ToolResult("1", (Text("found"), *references))),), (BASH, HOLDER))
    assert turns[0] == user(
        ToolResult(
            "1",
            (
                Text("found"),
                Text('[The tool "Bash" is in the list of tools; call it by its name.]'),
                Text('[The tool "Nope" is not available.]'),
                Text('[The tool "DeferredToolPlaceholder" is not available.]'),
            ),
        )
    )
    assert notes[1] == "tools: references to unknown tools: DeferredToolPlaceholder, Nope"
