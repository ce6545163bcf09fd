"""Names that an engine is too short for: others stay others, equal ones equal, and each finds its way back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qiao.core.conversation import Conversation, Text, Tool, ToolCall, ToolChoice, ToolResult, Turn
from qiao.core.openai.target import TOOL_NAME_LIMIT
from qiao.policies.prepare import prepare
from qiao.policies.tool_names import given_back, longest_name, short_name, short_names
from qiao.profiles import find
from qiao.profiles.engines import target_for

SEARCH = "mcp__plugin_company_wide_knowledge_base__search_documents_by_their_owner"
DELETE = "mcp__plugin_company_wide_knowledge_base__delete_documents_by_their_owner"
ASKED = Conversation(
    "m",
    (
        Turn("user", (Text("Find it."),)),
        Turn("assistant", (ToolCall("c1", SEARCH, '{"owner": "me"}'),)),
        Turn("user", (ToolResult("c1", (Text("nothing"),)), Text("Again."))),
    ),
    tools=(Tool("Read"), Tool(SEARCH), Tool(DELETE)),
    tool_choice=ToolChoice("tool", SEARCH),
    max_tokens=10,
)


def test_both_ends_can_be_read() -> None:
    assert short_name(SEARCH, 64) == "mcp__plugin_company__1643e717_e__search_documents_by_their_owner"
    assert short_name("Read", 64) == "Read"
    assert short_name(SEARCH, None) == SEARCH


@given(st.lists(st.text("ab_", min_size=1, max_size=128), unique=True))
def test_names_stay_apart_and_come_back(names: list[str]) -> None:
    short = [short_name(name, TOOL_NAME_LIMIT) for name in names]
    assert all(len(name) <= TOOL_NAME_LIMIT for name in short)
    assert len(set(short)) == len(names)
    back = given_back([Tool(name) for name in names], TOOL_NAME_LIMIT)
    assert [back.get(name, name) for name in short] == names
    assert not set(back) & set(names)


def test_tools_choice_and_history_bear_the_same_name() -> None:
    sent = short_names(ASKED, TOOL_NAME_LIMIT)
    name = short_name(SEARCH, TOOL_NAME_LIMIT)
    assert [tool.name for tool in sent.tools] == ["Read", name, short_name(DELETE, TOOL_NAME_LIMIT)]
    assert sent.tool_choice.name == name
    assert sent.turns[1].parts == (ToolCall("c1", name, '{"owner": "me"}'),)
    assert sent.turns[0] is ASKED.turns[0]
    assert (longest_name(ASKED), longest_name(sent)) == (len(DELETE), 64)


@pytest.mark.parametrize(("flavor", "is_short"), [("openai", True), ("vllm", False), ("sglang", False)])
def test_only_for_engines_that_need_it(flavor: str, is_short: bool) -> None:
    target = target_for(flavor, None, "m")  # type: ignore[arg-type]
    found = prepare(ASKED, find("m"), target=target)
    assert (longest_name(found.conversation) <= 64) is is_short
    assert set(found.names.values()) == ({SEARCH, DELETE} if is_short else set())
    assert ("tools: names over 64 characters shortened: 2" in found.notes) is is_short
