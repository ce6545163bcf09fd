"""The length of an answer, and the context edits that clients ask for."""

from __future__ import annotations

import msgspec
import pytest

from qiao.core.conversation import (
    ClearThinking,
    ClearToolUses,
    Conversation,
    Edit,
    Image,
    Reasoning,
    Text,
    Tool,
    ToolCall,
    ToolResult,
    Turn,
)
from qiao.policies.context import (
    CLEARED,
    AppliedEdit,
    clamp_budget,
    clamp_max_tokens,
    estimate_tokens,
    token_trigger,
)
from qiao.policies.context import (
    apply_edits as apply_to,
)
from tests.policies.test_history import assistant, result, user


def apply_edits(
    turns: tuple[Turn, ...], edits: tuple[Edit, ...] | None, input_tokens: int | None
) -> tuple[tuple[Turn, ...], tuple[AppliedEdit, ...]]:
    return apply_to(Conversation("m", turns, edits=edits), input_tokens)


@pytest.mark.parametrize(
    ("asked", "window", "max_output", "expected"),
    [
        (32_000, None, None, 32_000),
        (32_000, 131_072, None, 32_000),
        (128_000, 40_960, None, 40_959),
        (128_000, 262_144, 65_536, 65_536),
        (0, 40_960, None, 1),
        (-3, None, None, 1),
        (100, 1, None, 1),
        (1, None, None, 1),
    ],
)
def test_clamp_max_tokens(asked: int, window: int | None, max_output: int | None, expected: int) -> None:
    allowed, notes = clamp_max_tokens(asked, window, max_output)
    assert allowed == expected
    assert bool(notes) == (asked != expected)


@pytest.mark.parametrize(
    ("budget", "max_tokens", "expected"), [(None, 5, None), (1024, 4096, 1024), (31_999, 8_191, 6_143), (1024, 1, 1)]
)
def test_clamp_budget(budget: int | None, max_tokens: int, expected: int | None) -> None:
    assert clamp_budget(budget, max_tokens) == expected


THOUGHTS = (
    user("a"),
    assistant(Reasoning("x" * 40), "1"),
    user("b"),
    assistant("2"),
    user("c"),
    assistant(Reasoning("y" * 80), "3"),
    user("d"),
)


@pytest.mark.parametrize(
    ("keep", "cleared", "tokens"), [(None, [], 0), (0, [1, 5], 30), (1, [1], 10), (2, [], 0), (3, [], 0)]
)
def test_clear_thinking(keep: int | None, cleared: list[int], tokens: int) -> None:
    turns, applied = apply_edits(THOUGHTS, (ClearThinking(keep),), None)
    for number, (before, after) in enumerate(zip(THOUGHTS, turns, strict=True)):
        assert (after != before) == (number in cleared)
        assert not (number in cleared and any(isinstance(part, Reasoning) for part in after.parts))
    expected = AppliedEdit("clear_thinking_20251015", tokens, cleared_thinking_turns=len(cleared))
    assert applied == ((expected,) if cleared else ())


def tool_uses(count: int) -> tuple[Turn, ...]:
    turns = [user("go")]
    for number in range(count):
        name = "Read" if number == 0 else "Bash"
        turns.append(assistant(ToolCall(f"t{number}", name, '{"path":"%s"}' % ("p" * 100))))
        turns.append(user(result(f"t{number}", "o" * 400)))
    return tuple(turns)


def cleared_ids(turns: tuple[Turn, ...]) -> list[str]:
    return [
        part.call_id
        for turn in turns
        for part in turn.parts
        if isinstance(part, ToolResult) and part.parts == (Text(CLEARED),)
    ]


@pytest.mark.parametrize(
    ("edit", "tokens", "expected"),
    [
        (ClearToolUses("tool_uses", 3, keep=2), None, ["t0", "t1", "t2"]),
        (ClearToolUses("tool_uses", 5, keep=2), None, []),
        (ClearToolUses("tool_uses", 3, keep=0), None, ["t0", "t1", "t2", "t3", "t4"]),
        (ClearToolUses("tool_uses", 3, keep=9), None, []),
        (ClearToolUses("tool_uses", 3, keep=2, exclude_tools=("Read",)), None, ["t1", "t2"]),
        (ClearToolUses("input_tokens", 1000, keep=3), 999, []),
        (ClearToolUses("input_tokens", 1000, keep=3), 1001, ["t0", "t1"]),
        (ClearToolUses("input_tokens", 100, keep=3), None, ["t0", "t1"]),
        (ClearToolUses("input_tokens", 10_000, keep=3), None, []),
        (ClearToolUses("tool_uses", 3, keep=2, clear_at_least=270), None, ["t0", "t1", "t2"]),
        (ClearToolUses("tool_uses", 3, keep=2, clear_at_least=271), None, []),
    ],
)
def test_clear_tool_uses(edit: ClearToolUses, tokens: int | None, expected: list[str]) -> None:
    before = tool_uses(5)
    after, applied = apply_edits(before, (edit,), tokens)
    assert cleared_ids(after) == expected
    assert [turn.role for turn in after] == [turn.role for turn in before]
    if not expected:
        assert (after, applied) == (before, ())
    else:
        # A counted prompt gives every estimate its scale.
        freed = 90 * len(expected) * (1 if tokens is None else tokens / (estimate_tokens(before) + 8 * len(before)))
        assert applied == (AppliedEdit("clear_tool_uses_20250919", round(freed), cleared_tool_uses=len(expected)),)


def test_what_was_cleared_before_is_not_counted_again() -> None:
    edit = ClearToolUses("tool_uses", 3, keep=2)
    once, _ = apply_edits(tool_uses(5), (edit,), None)
    assert apply_edits(once, (edit,), None) == (once, ())


def test_clear_tool_uses_clears_inputs_only_when_asked() -> None:
    edit = ClearToolUses("tool_uses", 1, keep=1, clear_inputs=True)
    after, applied = apply_edits(tool_uses(2), (edit,), None)
    arguments = [part.arguments for turn in after for part in turn.parts if isinstance(part, ToolCall)]
    assert arguments[0] == "{}"
    assert arguments[1] != "{}"
    assert applied[0].cleared_input_tokens > 90


@pytest.mark.parametrize(
    ("inputs", "expected"), [(False, []), (True, ["t0", "t1"]), (("Read",), ["t0"]), (("Write",), [])]
)
def test_whose_inputs_are_cleared(inputs: bool | tuple[str, ...], expected: list[str]) -> None:
    edit = ClearToolUses("tool_uses", 1, keep=1, clear_inputs=inputs)
    after, applied = apply_edits(tool_uses(3), (edit,), None)
    calls = [part for turn in after for part in turn.parts if isinstance(part, ToolCall)]
    assert [call.id for call in calls if call.arguments == "{}"] == expected
    assert applied[0].cleared_tool_uses == 2


def test_the_trigger_is_the_whole_prompt() -> None:
    """The head counts: a long system prompt or tool list alone may reach the trigger."""
    turns = tool_uses(2)
    edit = ClearToolUses("input_tokens", 1000, keep=1)
    whole = Conversation("m", turns, system=("s" * 2000,), tools=(Tool("f", "d" * 2000),), edits=(edit,))
    assert apply_to(whole)[1]
    assert not apply_to(msgspec.structs.replace(whole, system=()))[1]
    assert not apply_to(msgspec.structs.replace(whole, tools=()))[1]


def test_an_edit_before_counts_for_the_next() -> None:
    """What one edit clears no longer stands in the prompt that the next one looks at."""
    edits = (ClearThinking(0), ClearToolUses("input_tokens", 400, keep=0))
    thoughts = (user("a"), assistant(Reasoning("x" * 1200), ToolCall("1", "f", "{}")), user(result("1", "o" * 1000)))
    _, applied = apply_edits(thoughts, edits, None)
    assert [edit.kind for edit in applied] == ["clear_thinking_20251015"]
    _, applied = apply_edits(thoughts, edits[1:], None)
    assert [edit.kind for edit in applied] == ["clear_tool_uses_20250919"]


@pytest.mark.parametrize(
    ("edits", "trigger"),
    [
        (None, None),
        ((), None),
        ((ClearThinking(1), ClearToolUses("tool_uses", 3)), None),
        ((ClearToolUses(), ClearToolUses("input_tokens", 7)), 7),
    ],
)
def test_token_trigger(edits: tuple[Edit, ...] | None, trigger: int | None) -> None:
    assert token_trigger(Conversation("m", (), edits=edits)) == trigger


def test_edits_work_one_after_the_other_and_none_is_nothing() -> None:
    assert apply_edits(THOUGHTS, None, None) == (THOUGHTS, ())
    _, applied = apply_edits(
        (*THOUGHTS, *tool_uses(3)), (ClearThinking(0), ClearToolUses("tool_uses", 1, keep=1)), None
    )
    assert [edit.kind for edit in applied] == ["clear_thinking_20251015", "clear_tool_uses_20250919"]


def test_estimate_tokens() -> None:
    turns = (user("x" * 40, Image("image/png", "A" * 9999)), assistant(ToolCall("1", "f", "y" * 8)))
    assert estimate_tokens(turns) == 10 + 1500 + 2
