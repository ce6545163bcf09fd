"""Calls that must be made, and calls that must fit, on a server without a tool parser."""

from __future__ import annotations

from typing import Any

import pytest

from qiao.core.anthropic.grammar import Checker
from qiao.upstream.insisting import LONGEST_TALK
from tests.fakes.behaviour import Behaviour
from tests.fakes.script import Pause, Say, Step, Think, call, marker, refusal, step
from tests.integration.conftest import Stage, Stages
from tests.integration.test_no_restart import PARIS, TIME, WEATHER, both, essence, post, tools_of
from tests.support.embedded import wait_until
from tests.support.plain_http import Asker, ask

pytestmark = pytest.mark.timeout(120)

NEW = Behaviour(tool_parser=False, reasoning_parser=False)
OLD = Behaviour(tool_parser=False, reasoning_parser=False, structural_tags=False)
PLAIN = Say('{"name": "get_weather", "arguments": {"city": "Paris"}}')
ANY, NAMED = {"type": "any"}, {"type": "tool", "name": "get_weather"}
CHOICES = pytest.mark.parametrize("choice", [ANY, NAMED], ids=["any", "tool"])
DANGLING = {**WEATHER, "input_schema": {"type": "object", "properties": {"city": {"$ref": "#/$defs/nowhere"}}}}
A_CALL = step(call("get_weather", city="Paris"))


def begun(stages: Stages, behaviour: Behaviour, *arguments: str, model: str = "qwen3-235b", apart: str = "") -> Stage:
    stage = stages(model, *arguments, behaviour=behaviour, apart=apart)
    stage.refusals = True
    tools_of(stage)  # the probe is over
    stage.engine.forget()
    return stage


@pytest.fixture
def new(stages: Stages) -> Stage:
    """vLLM with structural tags."""
    return begun(stages, NEW)


@pytest.fixture
def old(stages: Stages) -> Stage:
    """Without them, but with schemas for the answer."""
    return begun(stages, OLD)


def asked(*steps: Step | str, **fields: Any) -> dict[str, Any]:
    turn = {"role": "user", "content": f"Go on. {marker(*steps)}"}
    return {"model": "qwen3-235b", "max_tokens": 2000, "messages": [turn], "tools": [WEATHER, TIME], **fields}


def form_of(stage: Stage, number: int = -1) -> dict[str, Any]:
    """What binds an answer."""
    found: dict[str, Any] = stage.engine.chats[number].body.get("response_format", {})
    return found


def tags_of(form: Any) -> list[dict[str, Any]]:
    """The tags of calls, wherever they stand."""
    if isinstance(form, list):
        return [tag for item in form for tag in tags_of(item)]
    if not isinstance(form, dict):
        return []
    own = [form] if form.get("type") == "tag" and "<tool_call>" in form["begin"] else []
    return own + [tag for value in form.values() for tag in tags_of(value)]


@CHOICES
def test_by_a_structural_tag(new: Stage, choice: dict[str, Any]) -> None:
    """In the model's own words, behind its thoughts."""
    message = both(new, asked(step(Think("Hm."), call("get_weather", city="Paris")), tool_choice=choice))
    assert essence(message) == [{"type": "thinking", "thinking": "Hm."}, PARIS]
    assert message["stop_reason"] == "tool_use"
    body = new.engine.chats[-1].body
    assert body["tool_choice"] == "none"
    assert [tool["function"]["name"] for tool in body["tools"]] == ["get_weather", "get_time"]
    thoughts, calls = form_of(new)["format"]["elements"]
    assert thoughts["type"] == "optional"
    assert (calls["type"], calls["at_least_one"]) == ("tags_with_separator", True)
    assert calls["stop_after_first"] == (choice is NAMED)
    names = ["get_weather", "get_time"] if choice is ANY else ["get_weather"]
    assert [tag["begin"] for tag in calls["tags"]] == [
        f'<tool_call>\n{{"name": "{name}", "arguments": ' for name in names
    ]
    assert calls["tags"][0]["content"]["json_schema"] == WEATHER["input_schema"]


def test_several_forced_calls_unless_one_is_wanted(new: Stage) -> None:
    two = step(call("get_weather", city="Paris"), "\n", call("get_time", zone="UTC"))
    assert len(essence(both(new, asked(two, tool_choice=ANY)))) == 2
    assert len(essence(both(new, asked(two, tool_choice={**ANY, "disable_parallel_tool_use": True})))) == 1
    assert form_of(new)["format"]["elements"][1]["stop_after_first"] is True


@CHOICES
def test_by_a_schema_for_the_answer(old: Stage, choice: dict[str, Any]) -> None:
    message = both(old, asked(step(PLAIN), tool_choice=choice))
    assert essence(message) == [PARIS]
    assert message["stop_reason"] == "tool_use"
    assert old.engine.chats[-1].body["tool_choice"] == "none"
    schema = form_of(old)["json_schema"]["schema"]
    calls = schema.get("anyOf", [schema])
    names = ["get_weather", "get_time"] if choice is ANY else ["get_weather"]
    assert [one["properties"]["name"]["const"] for one in calls] == names
    assert calls[0]["properties"]["arguments"] == WEATHER["input_schema"]


def test_references_of_a_schema_are_kept_in_reach(new: Stage, old: Stage) -> None:
    referring = {
        "type": "object",
        "properties": {"city": {"$ref": "#/$defs/City"}},
        "$defs": {"City": {"type": "string"}},
    }
    tools = [{**WEATHER, "input_schema": referring}]
    assert essence(both(old, asked(step(PLAIN), tools=tools, tool_choice=ANY))) == [PARIS]
    assert essence(both(new, asked(A_CALL, tools=[*tools, TIME], tool_choice=ANY))) == [PARIS]
    assert all(chat.refusal is None for stage in (new, old) for chat in stage.engine.chats)


def test_one_schema_that_makes_no_grammar(stages: Stages) -> None:
    """The request succeeds, only that tool is left unbound, and the next request knows."""
    stage = begun(stages, NEW, apart="culprit")
    many = [{**TIME, "name": f"tool_{number}"} for number in range(6)]
    tools = [WEATHER, *many[:3], {**DANGLING, "name": "odd"}, *many[3:]]
    for number in range(2):
        stage.engine.forget()
        assert essence(both(stage, asked(A_CALL, tools=tools, tool_choice=ANY))) == [PARIS]
        assert [chat.status for chat in stage.engine.chats] == ([400, 200, 200] if number == 0 else [200, 200])
    assert not [request for request in stage.engine.requests if "qiao-probe" in request.headers.values()]
    schemas = {tag["begin"].split('"')[3]: tag["content"]["json_schema"] for tag in tags_of(form_of(stage))}
    assert schemas["odd"] == {"type": "object"}
    assert schemas["get_weather"] == WEATHER["input_schema"]
    assert "refused_schemas=1" in ask(stage.url, "GET", "/readyz").json["quirks"]


def test_a_schema_for_the_answer_that_makes_no_grammar(stages: Stages) -> None:
    stage = begun(stages, OLD, apart="culprit")
    for number in range(2):
        stage.engine.forget()
        assert essence(both(stage, asked(step(PLAIN), tools=[DANGLING, TIME], tool_choice=NAMED))) == [PARIS]
        assert [chat.status for chat in stage.engine.chats] == ([400, 200, 200] if number == 0 else [200, 200])
        assert form_of(stage)["json_schema"]["schema"]["properties"]["arguments"] == {"type": "object"}


def test_a_forced_call_of_the_tool_whose_schema_makes_no_grammar(new: Stage) -> None:
    message = both(new, asked(A_CALL, tools=[DANGLING], tool_choice=NAMED))
    assert essence(message) == [PARIS]
    assert form_of(new)["format"]["elements"][1]["tags"][0]["content"]["json_schema"] == {"type": "object"}


def test_a_strict_tool_is_bound_where_nobody_forces_a_call(new: Stage) -> None:
    tools = [{**WEATHER, "strict": True}, TIME]
    message = both(new, asked(step("I look.", call("get_weather", city="Paris")), tools=tools))
    assert essence(message) == [{"type": "text", "text": "I look."}, PARIS]
    weather, time = tags_of(form_of(new))
    assert weather["content"]["json_schema"] == WEATHER["input_schema"]
    assert time["content"]["json_schema"] == {"type": "object"}
    assert all("strict" not in tool["function"] for tool in new.engine.chats[-1].body["tools"])


def test_nothing_is_bound_unasked(new: Stage) -> None:
    both(new, asked(A_CALL))
    assert form_of(new) == {}
    assert new.engine.chats[-1].body["skip_special_tokens"] is False


def test_guided_tools(stages: Stages) -> None:
    stage = begun(stages, NEW, "--guided-tools")
    assert tools_of(stage)["guided"] is True
    stage.engine.forget()
    message = both(stage, asked(step(Think("Hm."), "I look.", call("get_weather", city="Paris"))))
    assert [block["type"] for block in essence(message)] == ["thinking", "text", "tool_use"]
    calls = form_of(stage)["format"]["elements"][1]
    assert (calls["type"], calls["triggers"], calls["at_least_one"]) == ("triggered_tags", ["<tool_call>"], False)
    assert [tag["content"]["json_schema"] for tag in calls["tags"]] == [WEATHER["input_schema"], TIME["input_schema"]]
    # A broken schema among them costs its tool the guidance, and nobody else.
    assert essence(both(stage, asked(A_CALL, tools=[{**DANGLING, "name": "odd"}, WEATHER]))) == [PARIS]
    assert [tag["content"]["json_schema"] for tag in tags_of(form_of(stage))] == [
        {"type": "object"},
        WEATHER["input_schema"],
    ]


def test_guided_tools_that_were_found_later(stages: Stages) -> None:
    """They are not in the list, which never changes, but in the grammar, or they could not be called."""
    stage = begun(stages, NEW, "--guided-tools")
    later = {**TIME, "defer_loading": True}
    found = {
        "type": "tool_result",
        "tool_use_id": "t1",
        "content": [{"type": "tool_reference", "tool_name": "get_time"}],
    }
    turns = [
        {"role": "user", "content": "Search. " + marker("unused", step(call("get_time", zone="UTC")))},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "get_weather", "input": {}}]},
        {"role": "user", "content": [found]},
    ]
    message = both(stage, asked("unused", messages=turns, tools=[WEATHER, later]))
    assert [block["name"] for block in essence(message)] == ["get_time"]
    assert stage.engine.chats[-1].tool_names == ["get_weather"]
    assert ['"get_time"' in tag["begin"] for tag in tags_of(form_of(stage))] == [False, True]


def test_guided_tools_where_there_are_no_structural_tags(stages: Stages) -> None:
    stage = begun(stages, OLD, "--guided-tools")
    found = tools_of(stage)
    assert (found["structural_tags"], found["guided"]) == (False, False)
    assert essence(both(stage, asked(A_CALL))) == [PARIS]


def test_special_tokens_come_through(stages: Stages) -> None:
    """Calls of Mistral, Kimi and DeepSeek stand between special tokens, which engines leave out unless asked."""
    for model in ("kimi-k2", "deepseek-v3.1", "devstral-small"):
        stage = begun(stages, NEW, model=model)
        post(stage, {**asked("Hi."), "model": model})
        assert stage.engine.chats[-1].body["skip_special_tokens"] is False
        post(stage, {**asked("Hi."), "model": model, "tools": []})
        assert "skip_special_tokens" not in stage.engine.chats[-1].body


def test_counting_a_strict_tool_whose_schema_is_refused(stages: Stages) -> None:
    """On a server that reads calls itself, `strict` is a word of the prompt, and the refused schema's is left out."""
    stage = stages("qwen3-235b", "--tool-parser", "engine", behaviour=Behaviour(), apart="count strict")
    stage.refusals = True
    body = asked("Hello.", tools=[{**DANGLING, "strict": True}, {**WEATHER, "name": "good", "strict": True}])
    question = {name: body[name] for name in ("model", "messages", "tools")}
    before = post(stage, question, "/v1/messages/count_tokens").json["input_tokens"]
    usage = post(stage, body).json["usage"]
    names = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    assert before == sum(usage[name] for name in names)
    assert post(stage, question, "/v1/messages/count_tokens").json["input_tokens"] == before
    strict = [tool["function"].get("strict") for tool in stage.engine.chats[-1].body["tools"]]
    assert strict == [None, True]
    assert [chat.status for chat in stage.engine.chats] == [200]


BARE = Behaviour(tool_parser=False, reasoning_parser=False, structural_tags=False, schemas=False)
"""No grammar of any kind: a forced call can only be asked for."""


@pytest.fixture
def wordy(stages: Stages) -> Stage:
    stage = begun(stages, BARE)
    post(stage, asked(A_CALL, tool_choice=ANY))  # it learns that there are no grammars
    stage.engine.forget()
    return stage


@CHOICES
def test_a_model_that_does_not_call_is_asked_once_more(wordy: Stage, choice: dict[str, Any]) -> None:
    stage = wordy
    said = (step(Think("Hm."), "I would rather talk."), step(Think("Well."), call("get_weather", city="Paris")))
    message = both(stage, asked(*said, tool_choice=choice))
    assert essence(message) == [{"type": "thinking", "thinking": "Well."}, PARIS]
    assert message["stop_reason"] == "tool_use"
    assert [chat.status for chat in stage.engine.chats] == [200] * 4
    first, second = stage.engine.chats[:2]
    assert second.prompt.startswith(first.prompt.removesuffix("<|im_start|>assistant\n"))
    answered, asked_again = second.messages[-2:]
    assert answered == {"role": "assistant", "content": "I would rather talk."}
    assert asked_again["content"].startswith("That is no call of a tool.")


def test_a_model_that_calls_at_once_is_not_asked_again(wordy: Stage) -> None:
    stage = wordy
    message = both(stage, asked(step("I look.", call("get_weather", city="Paris"), "So."), tool_choice=ANY))
    assert [block["type"] for block in essence(message)] == ["text", "tool_use", "text"]
    assert [chat.status for chat in stage.engine.chats] == [200] * 2


def test_a_model_that_talks_on_without_a_call_is_not_heard_out(wordy: Stage) -> None:
    stage = wordy
    said = (step("I would rather talk. " * 400, Pause(40.0), "The end."), step(call("get_weather", city="Paris")))
    asker = Asker(
        stage.url,
        "/v1/messages",
        {**asked(*said, tool_choice=ANY), "stream": True},
        headers={"x-api-key": stage.key},
    )
    wait_until(lambda: len(stage.engine.chats) == 2, 20.0, "the second request while the first answer is not over")
    first, second = stage.engine.chats
    assert first.finished_at is None or first.disconnected_at is not None
    stage.engine.go_on()
    checker = Checker()
    checker.feed(asker.answer.body)
    checker.close()
    assert essence(checker.message) == [PARIS]
    answered = second.messages[-2]["content"]
    assert answered.startswith("I would rather talk. I would")
    assert len(answered) <= LONGEST_TALK


def test_a_second_try_is_the_last_one(wordy: Stage) -> None:
    stage = wordy
    message = both(stage, asked("No.", "No, again.", step(call("get_weather", city="Paris")), tool_choice=ANY))
    assert essence(message) == [{"type": "text", "text": "No, again."}]
    assert message["stop_reason"] == "end_turn"
    assert [chat.status for chat in stage.engine.chats] == [200] * 4


def test_an_answer_that_was_cut_is_not_asked_for_again(wordy: Stage) -> None:
    stage = wordy
    message = both(stage, asked("one two three four five six seven eight", tool_choice=ANY, max_tokens=3))
    assert message["stop_reason"] == "max_tokens"
    assert [chat.status for chat in stage.engine.chats] == [200] * 2


def test_a_second_request_that_is_refused_leaves_the_first_answer(wordy: Stage) -> None:
    stage = wordy
    message = both(stage, asked("Words.", refusal(503, "busy"), tool_choice=ANY))
    assert essence(message) == [{"type": "text", "text": "Words."}]
    assert message["stop_reason"] == "end_turn"


def test_an_engine_without_grammars_is_not_asked_for_one_again(stages: Stages) -> None:
    """Its refusal is not taken for a schema's."""
    stage = begun(stages, BARE, apart="no grammars")
    for number in range(2):
        stage.engine.forget()
        assert essence(both(stage, asked(A_CALL, tool_choice=ANY))) == [PARIS]
        assert [chat.status for chat in stage.engine.chats] == ([400, 200, 200] if number == 0 else [200, 200])
    assert not [quirk for quirk in ask(stage.url, "GET", "/readyz").json["quirks"] if "refused_schemas" in quirk]
