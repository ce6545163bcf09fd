"""The stage in the exchange: reasoning from either side, calls from either side, white space, numbers, repairs."""

from __future__ import annotations

import pytest

from qiao.core.dialects import DIALECTS, text_tools
from qiao.core.dialects.base import Dialect, Layout
from qiao.core.dialects.hermes import Hermes
from qiao.core.events import (
    Event,
    Failed,
    Finished,
    ReasoningAdded,
    TextAdded,
    ToolArgumentsAdded,
    ToolCallEnded,
    ToolCallStarted,
    Usage,
    UsageSeen,
)
from qiao.core.fault import Fault
from tests.core.dialects.answers import TOOLS

CALL = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'
F = [
    ToolCallStarted(0, "", "f"),
    ToolArgumentsAdded(0, '{"a": 1'),
    ToolArgumentsAdded(0, "}"),
    ToolCallEnded(0, raw=CALL.removesuffix("\n</tool_call>")),
]
STOP = Finished("stop")


def feed(*events: Event, dialect: str | None = "hermes") -> list[Event]:
    stage = text_tools(dialect, TOOLS["any"])
    return [out for event in events for out in stage.feed([event])]


def test_reasoning_that_the_engine_split_may_end_with_a_call() -> None:
    assert feed(ReasoningAdded(f"So.\n{CALL}"), STOP) == [ReasoningAdded("So."), *F, STOP]


@pytest.mark.parametrize("after", [TextAdded("\n\n"), TextAdded("Done."), ReasoningAdded(" or not")])
def test_a_call_in_reasoning_that_goes_on_or_is_closed_is_words(after: Event) -> None:
    out = feed(ReasoningAdded(f"So.\n{CALL}"), after, STOP)
    assert not any(isinstance(event, ToolCallStarted) for event in out)
    said = "".join(event.text for event in out if isinstance(event, ReasoningAdded | TextAdded))
    assert said.startswith(f"So.\n{CALL}")


def test_a_call_in_reasoning_that_was_cut_is_words() -> None:
    end = Finished("length")
    assert feed(ReasoningAdded(CALL), end)[:-1] == [ReasoningAdded(CALL)]
    assert feed(ReasoningAdded(CALL), Failed(Fault("api", "gone")))[0] == ReasoningAdded(CALL)


def test_reasoning_streams_while_there_is_no_call_in_it() -> None:
    stage = text_tools("hermes", TOOLS["any"])
    assert stage.feed([TextAdded("<think>one")]) == [ReasoningAdded("one")]
    assert stage.feed([TextAdded(" two <tool")]) == [ReasoningAdded(" two")]
    assert stage.feed([TextAdded("s> three")]) == [ReasoningAdded(" <tools> three")]


def test_a_call_of_the_engine_comes_behind_what_the_text_has_held() -> None:
    out = feed(
        TextAdded("Hi <tool"), ToolCallStarted(0, "c0", "f"), ToolArgumentsAdded(0, "{}"), ToolCallEnded(0), STOP
    )
    assert out[0:2] == [TextAdded("Hi"), TextAdded(" <tool")]
    assert out[2] == ToolCallStarted(0, "c0", "f")


def test_calls_of_both_kinds_are_numbered_together() -> None:
    out = feed(
        TextAdded(CALL),
        ToolCallStarted(0, "c0", "g"),
        ToolArgumentsAdded(0, "{}"),
        ToolCallEnded(0),
        TextAdded(CALL),
        STOP,
    )
    assert [event.index for event in out if isinstance(event, ToolCallStarted)] == [0, 1, 2]
    assert [event.index for event in out if isinstance(event, ToolCallEnded)] == [0, 1, 2]


def test_usage_passes_and_the_end_comes_last() -> None:
    usage = UsageSeen(Usage(1, 2))
    assert feed(TextAdded("Hi <"), usage, STOP) == [TextAdded("Hi"), usage, TextAdded(" <"), STOP]


def test_white_space_at_the_ends_is_layout() -> None:
    assert feed(TextAdded("\n Hi \n"), TextAdded("\n you \n"), STOP) == [TextAdded("Hi"), TextAdded(" \n\n you"), STOP]
    stage = text_tools("hermes", TOOLS["any"], keep_leading_space=True)
    assert stage.feed([TextAdded("\n Hi \n"), STOP]) == [TextAdded("\n Hi"), STOP]


def test_where_no_calls_are_read_white_space_is_the_models() -> None:
    stage = text_tools(None, (), keep_leading_space=True)
    assert stage.feed([TextAdded("\n Hi \n"), STOP]) == [TextAdded("\n Hi"), TextAdded(" \n"), STOP]


def test_repairs_are_named_with_their_tool() -> None:
    stage = text_tools("hermes", TOOLS["any"])
    stage.feed([TextAdded(CALL.replace("1}", "1,}").replace("arguments", "parameters")), STOP])
    assert stage.repairs == [("f", "parameters_key"), ("f", "trailing_comma")]


def test_without_repair_a_call_has_to_be_right() -> None:
    wrong = CALL.replace("1}", "1,}")
    stage = text_tools("hermes", TOOLS["any"], repair=False)
    out = stage.feed([TextAdded(wrong), STOP])
    assert not any(isinstance(event, ToolCallEnded) and event.complete for event in out)
    assert text_tools("hermes", TOOLS["any"], repair=False).feed([TextAdded(CALL), STOP]) == [*F, STOP]


@pytest.mark.parametrize("name", DIALECTS)
def test_a_dialect_alone_yields_events_only(name: str) -> None:
    dialect = DIALECTS[name](TOOLS["any"])
    out = [*dialect.feed(f"Hi\n{CALL}\n"), *dialect.close(cut=False)]
    assert not any(isinstance(event, Layout) for event in out)


def test_a_very_long_line_with_fence_marks_is_the_same_in_pieces() -> None:
    text = "```" + "x" * 300 + f"```json\n{CALL}"
    stages = text_tools("hermes", TOOLS["any"]), text_tools("hermes", TOOLS["any"])
    whole = stages[0].feed([TextAdded(text), STOP])
    pieces = [out for event in [*map(TextAdded, text), STOP] for out in stages[1].feed([event])]
    calls = [[event for event in events if isinstance(event, ToolCallEnded)] for events in (whole, pieces)]
    assert calls[0] == calls[1]


def test_layout_makes_the_text_whole_again() -> None:
    dialect = Hermes(TOOLS["any"])
    pieces = [*dialect.read(f"Hi\n{CALL}\n\n<tool_call></tool_call>"), *dialect.finish(cut=False)]
    assert pieces == [
        TextAdded("Hi\n"),
        *F,
        Layout("\n"),
        Layout("</tool_call>"),
        TextAdded("\n\n"),
        Layout("<tool_call></tool_call>"),
    ]


@pytest.mark.parametrize("name", DIALECTS)
def test_a_dialect_that_declares_candidates_reads_them(name: str) -> None:
    """The base class cannot: it raises."""
    dialect = DIALECTS[name]
    assert (dialect.candidates is not None) == (dialect.candidate is not Dialect.candidate)
