"""Laws of calls written as text, for every dialect: no cut changes the answer, nothing is lost, nothing raises."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from qiao.core.dialects import DIALECTS, text_tools
from qiao.core.events import (
    Event,
    Finished,
    ReasoningAdded,
    TextAdded,
    ToolArgumentsAdded,
    ToolCallEnded,
    ToolCallStarted,
    UsageSeen,
)
from qiao.core.fold import CallBlock, fold
from qiao.core.sequence import Sequencer
from tests.core.dialects.answers import run
from tests.core.dialects.test_cases import CASES, expect
from tests.fuzz.laws import DECLARED, FINISHES, Invented, answers, cut, letters
from tests.properties.test_core_stream import json_values

TOOLS = DECLARED

# What documents are made of: what dialects consist of, whole, in parts and broken, and what stands round it.
ENVELOPES = (
    '{"name": "f", "arguments": {"a": "x </tool_call> <tool_call>", "n": 1}}',
    '{"name": "f", "arguments": {"a": "say "hi"", "n": "1"}',
    '{"arguments": {"v": [1, {"b": "</parameter>"}]}, "name": "f"}',
    '{"name": "f", "arguments": "{\\"a\\": 1}"}',
    '{"name": "get-weather", "parameters": {"city": "P"',
    '{"name": "nope", "arguments": {"a": 1,}}',
    '[{"name":"f","arguments":{}}',
    '{"name": "f", "arguments": {"a": "x"}{"a": "y"}}',
    '{"name": "f", "arguments": {"a": "print("x", "y")", "n": "5"}}',
    '{"name": "f", "arguments": {"a": """x "y" """}},',
    '{"name": "f", "arguments": {"a": "x" + "y"}}',
)
COMMON = (
    *(
        '{"a": 1',
        "{",
        "{{",
        "}",
        "}}",
        "[",
        "]",
        '"',
        "'",
        ",",
        ", ",
        ":",
        ";",
        "(",
        ")",
        "=",
        "\\",
        "\\u12",
        "5",
        "null",
        '", "',
        '"""',
        '" + "',
    ),
    *("\n", "\r\n", " ", "\u2028", "hello ", "é🎉", "<", "</", "f", "f\n", '"a": "b"', '"name": "f"', "a", "n", "x"),
    *("```", "\n```json\n", "```\n", "`", "~~~\n"),
)
OWN: dict[str, tuple[str, ...]] = {
    "hermes": (
        *("<tool_call>", "<tool_call>\n", "</tool_call>", "\n</tool_call>\n", "<tool_response>"),
        *("<function=f>\n", "<function=nope>", "<parameter=a>\n", "<parameter=n>", "</parameter>\n", "</function>"),
    ),
    "glm45": ("f\n<arg_key>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"),
    "mistral": ("[TOOL_CALLS]", "[TOOL_CALLS] [", "[ARGS]", "[CALL_ID]a1", "[TOOL_CALLS]f{"),
    "llama3_json": ("<|python_tag|>", "; "),
    "deepseek_v3": (
        *(
            "<｜tool▁calls▁begin｜>",
            "<｜tool▁call▁begin｜>",
            "function<｜tool▁sep｜>f\n",
            "f<｜tool▁sep｜>",
            "<｜tool▁sep｜>",
        ),
        *("<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>"),
    ),
    "kimi_k2": (
        *("<|tool_calls_section_begin|>", "<|tool_call_begin|>", "functions.f:0", "<|tool_call_argument_begin|>"),
        *("<|tool_call_end|>", "<|tool_calls_section_end|>"),
    ),
    "pythonic": ("[f(", 'f(a="x", n=5)', "a='it's'", "u=None", ", ", "<|python_start|>", "<|python_end|>"),
}
OWN["qwen3_coder"] = OWN["hermes"]
OWN["glm45"] += OWN["hermes"]
OWN["deepseek_v31"] = OWN["deepseek_v3"]
THINK = ("<think>", "</think>", "<think>\n", "</thi")

names = st.sampled_from(sorted(DIALECTS))
cuts = st.lists(st.integers(0, 10**6), max_size=8)
finishes = st.sampled_from(FINISHES)


@st.composite
def documents(draw: st.DrawFn, name: str, *, thinks: bool = False) -> str:
    own = OWN.get(name, ()) * 3 + ENVELOPES + (THINK if thinks else ())
    fragments = st.one_of(st.sampled_from(own), st.sampled_from(COMMON), st.text(max_size=3))
    return "".join(draw(st.lists(fragments, max_size=14)))


@given(st.data(), names, cuts, st.booleans(), st.booleans())
@settings(max_examples=400, deadline=None)
def test_no_cut_changes_what_is_read_and_no_letter_is_lost(
    data: st.DataObject, name: str, places: list[int], was_cut: bool, repair: bool
) -> None:
    letters(name, data.draw(documents(name)), places, was_cut=was_cut, repair=repair)


def test_a_line_break_in_the_tag_of_a_parameter_reads_the_same_in_pieces() -> None:
    """Found by `make fuzz`."""
    text = "<tool_call><function=get_weather><parameter=y></parameter><parameter=d\n>"
    for name in ("hermes", "qwen3_coder", "glm45"):
        letters(name, text, [len(text) - 1], was_cut=False, repair=False)


@given(st.data(), names, cuts, finishes, st.sampled_from(["tag", "open"]), st.booleans())
@settings(max_examples=300, deadline=None)
def test_no_cut_changes_the_answer_and_the_stream_says_the_same(
    data: st.DataObject, name: str, places: list[int], finish: Finished, reasoning: str, one_call: bool
) -> None:
    answers(name, data.draw(documents(name, thinks=True)), places, finish, reasoning=reasoning, one_call=one_call)


@given(st.sampled_from(sorted(CASES)), cuts)
@settings(max_examples=400, deadline=None)
def test_golden_cases_at_any_cut(name: str, places: list[int]) -> None:
    expect(CASES[name], run(CASES[name], cut(CASES[name].text, places)))


# -- what a model writes right, comes out as it was meant -------------------------------------------------------------


def as_written(name: str, arguments: dict[str, Any]) -> str:
    """A call of `f` as the model's own template writes it."""
    inner = json.dumps(arguments, ensure_ascii=False)
    envelope = f'{{"name": "f", "arguments": {inner}}}'
    match name:
        case "hermes":
            return f"<tool_call>\n{envelope}\n</tool_call>"
        case "mistral":
            return f"[TOOL_CALLS]f{inner}"
        case "deepseek_v3":
            opening = "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n"
            return f"{opening}```json\n{inner}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
        case "deepseek_v31":
            opening = "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>"
            return f"{opening}{inner}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
        case "kimi_k2":
            opening = "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>"
            return f"{opening}{inner}<|tool_call_end|><|tool_calls_section_end|>"
        case "llama3_json" | "json":
            return f"{envelope}"
        case "pythonic":
            return "[f(" + ", ".join(f"{key}={json.dumps(value)}" for key, value in arguments.items()) + ")]"
        case "qwen3_coder":
            parameters = (f"<parameter={key}>\n{plain(value)}\n</parameter>\n" for key, value in arguments.items())
            return f"<tool_call>\n<function=f>\n{''.join(parameters)}</function>\n</tool_call>"
        case _:
            pairs = (
                f"<arg_key>{key}</arg_key>\n<arg_value>{plain(value)}</arg_value>\n" for key, value in arguments.items()
            )
            return f"<tool_call>f\n{''.join(pairs)}</tool_call>"


def plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


# The closing tags of parameters cannot be told from the same words in a value, unless something else follows them.
tricky = st.sampled_from(["</tool_call>", "<tool_call>", "<function=f>", '"}}', "{{", "```", "[TOOL_CALLS]", "\u2028"])
texts = st.lists(st.text(max_size=8) | tricky, max_size=4).map("".join)
known_arguments = st.fixed_dictionaries({}, optional={"a": texts, "n": st.integers(), "u": texts | st.none()})
json_arguments = st.fixed_dictionaries({}, optional={"a": texts, "n": st.integers(), "v": json_values})


@given(st.data(), names, cuts, st.sampled_from(["", "I look.\n", "```\ncode\n```\n"]), st.sampled_from(["", "\nDone."]))
@settings(max_examples=300, deadline=None)
def test_what_is_written_right_is_what_comes_out(
    data: st.DataObject, name: str, places: list[int], before: str, after: str
) -> None:
    is_markup = name in ("qwen3_coder", "glm45")
    arguments = data.draw(known_arguments if is_markup else json_arguments)
    if is_markup and any(is_ambiguous(value) for value in arguments.values()):
        return
    text = before + as_written(name, arguments) + after
    found = run(Invented("", {"tools": "none"}, text, ()), cut(text, places), dialect=name)
    wanted = [f"T {json.dumps(words.strip())}" for words in (before,) if words]
    wanted.append(f"C f {json.dumps(arguments, ensure_ascii=False)}")
    wanted += [f"T {json.dumps(words.strip())}" for words in (after,) if words]
    assert found.whole == [*wanted, "stop_reason tool_use"]
    assert found.streamed == found.whole
    assert {repair for _, repair in found.repairs} <= {"empty_arguments", "parameters_key"}


def is_ambiguous(value: Any) -> bool:
    """A string that reads as something else where no quotes stand round it."""
    return isinstance(value, str) and (value.strip() in ("null", "None") or "\r" in value)


# -- the stage --------------------------------------------------------------------------------------------------------


@given(
    st.lists(
        st.one_of(
            st.sampled_from(["text ", "<tool", '<tool_call>{"name": "f", "arguments": {}}', "</tool_call>", "\n"]).map(
                TextAdded
            ),
            st.just(ReasoningAdded("so ")),
            st.integers(0, 2).map(lambda index: ToolCallStarted(index, f"c{index}", "get_weather")),
            st.integers(0, 2).map(lambda index: ToolArgumentsAdded(index, '{"city": "P"}')),
            st.integers(0, 2).map(ToolCallEnded),
        ),
        max_size=8,
    ),
    finishes,
)
@settings(max_examples=300, deadline=None)
@example(
    [ToolCallStarted(0, "c", "get_weather"), TextAdded("<tool_call>"), ToolArgumentsAdded(0, "{}")], Finished("stop")
)
def test_an_engine_that_parses_and_a_text_that_holds_calls_get_on(events: list[Event], finish: Finished) -> None:
    stage = text_tools("hermes", TOOLS)
    sequencer = Sequencer(id_prefix="toolu", tools=TOOLS)
    out = [event for given_event in [*events, finish] for event in sequencer.feed(stage.feed([given_event]))]
    answer = fold(out)
    assert answer.fault is None
    assert isinstance(out[-1], Finished)
    calls = [block for block in answer.blocks if isinstance(block, CallBlock)]
    assert len({call.id for call in calls}) == len(calls)
    for call in calls:
        json.loads(call.arguments)


@given(st.lists(st.text(max_size=30), max_size=5), st.booleans())
@settings(max_examples=200, deadline=None)
def test_without_tools_every_word_stays(pieces: list[str], is_open: bool) -> None:
    stage = text_tools("hermes", (), reasoning="open" if is_open else None)
    out = [event for piece in pieces for event in stage.feed([TextAdded(piece)])]
    out += stage.feed([Finished("stop")])
    said = "".join(event.text for event in out if isinstance(event, TextAdded | ReasoningAdded))
    text = "".join(pieces)
    assert "".join(said.split()) == "".join(text.split()) or "think>" in text
    assert not any(isinstance(event, ToolCallStarted | UsageSeen) for event in out)
