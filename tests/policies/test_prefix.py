"""System turns folded into their neighbours, and reasoning dropped."""

from __future__ import annotations

import pytest

from qiao.core.conversation import Reasoning, Text, ToolCall, Turn
from qiao.policies.prefix import drop_reasoning, fold_system
from tests.policies.test_history import assistant, call, result, system, user

S = "<system-reminder>\ns\n</system-reminder>"
T = "<system-reminder>\nt\n</system-reminder>"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([user("a"), system("s")], [user("a", S)]),
        ([system("s"), user("a")], [user(S, "a")]),
        ([user("a"), system("s"), user("b")], [user("a", S, "b")]),
        ([user("a"), assistant("x"), system("s"), user("b")], [user("a"), assistant("x"), user(S, "b")]),
        (
            [user("a"), assistant("x"), system("s"), assistant("y")],
            [user("a"), assistant("x"), user(S), assistant("y")],
        ),
        ([user("a"), assistant("x"), system("s")], [user("a"), assistant("x"), user(S)]),
        ([system("s")], [user(S)]),
        (
            [user("a"), assistant(call("1")), user(result("1", "out")), system("s")],
            [user("a"), assistant(call("1")), user(result("1", "out", S))],
        ),
        (
            [user("a"), assistant(call("1")), user(result("1", "out"), "side"), system("s"), user("b"), system("t")],
            [user("a"), assistant(call("1")), user(result("1", "out"), "side", S, "b", T)],
        ),
        (
            [user("a"), system("<system-reminder>x</system-reminder>")],
            [user("a", "<system-reminder>x</system-reminder>")],
        ),
    ],
)
def test_fold_system(given: list[Turn], expected: list[Turn]) -> None:
    folded, notes = fold_system(tuple(given))
    assert list(folded) == expected
    assert notes == (f"system: turns folded into their neighbours: {sum(turn.role == 'system' for turn in given)}",)


def test_without_system_turns_nothing_is_noted() -> None:
    turns = (user("a"), assistant("x"), user("b"))
    assert fold_system(turns) == (turns, ())


def test_drop_reasoning() -> None:
    turns = (user("a"), assistant(Reasoning("hm"), "x", ToolCall("1", "f", "{}")), assistant(Reasoning("hm")))
    dropped, notes = drop_reasoning(turns)
    assert dropped == (user("a"), Turn("assistant", (Text("x"), ToolCall("1", "f", "{}"))), assistant())
    assert notes == ("reasoning: earlier turns it was dropped from: 2",)
