"""Forced calls: what the grammar lets the engine write is read back as calls that fit their schemas."""

from __future__ import annotations

import itertools
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from qiao.core.conversation import Tool, ToolCall
from qiao.core.events import Event, TextAdded, ToolArgumentsAdded, ToolCallEnded, ToolCallStarted
from qiao.core.llamacpp.gbnf import Bounds
from qiao.core.llamacpp.tools import CallReader, Forced, described, forced, head, written
from tests.core.llamacpp.sentences import Sentences

READ = {
    "type": "object",
    "properties": {"file_path": {"type": "string"}, "limit": {"type": "integer", "minimum": 1}},
    "required": ["file_path"],
    "additionalProperties": False,
}
TOOLS = (
    Tool("Read", "Reads a file.\n\nUse it often.", json.dumps(READ)),
    Tool("Re", "", '{"type":"object"}'),
    Tool("mcp__a__b", "Free.", '{"type":"object","properties":{"x":{}}}'),
    Tool("broken", "Its schema is none.", "[1"),
)
SMALL = (Bounds(string=12, items=2, members=2, depth=1),)


def drawn(made: Forced, seed: int) -> str:
    return Sentences(made.grammar).draw(random.Random(seed), 0.7)


def folded(events: list[Event]) -> tuple[list[tuple[str, str]], str]:
    calls: list[list[str]] = []
    text = ""
    for event in events:
        match event:
            case ToolCallStarted():
                assert event.index == len(calls)
                calls.append([event.name, ""])
            case ToolArgumentsAdded():
                calls[event.index][1] += event.text
            case TextAdded():
                text += event.text
            case ToolCallEnded():
                assert event.complete
    return [(name, arguments) for name, arguments in calls], text


@given(
    seed=st.integers(0, 2**32), most=st.integers(1, 3), cuts=st.lists(st.integers(0, 400), max_size=8), data=st.data()
)
@settings(deadline=None, max_examples=120)
def test_what_is_forced_is_read_back_however_it_is_cut(
    seed: int, most: int, cuts: list[int], data: st.DataObject
) -> None:
    tools = data.draw(st.lists(st.sampled_from(TOOLS), min_size=1, unique_by=lambda tool: tool.name))
    made = forced(tools, most_calls=most, limit=10**6, ladder=SMALL)
    text = drawn(made, seed)
    reader = CallReader(made.names)
    events = reader.feed(made.head)
    places = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    for start, end in itertools.pairwise(places):
        events += reader.feed(text[start:end])
    events += reader.close()
    calls, rest = folded(events)
    assert rest == ""
    assert 1 <= len(calls) <= most
    assert reader.is_complete
    assert not reader.is_cut
    schemas = {tool.name: tool for tool in tools}
    for name, arguments in calls:
        value = json.loads(arguments)
        assert isinstance(value, dict)
        if name == "Read":
            Draft202012Validator(READ).validate(value)
        assert name in schemas


def test_one_tool_leaves_only_its_arguments_to_write() -> None:
    made = forced(TOOLS[:1], most_calls=1, limit=10**6)
    assert made.head == '{"name": "Read", "arguments": '
    assert drawn(made, 3).startswith('{"file_path": "')


@pytest.mark.parametrize(
    "value",
    [{"type": "integer", "minimum": 5, "maximum": 2}, {"type": "string", "minLength": 5, "maxLength": 2}, False],
)
def test_arguments_that_nothing_fits_are_an_object_all_the_same(value: object) -> None:
    """A call whose arguments are none would be no call, but its markup as text."""
    schema = {"type": "object", "properties": {"v": value}, "required": ["v"]}
    made = forced((Tool("f", parameters=json.dumps(schema)),), most_calls=1, limit=10**6)
    for seed in range(20):
        reader = CallReader(("f",))
        assert reader.feed(made.head + drawn(made, seed))[0] == ToolCallStarted(0, "", "f")
        reader.close()
        assert reader.is_complete
    assert made.left_out == ("the whole schema, which no value fits",)


def test_a_call_that_was_cut_is_not_complete() -> None:
    reader = CallReader(("Read",))
    events = reader.feed(head("Read")) + reader.feed('{"file_path": "a}')
    assert reader.is_cut
    assert reader.close() == [ToolCallEnded(0, complete=False)]
    assert not reader.is_complete
    assert events == [ToolCallStarted(0, "", "Read"), ToolArgumentsAdded(0, '{"file_path": "a}')]


def test_the_beginning_of_a_call_that_was_cut_is_text() -> None:
    reader = CallReader(("Read", "Write"))
    assert reader.feed('{"name": "Re') == []
    assert reader.close() == [TextAdded('{"name": "Re')]


def test_what_is_no_call_is_text() -> None:
    reader = CallReader(("Read",))
    assert reader.feed("Hello {") == [TextAdded("Hello {")]


def test_brackets_and_quotes_in_strings_end_nothing() -> None:
    arguments = '{"a": "}\\"]{", "b": [{"c": "\\\\"}]}'
    events = CallReader(("x",)).feed(written(ToolCall("1", "x", arguments)))
    assert folded(events) == ([("x", arguments)], "")


def test_tools_take_one_line_each() -> None:
    assert described(TOOLS[:3]) == (
        "Tools:\n- Read(file_path, limit?): Reads a file. Use it often.\n- Re()\n- mcp__a__b(x?): Free."
    )


def test_the_bounds_shrink_with_the_room() -> None:
    tool = Tool("t", "", json.dumps({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}))
    for limit in (40, 120, 300):
        made = forced((tool,), most_calls=1, limit=limit)
        assert max(len(drawn(made, seed)) for seed in range(30)) <= limit
