"""Reasoning in the text: where it begins and ends, however the text is cut."""

from __future__ import annotations

import pytest

from qiao.core.conversation import Tool
from qiao.core.dialects import text_tools
from qiao.core.events import Event, Finished, ReasoningAdded, TextAdded, ToolCallEnded, ToolCallStarted
from qiao.core.reasoning import ReasoningSplitter, UnwantedReasoning
from qiao.core.stops import StopScanner


def split(text: str, *, is_open: bool = False, tags: tuple[str, str] | None = None) -> tuple[str, str, bool]:
    """Reasoning, text, and whether the reasoning is still open; the same for every cut."""
    found = set()
    for pieces in ([text], list(text), [text[start : start + 3] for start in range(0, len(text), 3)]):
        splitter = ReasoningSplitter(is_open=is_open, tags=tags or ("<think>", "</think>"))
        parts = [part for piece in pieces for part in splitter.feed(piece)]
        is_inside = splitter.is_inside
        parts += splitter.close()
        reasoning = "".join(part.text for part in parts if isinstance(part, ReasoningAdded))
        words = "".join(part.text for part in parts if isinstance(part, TextAdded))
        kinds = [type(part) for part in parts]
        assert kinds == sorted(kinds, key=lambda kind: kind is TextAdded)
        found.add((reasoning, words, is_inside))
    assert len(found) == 1
    return found.pop()


@pytest.mark.parametrize(
    ("text", "reasoning", "words", "is_inside"),
    [
        ("<think>a</think>b", "a", "b", False),
        ("\n <think>\na\n</think>\n\nb", "\na\n", "\n\nb", False),
        ("<think></think>b", "", "b", False),
        ("<think>a", "a", "", True),
        ("<think>a</thi", "a</thi", "", True),
        ("<think>a</think>b <think>c</think>", "a", "b <think>c</think>", False),
        ("<think>a <think>b</think>c", "a <think>b", "c", False),
        ("a <think>b</think>", "", "a <think>b</think>", False),
        ("a</think>b", "", "a</think>b", False),
        ("<thinking>a", "", "<thinking>a", False),
        ("<thin", "", "<thin", False),
        ("  ", "", "  ", False),
        ("", "", "", False),
    ],
)
def test_reasoning_begins_with_its_tag(text: str, reasoning: str, words: str, is_inside: bool) -> None:
    assert split(text) == (reasoning, words, is_inside)


@pytest.mark.parametrize(
    ("text", "reasoning", "words", "is_inside"),
    [
        ("a</think>b", "a", "b", False),
        ("\na\n</think>\n\nb", "\na\n", "\n\nb", False),
        ("<think>a</think>b", "a", "b", False),
        ("a", "a", "", True),
        ("</think>b", "", "b", False),
        ("", "", "", True),
        ("\n<thi", "\n<thi", "", True),
    ],
)
def test_reasoning_that_the_template_opened(text: str, reasoning: str, words: str, is_inside: bool) -> None:
    assert split(text, is_open=True) == (reasoning, words, is_inside)


def test_other_tags() -> None:
    assert split("[THINK]a[/THINK]b", tags=("[THINK]", "[/THINK]")) == ("a", "b", False)


def test_the_end_is_told_although_no_text_follows() -> None:
    assert ReasoningSplitter().feed("<think>a</think>") == [ReasoningAdded("a"), TextAdded("")]


def test_what_the_engine_has_split_is_not_split_again() -> None:
    splitter = ReasoningSplitter(is_open=True)
    assert splitter.feed("\n") == []
    assert splitter.leave() == [ReasoningAdded("\n")]
    assert splitter.feed("<think>a</think>") == [TextAdded("<think>a</think>")]


@pytest.mark.parametrize(
    ("events", "wanted"),
    [
        ([ReasoningAdded("Hm. "), TextAdded("Hi"), Finished("stop")], [TextAdded("Hi"), Finished("stop")]),
        (
            [ReasoningAdded(" It is "), ReasoningAdded("42.\n"), Finished("stop")],
            [TextAdded("It is 42."), Finished("stop")],
        ),
        ([ReasoningAdded("I was cu"), Finished("length")], [Finished("length")]),
        (
            [ReasoningAdded("Hm."), ToolCallStarted(0, "c", "f"), ToolCallEnded(0), Finished("tool_calls")],
            [ToolCallStarted(0, "c", "f"), ToolCallEnded(0), Finished("tool_calls")],
        ),
        ([Finished("stop")], [Finished("stop")]),
    ],
    ids=["words follow", "nothing else", "cut", "a call follows", "nothing at all"],
)
def test_reasoning_that_nobody_asked_for_is_kept_back(events: list[Event], wanted: list[Event]) -> None:
    whole, single = UnwantedReasoning(), UnwantedReasoning()
    assert whole.feed(events) == wanted
    assert [out for event in events for out in single.feed([event])] == wanted


# -- reasoning that an engine has split off, and ended too early ------------------------------------------------------

CALL = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'


@pytest.mark.parametrize(
    ("behind", "wanted"),
    [
        # vLLM took the call for the end of the reasoning; the closing tag shows that it was not.
        (f"{CALL}\n</think>\n\nNo call.", f"R maybe {CALL} T No call."),
        (f"{CALL}</think>", f"R maybe {CALL}"),
        # The closing tag never comes: it is a call, and what follows is text.
        (CALL, "R maybe C f"),
        (f"{CALL}\nAfter.", "R maybe C f T After."),
        # The line break behind the reasoning says that the model has closed it.
        (f"\n\n{CALL}\n</think>\n\nb", "R maybe C f T </think>\n\nb"),
        ("a </think> b", "R maybe T a </think> b"),
        ("<tool", "R maybe T <tool"),
        ("</think> b", "R maybe T </think> b"),
    ],
)
def test_a_call_that_the_engine_took_for_the_end_of_the_reasoning(behind: str, wanted: str) -> None:
    found = set()
    for pieces in ([behind], list(behind), [behind[start : start + 3] for start in range(0, len(behind), 3)]):
        stage = text_tools("hermes", (Tool("f"),), doubts_engine=True)
        events: list[Event] = [ReasoningAdded("maybe "), *(TextAdded(piece) for piece in pieces), Finished("stop")]
        told: list[tuple[str, str]] = []
        for event in stage.feed(events):
            match event:
                case ReasoningAdded() | TextAdded():
                    kind = "R" if isinstance(event, ReasoningAdded) else "T"
                    if told and told[-1][0] == kind:
                        kind, before = told.pop()
                        told.append((kind, before + event.text))
                    else:
                        told.append((kind, event.text))
                case ToolCallStarted():
                    told.append(("C", event.name))
                case _:
                    pass
        found.add(" ".join(f"{kind} {text}" for kind, text in told))
    assert found == {wanted}


@pytest.mark.parametrize("size", [1, 2, 50])
def test_a_stop_string_in_reasoning_and_in_text(size: int) -> None:
    def pieces(kind: type[ReasoningAdded] | type[TextAdded], text: str) -> list[Event]:
        return [kind(text[start : start + size]) for start in range(0, len(text), size)]

    told = StopScanner(["STOP"]).feed([*pieces(ReasoningAdded, "ab ST"), *pieces(TextAdded, "OP c STOP d")])
    assert "".join(event.text for event in told if isinstance(event, ReasoningAdded)) == "ab ST"
    assert "".join(event.text for event in told if isinstance(event, TextAdded)) == "OP c "
    assert told[-1] == Finished("stop_sequence", "STOP")
    told = StopScanner(["STOP"]).feed([*pieces(ReasoningAdded, "ab STOP c"), *pieces(TextAdded, "d")])
    assert "".join(event.text for event in told if isinstance(event, ReasoningAdded)) == "ab "
    assert told[-1] == Finished("stop_sequence", "STOP")
