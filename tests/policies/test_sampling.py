"""Thinking, effort, stop strings and the answer's form, per model and engine."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from qiao.core.conversation import Conversation, Sampling, Text, Thinking, ToolChoice, Turn
from qiao.core.openai.target import Target
from qiao.policies.sampling import (
    clamp_effort,
    clamp_sampling,
    decide_thinking,
    divide_stops,
    merge_template_kwargs,
    settle_schema,
)
from qiao.profiles import Profile, find
from qiao.profiles.engines import target_for

HYBRID = find("qwen3-235b")
ALWAYS = find("openai/gpt-oss-120b")
NEVER = find("Qwen3-235B-A22B-Instruct-2507")
OFF_BY_DEFAULT = find("DeepSeek-V3.1")
ALL = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
VLLM = Target(model="m", effort_values=ALL, thinking_budget=True)
BARE = Target(model="m", flavor="openai", template_kwargs=False)


def decided(
    thinking: Thinking, profile: Profile, target: Target = VLLM, *, prefill: bool = False
) -> tuple[str, int | None, str | None, dict[str, object]]:
    turns = (Turn("user", (Text("a"),)), *((Turn("assistant", (Text("b"),)),) if prefill else ()))
    conversation = Conversation(model="m", turns=turns, thinking=thinking)
    result, kwargs, _ = decide_thinking(conversation, profile, target)
    assert result.shown == thinking.shown
    return result.mode, result.budget, result.effort, kwargs


@pytest.mark.parametrize(
    ("thinking", "profile", "target", "expected"),
    [
        # A hybrid: on, off, and what it does by itself.
        (Thinking("on"), HYBRID, VLLM, ("on", None, None, {"enable_thinking": True})),
        (Thinking("on", 2048, "low", False), HYBRID, VLLM, ("on", 2048, "low", {"enable_thinking": True})),
        (Thinking("off"), HYBRID, VLLM, ("off", None, "none", {"enable_thinking": False})),
        (Thinking("off", effort="high"), HYBRID, Target(model="m"), ("off", None, None, {"enable_thinking": False})),
        (Thinking(), HYBRID, VLLM, ("default", None, None, {})),
        # An effort alone would switch thinking on in vLLM; the template's own default is stated instead.
        (Thinking(effort="high"), HYBRID, VLLM, ("default", None, "high", {"enable_thinking": True})),
        (Thinking(effort="high"), OFF_BY_DEFAULT, VLLM, ("default", None, "high", {"thinking": False})),
        (Thinking(effort="high"), HYBRID, Target(model="m"), ("default", None, None, {})),
        (Thinking("on"), OFF_BY_DEFAULT, VLLM, ("on", None, None, {"thinking": True})),
        # A model that never reasons is asked for nothing.
        (Thinking("on", 2048, "high"), NEVER, VLLM, ("default", None, None, {})),
        (Thinking("off"), NEVER, VLLM, ("default", None, None, {})),
        # A model that cannot stop: never "none", its thoughts would come out as the answer.
        (Thinking("off"), ALWAYS, VLLM, ("off", None, "minimal", {})),
        (Thinking("off"), ALWAYS, target_for("vllm", None, "gpt-oss-20b"), ("off", None, "low", {})),
        (Thinking("on", effort="max"), ALWAYS, target_for("vllm", None, "gpt-oss-20b"), ("on", None, "high", {})),
        # An engine without template variables: the effort is the only switch.
        (Thinking("off"), HYBRID, BARE, ("off", None, None, {})),
        (Thinking("off"), HYBRID, target_for("openai", None, "gpt-5"), ("off", None, "low", {})),
        # llama.cpp hands variables to the template but has no field.
        (
            Thinking("on", effort="high"),
            find("Qwen3.8-27B"),
            target_for("llamacpp", None, "Qwen3.8-27B"),
            ("on", None, None, {"enable_thinking": True, "reasoning_effort": "medium"}),
        ),
    ],
)
def test_thinking(thinking: Thinking, profile: Profile, target: Target, expected: object) -> None:
    assert decided(thinking, profile, target) == expected


def test_a_prefill_turns_thinking_off() -> None:
    assert decided(Thinking("on", 2048), HYBRID, prefill=True) == ("off", None, "none", {"enable_thinking": False})


@pytest.mark.parametrize("engine", ["vllm", "sglang", "llamacpp", "openai"])
@pytest.mark.parametrize("version", [None, "0.11.2", "0.33.0"])
def test_claude_code_s_effort_never_reaches_a_template_that_raises_on_it(engine: Any, version: str | None) -> None:
    """Qwen3.8 takes low, medium and xhigh; high, which Claude Code always sends, was HTTP 500 (Qwen3.8#217)."""
    target = target_for(engine, version, "Qwen/Qwen3.8-27B-FP8")
    _, _, effort, kwargs = decided(Thinking("on", effort="high"), find("Qwen/Qwen3.8-27B-FP8"), target)
    assert {effort, kwargs.get("reasoning_effort")} <= {None, "medium"}


@pytest.mark.parametrize(
    ("asked", "known", "expected"),
    [
        (None, ALL, None),
        ("high", ALL, "high"),
        ("max", ("low", "medium", "high"), "high"),
        ("high", ("low", "medium", "xhigh"), "medium"),
        ("minimal", ("low", "high"), "low"),
        ("none", ("low", "high"), "low"),
        ("low", ("none",), None),
        ("odd", ("low",), None),
        ("odd", ("odd",), "odd"),
        ("low", (), None),
    ],
)
def test_clamp_effort(asked: str | None, known: tuple[str, ...], expected: str | None) -> None:
    assert clamp_effort(asked, known) == expected


def test_template_variables_of_the_client_win_and_other_extras_stay() -> None:
    extras = {
        "chat_template_kwargs": msgspec.Raw(b'{"enable_thinking":false,"lang":"zh"}'),
        "seed": msgspec.Raw(b"7"),
    }
    merged = merge_template_kwargs(extras, {"enable_thinking": True, "preserve_thinking": True})
    assert json.loads(bytes(merged["chat_template_kwargs"])) == {
        "enable_thinking": False,
        "preserve_thinking": True,
        "lang": "zh",
    }
    assert bytes(merged["seed"]) == b"7"
    assert merge_template_kwargs({}, {}) == {}
    assert merge_template_kwargs({"chat_template_kwargs": msgspec.Raw(b"[]")}, {}) == {}


@pytest.mark.parametrize(
    ("stops", "flavor", "limit", "to_engine", "to_scan"),
    [
        ((), "vllm", 4, (), ()),
        (("a", "b"), "vllm", 4, ("a", "b"), ()),
        (("a", "", "b"), "vllm", 2, ("a", "b"), ()),
        (("a", "b", "c"), "vllm", 2, ("a", "b"), ("a", "b", "c")),
        (tuple("abcdef"), "sglang", None, tuple("abcdef"), ()),
        (("a",), "openai", 4, (), ("a",)),
        (("a",), "llamacpp", None, (), ("a",)),
    ],
)
def test_divide_stops(
    stops: tuple[str, ...], flavor: Any, limit: int | None, to_engine: tuple[str, ...], to_scan: tuple[str, ...]
) -> None:
    assert divide_stops(stops, Target(model="m", flavor=flavor, stop_limit=limit)) == (to_engine, to_scan)


def test_sampling_stays_inside_what_vllm_takes() -> None:
    assert clamp_sampling(Sampling()) == Sampling()
    assert clamp_sampling(Sampling(0.3, 0.9, 20)) == Sampling(0.3, 0.9, 20)
    wild = clamp_sampling(Sampling(9.0, 0.0, -5))
    assert wild.temperature == 2
    assert wild.top_p is not None
    assert 0 < wild.top_p < 0.01
    assert wild.top_k == -1


def test_a_schema_is_enforced_only_while_no_tool_can_be_called() -> None:
    asked = Conversation(model="m", turns=(), output_schema='{"type":"object"}')
    assert settle_schema(asked, has_tools=False) == ('{"type":"object"}', (), ())
    none = msgspec.structs.replace(asked, tool_choice=ToolChoice("none"))
    assert settle_schema(none, has_tools=True)[0] == '{"type":"object"}'
    schema, head, notes = settle_schema(asked, has_tools=True)
    assert schema is None
    assert head[0].endswith('\n{"type":"object"}')
    assert notes == ("output schema: asked for in words, tools are offered",)
    assert settle_schema(msgspec.structs.replace(asked, output_schema=None), has_tools=True) == (None, (), ())
