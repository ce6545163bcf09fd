"""Structural tags: which text an answer may be."""

from __future__ import annotations

import json
from typing import Any

import pytest

from qiao.core.conversation import Conversation, Text, Tool, ToolChoice, Turn
from qiao.policies.guided import beginning, can_guide, key_of, may_call, must_call, parameters_of, trial
from qiao.policies.quirks import Quirks
from qiao.policies.text_mode import Reading, asked_again, reading

CITY = '{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}'
WEATHER, TIME = Tool("get_weather", "Weather.", CITY), Tool("get_time", "Time.")
TALK = Conversation(model="m", turns=(Turn("user", (Text("Hi"),)),), tools=(WEATHER, TIME), max_tokens=10)
TAGS = Quirks(no_tool_parser=True, structural_tags=True)


def asked(choice: ToolChoice, quirks: Quirks = TAGS, dialect: str = "hermes", **settings: Any) -> Reading:
    talk = TALK if "talk" not in settings else settings.pop("talk")
    return reading(Conversation(**{**_fields(talk), "tool_choice": choice}), dialect, quirks, **settings)


def _fields(talk: Conversation) -> dict[str, Any]:
    return {name: getattr(talk, name) for name in talk.__struct_fields__}


def shape(found: Reading) -> Any:
    assert found.conversation.structure is not None
    return json.loads(found.conversation.structure)


def test_calls_in_the_dialect_of_the_model() -> None:
    odd = Tool('say "hi"')
    assert beginning("hermes", odd) == '<tool_call>\n{"name": "say \\"hi\\"", "arguments": '
    (tag,) = json.loads(must_call("hermes", (odd,), refused=frozenset(), one=True, reasoning=None))["tags"]
    assert (tag["end"], tag["content"].get("style")) == ("}\n</tool_call>", None)
    (tag,) = json.loads(must_call("qwen3_coder", (WEATHER,), refused=frozenset(), one=True, reasoning=None))["tags"]
    assert (tag["begin"], tag["end"]) == ("<tool_call>\n<function=get_weather>\n", "\n</function>\n</tool_call>")
    assert tag["content"] == {"type": "json_schema", "json_schema": json.loads(CITY), "style": "qwen_xml"}
    assert not can_guide("mistral")


@pytest.mark.parametrize(
    ("schema", "bound"),
    [
        (CITY, json.loads(CITY)),
        ('{"properties":{"x":{"type":"integer"}}}', {"type": "object", "properties": {"x": {"type": "integer"}}}),
        ("{}", {"type": "object"}),
        ('{"type":"string"}', {"type": "object"}),
        ('{"type":["object","null"]}', {"type": "object"}),
    ],
)
def test_arguments_are_an_object_in_any_case(schema: str, bound: Any) -> None:
    assert json.loads(bytes(parameters_of(Tool("f", parameters=schema), frozenset()))) == bound


def test_a_refused_schema_leaves_its_tool_unbound() -> None:
    form = json.loads(
        may_call("hermes", (WEATHER, TIME), refused=frozenset({key_of(WEATHER)}), one=False, reasoning=None)
    )
    schemas = [tag["content"]["json_schema"] for tag in form["tags"]]
    assert schemas == [{"type": "object"}, json.loads(TIME.parameters)]
    assert form["triggers"] == ["<tool_call>"]


def test_thoughts_come_first() -> None:
    open_ = json.loads(must_call("hermes", (TIME,), refused=frozenset(), one=True, reasoning="open"))
    assert open_["elements"][0]["elements"][0] == {
        "type": "tag",
        "begin": "",
        "content": {"type": "any_text"},
        "end": "</think>",
    }
    tagged = json.loads(must_call("hermes", (TIME,), refused=frozenset(), one=True, reasoning="tag"))
    assert tagged["elements"][0]["type"] == "optional"


def test_the_best_way_that_the_server_has() -> None:
    forced = ToolChoice("tool", "get_weather")
    found = asked(forced)
    assert (found.grammar, found.dialect, found.bound) == ("tags", "hermes", (WEATHER,))
    for quirks, dialect in ((Quirks(no_tool_parser=True), "hermes"), (TAGS, "mistral")):
        found = asked(forced, quirks, dialect)
        assert (found.grammar, found.dialect, found.conversation.structure) == ("schema", "json", None)
    for quirks in (Quirks(no_response_format=True), Quirks(structural_tags=True, no_structure=True)):
        found = asked(forced, quirks)
        assert (found.grammar, found.dialect, found.insists) == (None, "hermes", True)
        assert "the tool get_weather now" in found.conversation.turns[-1].parts[-1].text  # type: ignore[union-attr]


def test_one_call_where_one_is_wanted() -> None:
    assert shape(asked(ToolChoice("any")))["stop_after_first"] is False
    assert shape(asked(ToolChoice("any", parallel=False)))["stop_after_first"] is True
    assert shape(asked(ToolChoice("tool", "get_time")))["stop_after_first"] is True
    assert shape(asked(ToolChoice(parallel=False), guided=True))["stop_after_first"] is True


def test_auto_is_bound_only_where_somebody_asked() -> None:
    assert asked(ToolChoice()).grammar is None
    assert asked(ToolChoice(), guided=True).bound == (WEATHER, TIME)
    assert asked(ToolChoice(), Quirks(), guided=True).grammar is None
    later = Tool("later", deferred=True)
    found = asked(ToolChoice(), guided=True, loaded=(later,))
    assert [tag["begin"] for tag in shape(found)["tags"]][-1] == beginning("hermes", later)
    assert found.conversation.tools == (WEATHER, TIME)


def test_an_answer_that_has_begun_is_under_no_grammar() -> None:
    begun = Conversation(**{**_fields(TALK), "turns": (*TALK.turns, Turn("assistant", (Text("So"),)))})
    found = asked(ToolChoice("any"), talk=begun)
    assert (found.grammar, found.insists) == (None, False)
    assert asked(ToolChoice(), talk=begun, guided=True).grammar is None


def test_strict_is_no_word_of_the_prompt() -> None:
    strict = Conversation(**{**_fields(TALK), "tools": (Tool("f", strict=True), TIME)})
    found = asked(ToolChoice(), talk=strict)
    assert [tool.strict for tool in found.conversation.tools] == [None, None]
    assert [tool.name for tool in found.bound] == ["f"]


def test_trials_are_small() -> None:
    for grammar in ("tags", "schema", "strict"):
        tried = trial("m", grammar, "hermes", (WEATHER,), "{}")  # type: ignore[arg-type]
        assert (tried.max_tokens, len(tried.turns)) == (1, 1)
    assert trial("m", "strict", "hermes", (WEATHER,), None).tools == (WEATHER,)


def test_asking_again() -> None:
    again = asked_again(TALK, "No.")
    assert [turn.role for turn in again.turns] == ["user", "assistant", "user"]
    assert again.turns[: len(TALK.turns)] == TALK.turns
    assert [turn.role for turn in asked_again(TALK, "").turns] == ["user", "user"]
