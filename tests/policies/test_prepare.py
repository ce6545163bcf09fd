"""The whole preparation: what only shows when the policies work together. The rest is in the golden cases."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from qiao.core.conversation import (
    ClearThinking,
    Conversation,
    Image,
    Reasoning,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    Turn,
)
from qiao.core.openai.target import Target
from qiao.policies import Switches, prepare
from qiao.policies.quirks import Quirks
from qiao.profiles import find
from tests.policies.test_history import assistant, call, result, system, user

QWEN3 = find("qwen3-235b")
KEEPS = find("Qwen3.6-35B-A3B")
TARGET = Target(model="m")
PNG = Image("image/png", "AA")


def conversation(*turns: Turn, **fields: Any) -> Conversation:
    return Conversation(model="m", turns=turns or (user("go"),), **{"max_tokens": 100, **fields})


def kwargs_of(prepared_extras: dict[str, msgspec.Raw]) -> dict[str, object]:
    raw = prepared_extras.get("chat_template_kwargs")
    return {} if raw is None else msgspec.json.decode(raw)


THOUGHT = (user("a"), assistant(Reasoning("hm"), "x"), user("b"))


@pytest.mark.parametrize(
    ("profile", "switch", "target", "stays", "kwargs"),
    [
        (QWEN3, None, TARGET, False, {}),
        (QWEN3, "send", TARGET, True, {}),
        (QWEN3, "keep", TARGET, True, {}),
        (KEEPS, None, TARGET, True, {"preserve_thinking": True}),
        (KEEPS, "send", TARGET, True, {}),
        (KEEPS, "drop", TARGET, False, {}),
        (find("glm-4.7"), None, TARGET, True, {"clear_thinking": False}),
        (find("Qwen3-4B-Instruct-2507"), "send", TARGET, False, {}),
        (KEEPS, None, msgspec.structs.replace(TARGET, reasoning_field=None), False, {}),
        (KEEPS, None, msgspec.structs.replace(TARGET, template_kwargs=False), True, {}),
    ],
)
def test_reasoning_of_earlier_turns(
    profile: Any, switch: Any, target: Target, stays: bool, kwargs: dict[str, object]
) -> None:
    prepared = prepare(conversation(*THOUGHT), profile, target=target, switches=Switches(reasoning=switch))
    parts = prepared.conversation.turns[1].parts
    assert any(isinstance(part, Reasoning) for part in parts) == stays
    assert kwargs_of(prepared.conversation.extras) == kwargs


def test_what_the_upstream_refused_is_learned() -> None:
    asked = conversation(user("a", PNG), system("s"), stop=("x", "y"))
    free = prepare(asked, find("unknown"), target=TARGET)
    assert PNG in free.conversation.turns[0].parts
    assert free.conversation.turns[1].role == "system"
    learned = prepare(
        asked, find("unknown"), target=TARGET, quirks=Quirks(fold_system=True, no_images=True, stop_limit=1)
    )
    assert [turn.role for turn in learned.conversation.turns] == ["user"]
    assert not any(isinstance(part, Image) for part in learned.conversation.turns[0].parts)
    assert learned.conversation.stop == ("x",)
    assert learned.scan_stops == ("x", "y")
    no_variables = prepare(
        conversation(thinking=Thinking("on")), QWEN3, target=TARGET, quirks=Quirks(no_template_kwargs=True)
    )
    assert no_variables.conversation.extras == {}


def test_an_engine_of_another_protocol_gets_all_stops_and_no_template_variables() -> None:
    prepared = prepare(conversation(stop=tuple("abcdef"), thinking=Thinking("off")), QWEN3)
    assert prepared.conversation.stop == tuple("abcdef")
    assert prepared.scan_stops == ()
    assert prepared.conversation.extras == {}


def test_one_call_and_warm_only() -> None:
    single = ToolChoice(parallel=False)
    assert prepare(conversation(tools=(Tool("f"),), tool_choice=single), QWEN3).one_call
    assert not prepare(conversation(tool_choice=single), QWEN3).one_call
    assert not prepare(conversation(tools=(Tool("f"),)), QWEN3).one_call
    warm = prepare(conversation(max_tokens=0), QWEN3)
    assert warm.warm_only
    assert warm.conversation.max_tokens == 1
    assert not prepare(conversation(), QWEN3).warm_only


def test_a_budget_follows_a_limit_that_was_cut() -> None:
    target = msgspec.structs.replace(TARGET, thinking_budget=True)
    asked = conversation(thinking=Thinking("on", budget=31_999), max_tokens=32_000)
    assert prepare(asked, QWEN3, target=target).conversation.thinking.budget == 31_999
    assert prepare(asked, QWEN3, target=target, window=8_192).conversation.thinking.budget == 6_143


def test_a_call_left_at_the_end_is_no_prefill() -> None:
    prepared = prepare(
        conversation(user("a"), assistant("x", call("1")), thinking=Thinking("on")), QWEN3, target=TARGET
    )
    assert not prepared.conversation.is_prefill
    assert prepared.conversation.thinking.mode == "on"


def test_edits_are_reported() -> None:
    prepared = prepare(conversation(*THOUGHT, edits=(ClearThinking(0),)), KEEPS, target=TARGET)
    assert [edit.kind for edit in prepared.applied_edits] == ["clear_thinking_20251015"]
    assert prepare(conversation(*THOUGHT, edits=(ClearThinking(None),)), KEEPS).applied_edits == ()


def test_a_picture_in_a_folded_tool_turn_comes_after_results_and_reminders() -> None:
    seeing = find("Qwen3.5-27B")
    turns = (user("a"), assistant(call("1")), Turn("user", (msgspec.structs.replace(result("1", "x"), parts=(PNG,)),)))
    prepared = prepare(conversation(*turns, system("s")), seeing, target=TARGET)
    last = prepared.conversation.turns[-1].parts
    assert last[0] == result("1", "[image 1: shown after the tool results]", "<system-reminder>\ns\n</system-reminder>")
    assert last[1:] == (Text("[image 1 of the tool results above]"), PNG)


def test_the_client_s_own_value_is_not_changed() -> None:
    asked = conversation(user("a", ""), assistant(ToolCall("", "f", "")), tools=(Tool("f"),))
    before = repr(asked)
    prepare(asked, QWEN3, target=TARGET)
    assert repr(asked) == before


# -- a server that has a tool parser ----------------------------------------------------------------------------------

PASSED = Quirks(calls_as_text="hermes", structural_tags=True, splits_reasoning=True)
WEATHER = Tool("get_weather")


def test_calls_are_read_past_a_parser_that_leaves_them_alone() -> None:
    asked = conversation(tools=(WEATHER,), stop=("END",))
    found = prepare(asked, QWEN3, target=TARGET, quirks=PASSED)
    assert (found.dialect, found.conversation.tool_choice.mode) == ("hermes", "none")
    assert "tools: read from the text, hermes (past the engine's parser)" in found.notes
    # What holds text back is watched for here, and in a stream.
    assert (found.conversation.stop, found.scan_stops, found.conversation.stream) == ((), ("END",), True)
    for profile, quirks, parser in (
        (QWEN3, PASSED, "engine"),
        (QWEN3, Quirks(structural_tags=True), "auto"),
        (find("qwen3-coder-30b"), PASSED, "auto"),
        (find("unheard-of"), PASSED, "auto"),
        (find("unheard-of"), Quirks(), "auto"),
    ):
        found = prepare(asked, profile, target=TARGET, quirks=quirks, switches=Switches(tool_parser=parser))
        assert (found.dialect, found.conversation.tool_choice.mode) == (None, "auto"), (profile.family, parser)
        assert (found.conversation.stop, found.scan_stops, found.conversation.stream) == (("END",), (), False)


@pytest.mark.parametrize("mode", ["any", "tool"])
def test_a_forced_call_is_left_to_the_engine_where_no_tag_binds_it(mode: Any) -> None:
    asked = conversation(tools=(WEATHER,), tool_choice=ToolChoice(mode, name="get_weather"))
    found = prepare(asked, QWEN3, target=TARGET, quirks=PASSED)
    assert (found.grammar, found.conversation.tool_choice.mode) == ("tags", "none")
    begun = msgspec.structs.replace(asked, turns=(*asked.turns, assistant("So:")))
    found = prepare(begun, QWEN3, target=TARGET, quirks=PASSED)
    assert (found.dialect, found.conversation.tool_choice.mode) == (None, mode)
    assert "tool_choice: left to the engine's own grammar" in found.notes
    # What makes no structural tag makes no grammar of the engine's own either.
    refused = msgspec.structs.replace(PASSED, no_structure=True)
    found = prepare(asked, QWEN3, target=TARGET, quirks=refused)
    assert (found.dialect, found.conversation.tool_choice.mode, found.insists) == ("hermes", "none", True)


@pytest.mark.parametrize(
    ("model", "mode", "found", "wanted"),
    [
        ("Qwen3.5-35B-A3B", "default", True, "open"),
        ("Qwen3.6-35B-A3B", "off", True, "tag"),
        ("Qwen3.6-35B-A3B", "on", False, "tag"),
        ("Qwen3.6-35B-A3B", "on", None, "tag"),
        ("deepseek-v3.1", "default", True, "tag"),
        ("deepseek-v3.1", "on", True, "open"),
        ("qwen3-235b", "on", None, "tag"),
        ("qwen3-235b", "on", True, "open"),
        ("Qwen3-30B-A3B-Thinking-2507", "default", None, "open"),
    ],
)
def test_a_template_that_opens_the_reasoning(model: str, mode: Any, found: bool | None, wanted: str) -> None:
    """What a probe saw counts; where there was none, only a model that cannot but think is taken to be thinking."""
    prepared = prepare(conversation(thinking=Thinking(mode)), find(model), quirks=Quirks(opens_reasoning=found))
    assert prepared.reasoning == wanted
