"""Reasoning in the text: where it begins and ends, however the text is cut."""

from __future__ import annotations

import pytest

from qiao.core.events import Event, Finished, ReasoningAdded, TextAdded, ToolCallEnded, ToolCallStarted
from qiao.core.reasoning import ReasoningSplitter, UnwantedReasoning


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
