"""The table of remedies: complete, in words that people read, and never a loop."""

from __future__ import annotations

import inspect
import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qiao.core.conversation import (
    Conversation,
    Image,
    Sampling,
    Text,
    Thinking,
    Tool,
    ToolChoice,
    ToolResult,
    Turn,
)
from qiao.core.openai.target import Target
from qiao.policies import quirks
from qiao.policies.quirks import Quirks, Remedy, features, mend, mend_target
from qiao.policies.remedies import HEALABLE_STATUSES, TABLE, UNKNOWN_FIELD_WORDINGS, find

GRAMMAR = "Invalid grammar specification: 'triggers'"
NO_PARSER = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'
FULL = Conversation(
    model="m",
    turns=(
        Turn("user", (Text("hi"), Image("image/png", "AAAA"))),
        Turn("assistant", (Text("so"),)),
    ),
    tools=(Tool("a", strict=True), Tool("b" * 65)),
    tool_choice=ToolChoice("any", parallel=False),
    max_tokens=64000,
    stop=("x",),
    thinking=Thinking("on", budget=4000, effort="high"),
    sampling=Sampling(temperature=1.0, top_p=0.0, top_k=5),
    output_schema="{}",
    structure="{}",
    extras={"min_p": msgspec.Raw(b"0.1"), "seed": msgspec.Raw(b"1"), "priority": msgspec.Raw(b"1")},
)


@pytest.mark.parametrize("remedy", TABLE, ids=lambda remedy: remedy.name)
def test_every_row_is_sound(remedy: Remedy) -> None:
    assert remedy.quirk in Quirks.__struct_fields__
    assert remedy.explanation[0].islower() or remedy.explanation.startswith("vLLM")
    assert not remedy.explanation.endswith(".")
    assert remedy.patterns
    groups = {"value" in re.compile(pattern).groupindex for pattern in remedy.patterns}
    takes_value = remedy.quirk in ("max_tokens", "stop_limit", "image_limit", "max_tokens_field", "unknown_fields")
    assert groups == {takes_value}
    if remedy.needs:
        assert remedy.needs in features(FULL)


def test_names_are_unique() -> None:
    names = [remedy.name for remedy in TABLE]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("status", [200, 401, 403, 413, 429, 502, 503, 504, 529])
def test_other_statuses_are_not_healed(status: int) -> None:
    assert status not in HEALABLE_STATUSES
    assert find(NO_PARSER, status) is None


def test_a_remedy_in_force_is_not_found_again() -> None:
    found = find(NO_PARSER, 400)
    assert found is not None
    assert found.name == "no_tool_parser"
    assert find(NO_PARSER, 400, quirks=Quirks().with_(found)) is None


def test_one_text_leads_from_mend_to_mend_and_ends() -> None:
    quirks, names = Quirks(), []
    while remedy := find(GRAMMAR, 400, used=features(FULL), quirks=quirks):
        names.append(remedy.name)
        quirks = quirks.with_(remedy)
    assert names == ["strict_schema", "call_structure", "answer_schema", "forced_call_schema"]


def test_what_the_request_does_not_use_is_not_mended() -> None:
    plain = msgspec.structs.replace(FULL, tools=(), tool_choice=ToolChoice(), output_schema=None, structure=None)
    assert find(GRAMMAR, 400, used=features(plain)) is None
    assert find("qwen3-235b is not a multimodal model", 400, used=features(FULL)) is not None
    text_only = msgspec.structs.replace(FULL, turns=(Turn("user", (Text("hi"),)),))
    assert find("qwen3-235b is not a multimodal model", 400, used=features(text_only)) is None


def test_images_in_tool_results_count() -> None:
    turn = Turn("user", (ToolResult("1", (Image("image/png", "AAAA"),)),))
    assert "images" in features(msgspec.structs.replace(FULL, turns=(turn,)))


def test_the_answer_is_shortened_to_what_is_left() -> None:
    text = (
        "This model's maximum context length is 40960 tokens. However, you requested 32000 output tokens and your "
        "prompt contains 9061 input tokens, for a total of 41061 tokens."
    )
    found = find(text, 400)
    assert found is not None
    assert (found.quirk, found.value, found.lasting) == ("max_tokens", 31898, False)
    assert find(text, 400, true_count=40900) is None
    assert find(text, 400, true_count=50000) is None


def test_halving_comes_to_an_end() -> None:
    quirks, asked = Quirks(), 8192
    for _ in range(20):
        text = (
            f"This model's maximum context length is 16384 tokens. However, you requested {asked} output tokens and "
            f"your prompt contains at least {16385 - asked} input tokens, for a total of at least 16385 tokens."
        )
        found = find(text, 400, quirks=quirks)
        if found is None:
            break
        quirks = quirks.with_(found)
        assert isinstance(found.value, int)
        asked = found.value
    assert asked == 256


def test_a_limit_never_grows() -> None:
    low = Remedy("answer_limit", (), "max_tokens", "", value=100)
    high = Remedy("answer_limit", (), "max_tokens", "", value=900)
    assert Quirks().with_(low).with_(high).max_tokens == 100
    assert Quirks().with_(high).with_(low).max_tokens == 100


def test_unknown_fields() -> None:
    first = find("Unrecognized request argument supplied: min_p", 400)
    assert first is not None
    assert (first.quirk, first.value) == ("unknown_fields", "min_p")
    second = find("Unrecognized request argument supplied: seed", 400)
    assert second is not None
    both = Quirks().with_(first).with_(second)
    assert both.unknown_fields == {"min_p", "seed"}
    assert both.names() == ("unknown_fields=min_p", "unknown_fields=seed")
    assert find("Unknown parameter: 'stream_options'.", 400) is not None
    assert find("Unknown parameter: 'messages'.", 400) is None
    assert find("Unknown parameter: 'tools[0].function.strict'.", 400) is not None


@pytest.mark.parametrize(
    ("text", "quirk"),
    [
        ("Unknown parameter: 'stream_options'", "no_stream_options"),
        ("Unsupported parameter: 'stream_options.continuous_usage_stats'", "no_continuous_usage"),
        ("Unknown parameter: 'parallel_tool_calls'.", "no_parallel_tool_calls"),
        ("unknown field `chat_template_kwargs`, expected one of `model`", "no_template_kwargs"),
        ("Extra inputs are not permitted, field: 'messages[2].reasoning_content'", "no_reasoning_history"),
        ("body -> tools: tools: Extra inputs are not permitted", "no_tools"),
        ("create() got an unexpected keyword argument 'thinking_token_budget'", "no_thinking_budget"),
        ("Unknown parameter: 'max_completion_tokens'", "max_tokens_field"),
    ],
)
def test_known_fields_have_their_own_quirk(text: str, quirk: str) -> None:
    found = find(text, 400)
    assert found is not None
    assert found.quirk == quirk
    assert Quirks().has(found) is False
    assert Quirks().with_(found).has(found)


def test_the_mended_request() -> None:
    everything = Quirks(
        no_tool_choice=True, no_parallel_tool_calls=True, no_thinking_budget=True, no_strict=True,
        no_response_format=True, max_tokens=8192, unknown_fields=frozenset({"min_p", "top_p"}),
    )  # fmt: skip
    mended = mend(FULL, everything)
    assert mended.tool_choice == ToolChoice("auto", parallel=True)
    assert [tool.strict for tool in mended.tools] == [None, None]
    assert mended.max_tokens == 8192
    assert mended.thinking == Thinking("on", effort="high")
    assert mended.sampling == Sampling(temperature=1.0, top_k=5)
    assert mended.output_schema is None
    assert list(mended.extras) == ["seed", "priority"]
    assert mended.turns == FULL.turns


def test_servers_without_tools() -> None:
    without = mend(FULL, Quirks(no_tools=True))
    assert (without.tools, without.tool_choice.mode) == ((), "auto")
    parserless = mend(FULL, Quirks(no_tool_parser=True))
    assert (parserless.tools, parserless.tool_choice.mode) == (FULL.tools, "none")


def test_the_mended_target() -> None:
    target = mend_target(
        Target("m", effort_values=("low", "high"), thinking_budget=True),
        Quirks(
            no_stream_options=True, no_template_kwargs=True, no_reasoning_effort=True, no_thinking_budget=True,
            no_reasoning_history=True, no_prefill=True, stop_limit=2, max_tokens_field="max_tokens", no_long_names=True,
        ),
    )  # fmt: skip
    assert target == Target(
        "m", max_tokens_field="max_tokens", stop_limit=2, usage_in_stream=False, continuous_usage=False,
        template_kwargs=False, reasoning_field=None, prefill="none", tool_name_limit=64,
    )  # fmt: skip
    only_usage, expected = mend_target(Target("m"), Quirks(no_continuous_usage=True)), Target("m")
    assert only_usage == msgspec.structs.replace(expected, continuous_usage=False)


def test_no_quirks_change_nothing() -> None:
    assert mend(FULL, Quirks()) is FULL
    assert mend_target(Target("m"), Quirks()) == Target("m")
    assert Quirks().names() == ()


def test_what_mending_reads_is_what_makes_it_mend() -> None:
    """A conversation is left alone without looking at it, by the names of the quirks that are read."""
    reads = inspect.getsource(mend) + inspect.getsource(quirks._bearable)
    assert set(re.findall(r"quirks\.(\w+)", reads)) == set(quirks._TAKING_AWAY)


@given(st.text(max_size=200), st.sampled_from(sorted(HEALABLE_STATUSES)))
def test_any_text_is_survived(text: str, status: int) -> None:
    quirks = Quirks()
    for _ in range(50):
        found = find(text, status, quirks=quirks)
        if found is None:
            break
        quirks = quirks.with_(found)
    else:
        pytest.fail("one text kept finding remedies")


def test_every_wording_names_its_field() -> None:
    assert all("value" in re.compile(pattern).groupindex for _, pattern in UNKNOWN_FIELD_WORDINGS)
