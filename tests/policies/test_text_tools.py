"""Tools, calls and results in words, for servers that render none of them."""

from __future__ import annotations

import json
import os
import re

import msgspec
import pytest

from qiao.core.anthropic.request import decode
from qiao.core.conversation import Conversation, Text, Tool, ToolCall, ToolChoice, ToolResult, Turn
from qiao.policies import Prepared, Switches, prepare
from qiao.policies.quirks import Quirks
from qiao.policies.text_tools import FORMS, form_of, is_results_only
from qiao.profiles import FAMILIES, find
from qiao.profiles.engines import target_for
from tests.policies.text_tools_cases import IN_WORDS, NATIVE, Case, cases, sent, shown

CASES = cases()
# What may stand between the words of messages: the marks of turns, roles, and places for thoughts.
CHROME = re.compile(
    r"(?:<\|?[^<>|\n]+\|>|<\|[a-z_]+\||</?think>|\[gMASK\]|<sop>|</s>|</?tool_response>|\s"
    r"|system|user|assistant|tool\b|ipython|## Return of functions\.\w+:\d+"
    r"|Cutting Knowledge Date: December 2023|Today Date: 26 Jul 2024"
    r"|Reasoning effort is set to xhigh\.[^\n]*|You are Qwen, created by[^\n]*|<｜[^｜]+｜>)*"
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.path.stem)
def test_case(case: Case) -> None:
    actual = shown(sent(case, IN_WORDS)["messages"])
    if os.environ.get("GOLDEN_ACCEPT"):
        case.messages = actual
        case.path.write_text(case.text(), "utf-8")
        return
    assert actual == case.messages


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.path.stem)
def test_the_prompt_holds_the_messages_and_nothing_else(case: Case) -> None:
    """The rendered prompt is that of these messages: between them stand only the marks of turns."""
    rest = case.prompt
    for message in json.loads(case.messages)["messages"]:
        pieces = [message.get("reasoning") or "", message["content"] or ""]
        for called in message.get("tool_calls") or ():
            pieces += [f"functions.{called['function']['name']}:"]
            pieces += [json.dumps(json.loads(called["function"]["arguments"]), ensure_ascii=False)]
        if case.settings["template"] == "llama3_1.jinja" and message["role"] == "tool":
            pieces = [json.dumps(message["content"], ensure_ascii=False)]
        for piece in filter(None, pieces):
            before, found, rest = rest.partition(piece.strip())
            assert found == piece.strip()
            before = re.sub(r"\A\d+", "", before)  # the number of a call, in Kimi's ids
            assert CHROME.fullmatch(before), before
    assert CHROME.fullmatch(rest), rest


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.path.stem)
def test_nothing_is_sent_as_a_tool(case: Case) -> None:
    body = sent(case, IN_WORDS)
    assert "tools" not in body
    assert "tool_choice" not in body
    native = sent(case, NATIVE)
    assert native["tools"]
    assert native["tool_choice"] == "none"


def test_every_form_is_proven() -> None:
    shown_by_cases = {find(case.settings["model"]).tool_form for case in CASES}
    assert shown_by_cases == set(FORMS) - {"plain"}
    assert {family.tool_form for family in FAMILIES} == set(FORMS)


WEATHER = Tool("get_weather", "Weather.", '{"type":"object","properties":{"city":{"type":"string"}}}')
TALK = Conversation(
    model="m",
    turns=(
        Turn("user", (Text("Hi"),)),
        Turn("assistant", (ToolCall("1", "get_weather", '{"city":"Rome"}'),)),
        Turn("user", (ToolResult("1", (Text("18"),)), Text("Go on."))),
    ),
    tools=(WEATHER,),
    max_tokens=10,
)


def prepared(talk: Conversation, model: str, quirks: Quirks, *, parser: str = "auto") -> Prepared:
    target = target_for("vllm", "0.32.0", model)
    switches = Switches(tool_parser=parser, side_text="user")
    return prepare(talk, find(model), target=target, quirks=quirks, switches=switches)


def test_a_family_that_nobody_looked_at_gets_the_commonest_form_in_turns_that_alternate() -> None:
    ready = prepared(TALK, "acme-7b", Quirks(no_tools=True))
    assert ready.dialect == "hermes"
    assert "tools: written into the text" in ready.notes
    roles = [turn.role for turn in ready.conversation.turns]
    assert roles == ["user", "assistant", "user"]
    last = ready.conversation.turns[-1].parts
    assert last == (Text("<tool_response>\n18\n</tool_response>"), Text("Go on."))


def test_a_server_without_tools_has_no_roles_for_them() -> None:
    """GLM's template writes results by their role; a server that knows no tools may not know the role."""
    ready = prepared(TALK, "glm-4.5", Quirks(no_tools=True))
    assert ready.dialect == "hermes"
    assert not any(isinstance(part, ToolResult) for turn in ready.conversation.turns for part in turn.parts)
    ready = prepared(TALK, "glm-4.5", IN_WORDS)
    assert ready.dialect == "glm45"
    assert any(isinstance(part, ToolResult) for turn in ready.conversation.turns for part in turn.parts)


def test_calls_of_a_conversation_that_offers_no_tools_any_more() -> None:
    """A summary is asked for without tools; a server that knows none must not see calls either."""
    bare = msgspec.structs.replace(TALK, tools=())
    ready = prepared(bare, "qwen3-235b", Quirks(no_tools=True))
    assert ready.dialect is None
    assert ready.conversation.system == ()
    assert ready.conversation.turns[1].parts == (
        Text('<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>'),
    )
    assert any(
        isinstance(part, ToolCall) for part in prepared(bare, "qwen3-235b", IN_WORDS).conversation.turns[1].parts
    )


def test_the_prompt_is_the_same_when_no_call_is_wanted() -> None:
    wanted = prepared(TALK, "qwen3-235b", IN_WORDS)
    unwanted = prepared(msgspec.structs.replace(TALK, tool_choice=ToolChoice("none")), "qwen3-235b", IN_WORDS)
    for name in ("system", "turns", "tools"):
        assert getattr(unwanted.conversation, name) == getattr(wanted.conversation, name)
    assert (unwanted.dialect, wanted.dialect) == (None, "hermes")


def test_an_engine_that_reads_calls_is_given_tools() -> None:
    ready = prepared(TALK, "qwen3-235b", Quirks(no_tool_rendering=True))
    assert ready.dialect is None
    assert ready.conversation.tools == (WEATHER,)
    chosen = prepared(TALK, "qwen3-235b", Quirks(no_tool_rendering=True), parser="hermes")
    assert chosen.dialect == "hermes"
    assert chosen.conversation.tools == ()


def test_a_chosen_reader_decides_about_the_form() -> None:
    ready = prepared(TALK, "acme-7b", IN_WORDS, parser="qwen3_coder")
    assert ready.dialect == "qwen3_coder"
    assert "<function=get_weather>" in ready.conversation.turns[1].parts[0].text  # type: ignore[union-attr]
    # Nobody writes these two into a prompt; the commonest form is asked for, and read.
    assert prepared(TALK, "acme-7b", IN_WORDS, parser="pythonic").dialect == "hermes"
    assert form_of(find("acme-7b"), "json", IN_WORDS) is FORMS["plain"]


def test_a_forced_call_behind_results_is_asked_for_in_a_turn_of_its_own() -> None:
    """Within the same turn the template would take the results for something that a person said."""
    talk = msgspec.structs.replace(
        TALK, tool_choice=ToolChoice("any"), turns=(*TALK.turns[:2], Turn("user", (ToolResult("1"),)))
    )
    ready = prepared(talk, "qwen3-235b", msgspec.structs.replace(IN_WORDS, no_response_format=True))
    *_, results, asked = ready.conversation.turns
    assert is_results_only(results)
    assert "Answer with a call" in asked.parts[0].text  # type: ignore[union-attr]


def test_the_first_words_may_be_no_text() -> None:
    body = {
        "model": "llama-3.1-70b",
        "max_tokens": 10,
        "messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "http://x/y"}}]}],
        "tools": [{"name": "f", "input_schema": {"type": "object"}}],
    }
    ready = prepared(decode(json.dumps(body).encode()), "llama-3.2-11b-vision", IN_WORDS)
    assert '"name": "f"' in "".join(ready.conversation.system)


def test_results_only() -> None:
    assert is_results_only(Turn("user", (ToolResult("1"),)))
    assert is_results_only(Turn("user", (Text("<tool_response>\nx\n</tool_response>"),)))
    assert not is_results_only(Turn("user", (ToolResult("1"), Text("x"))))
    assert not is_results_only(Turn("user", ()))
