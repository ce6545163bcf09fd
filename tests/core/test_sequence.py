"""Structured calls of an engine that does not write them right: names, values, calls that break."""

from __future__ import annotations

import json

import pytest

from qiao.core.conversation import Tool
from qiao.core.events import (
    Event,
    Finished,
    TextAdded,
    ToolArgumentsAdded,
    ToolCallEnded,
    ToolCallStarted,
)
from qiao.core.fold import CallBlock, TextBlock, fold
from qiao.core.sequence import Sequencer

TOOLS = (
    Tool("get_weather", parameters='{"type":"object","properties":{"days":{"type":"integer"}},"required":["days"]}'),
)


def run(*events: Event, repair: bool = True) -> tuple[list[Event], Sequencer]:
    sequencer = Sequencer(id_prefix="toolu", tools=TOOLS, repair=repair)
    return [out for event in events for out in sequencer.feed([event])], sequencer


def call(name: str, arguments: str, *, index: int = 0) -> list[Event]:
    return [ToolCallStarted(index, f"c{index}", name), ToolArgumentsAdded(index, arguments)]


def test_names_and_values_of_structured_calls_are_mended() -> None:
    out, sequencer = run(*call("Get-Weather", '{"days": "2"}'), Finished("tool_calls"))
    assert fold(out).blocks == (CallBlock("c0", "get_weather", '{"days": 2}'),)
    assert sequencer.repairs == [("get_weather", "near_name"), ("get_weather", "string_to_number")]


def test_without_repair_they_stay() -> None:
    out, sequencer = run(*call("Get-Weather", '{"days": "2"}'), Finished("tool_calls"), repair=False)
    assert fold(out).blocks == (CallBlock("c0", "Get-Weather", '{"days": "2"}'),)
    assert sequencer.repairs == []


def test_an_undeclared_tool_is_passed_on() -> None:
    out, _ = run(*call("nope", '{"days": "2"}'), Finished("tool_calls"))
    assert fold(out).blocks == (CallBlock("c0", "nope", '{"days": "2"}'),)


def test_a_call_that_breaks_after_its_first_bytes_passes_for_one_that_was_cut() -> None:
    out, _ = run(*call("nope", '{"a": "x", "b": 1 2}'), Finished("tool_calls"))
    assert any(isinstance(event, ToolCallEnded) and not event.complete for event in out)
    assert out[-1] == Finished("length", of_whole="stop")
    answer = fold(out)
    assert answer.finish == Finished("stop")
    assert answer.blocks == (
        TextBlock('<tool_call>\n{"name": "nope", "arguments": {"a": "x", "b": 1 2}}\n</tool_call>'),
    )


def test_a_good_call_behind_one_that_broke_counts_in_a_whole_answer() -> None:
    out, _ = run(*call("nope", '{"a": "x", "b": 1 2}'), *call("nope", '{"a": 1}', index=1), Finished("tool_calls"))
    assert out[-1] == Finished("length", of_whole="tool_calls")
    assert fold(out).finish == Finished("tool_calls")
    assert fold(out).blocks[1:] == (CallBlock("c1", "nope", '{"a": 1}'),)


@pytest.mark.parametrize(
    "arguments", ['{"days": 2, "city": "Paris"', '{"days": 2, "city": "Par\\', '{"days": 2, "city"']
)
def test_a_call_that_was_cut_is_given_back_letter_for_letter(arguments: str) -> None:
    out, _ = run(TextAdded("I look."), *call("Get-Weather", arguments), Finished("length"))
    words = f'I look.\n<tool_call>\n{{"name": "Get-Weather", "arguments": {arguments}'
    assert fold(out).blocks == (TextBlock(words),)
    assert fold(out).finish == Finished("length")


def test_a_call_that_breaks_before_its_first_bytes_is_text() -> None:
    out, _ = run(*call("nope", "[1]"), Finished("tool_calls"))
    answer = fold(out)
    assert answer.finish == Finished("stop")
    assert isinstance(answer.blocks[0], TextBlock)


def test_a_cut_call_gives_the_text_that_the_model_wrote() -> None:
    raw = " <tool_call>\n<function=f>\n<parameter=a>\nx"
    out, _ = run(
        TextAdded("I look."),
        *call("f", '{"a": "x'),
        ToolCallEnded(0, complete=False, raw=raw),
        TextAdded(" and on"),
        Finished("length"),
    )
    assert fold(out).blocks == (TextBlock("I look." + raw + " and on"),)
    assert json.loads(json.dumps("".join(e.text for e in out if isinstance(e, ToolArgumentsAdded)))) == '{"a": "x'


def test_a_complete_call_before_a_stop_string_is_a_call() -> None:
    out, _ = run(*call("f", "{}"), Finished("stop_sequence", "END"))
    assert out[-1] == Finished("tool_calls")
    out, _ = run(*call("f", '{"a": "x'), Finished("stop_sequence", "END"))
    assert out[-1] == Finished("stop_sequence", "END")


@pytest.mark.parametrize("rest", [', "id": "x"', ', "name": "nope"}', ',"type":"function","id":1 }\n', ","])
def test_what_an_engine_takes_along_of_the_object_round_the_arguments_is_no_text(rest: str) -> None:
    out, sequencer = run(*call("nope", '{"a": 1}' + rest), Finished("tool_calls"))
    assert fold(out).blocks == (CallBlock("c0", "nope", '{"a": 1}'),)
    assert sequencer.repairs == [("nope", "trailing_members")]


@pytest.mark.parametrize("rest", ['"id": "x"', ', "note": "x"', ", and so on", ', "id": {'])
def test_other_words_behind_the_arguments_are_text(rest: str) -> None:
    out, sequencer = run(*call("nope", '{"a": 1} ' + rest), Finished("tool_calls"))
    assert fold(out).blocks[1:] == (TextBlock(rest),)
    assert sequencer.repairs == [("nope", "trailing_text")]
