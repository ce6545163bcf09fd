"""Servers that put no tools into the prompt: the gateway writes them there, and gives full tool calling there too."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.behaviour import Behaviour
from tests.fakes.script import Say, Think, call, marker, step
from tests.integration.conftest import KEY, Stage, Stages
from tests.integration.test_no_restart import PARIS, TIME, WEATHER, both, essence, post, tools_of
from tests.support.claude_code import ClaudeCode

pytestmark = pytest.mark.timeout(120)

MODEL = "qwen3-235b"
DEAF = Behaviour(tool_parser=False, reasoning_parser=False, renders_tools=False)
"""vLLM with `--exclude-tools-when-tool-choice-none`, or of a version before 0.10."""
IGNORANT = Behaviour(no_tools=True, tool_parser=False, reasoning_parser=False, renders_tools=False)


@pytest.fixture
def deaf(stages: Stages) -> Stage:
    stage = stages(MODEL, behaviour=DEAF)
    stage.refusals = True
    tools_of(stage)  # the probe is over
    return stage


def asked(*steps: Any, **fields: Any) -> dict[str, Any]:
    turn = {"role": "user", "content": f"Go on. {marker(*steps)}"}
    return {"model": MODEL, "max_tokens": 2000, "messages": [turn], "tools": [WEATHER, TIME], **fields}


def test_tools_stand_in_the_prompt(deaf: Stage) -> None:
    message = both(deaf, asked(step("I look.", call("get_weather", city="Paris"))))
    assert essence(message) == [{"type": "text", "text": "I look."}, PARIS]
    for chat in deaf.engine.chats:
        assert "tools" not in chat.body
        assert "tool_choice" not in chat.body
        assert '{"type": "function", "function": {"name": "get_weather", "description": ' in chat.prompt


def test_readyz_says_who_writes_tools(deaf: Stage, stages: Stages) -> None:
    found = tools_of(deaf)
    assert (found["tools_rendered"], found["tools_written_by"], found["read_by"]) == (False, "qiao", "qiao")
    found = tools_of(stages("no-parser"))
    assert (found["tools_rendered"], found["tools_written_by"]) == (True, "template")
    found = tools_of(stages("qwen3-235b", "--tool-parser", "engine"))
    assert (found["tools_rendered"], found["tools_written_by"]) == (True, None)


def test_a_round_trip_is_the_prompt_of_the_template(deaf: Stage, stages: Stages) -> None:
    """The same conversation on a server that renders tools: the turns of the two prompts are the same."""
    said = step(Think("Hm."), "I look.", call("get_weather", city="Paris"), "\n", call("get_time", zone="UTC"))
    body = asked(said, "It is warm.")
    prompts = []
    for stage in (deaf, stages("no-parser")):
        stage.refusals = True
        first = post(stage, {**body, "model": stage.model}).json
        uses = [block for block in first["content"] if block["type"] == "tool_use"]
        results = [{"type": "tool_result", "tool_use_id": use["id"], "content": f"{use['name']}: 18"} for use in uses]
        turns = [{"role": "assistant", "content": first["content"]}, {"role": "user", "content": results}]
        second = post(stage, {**body, "model": stage.model, "messages": body["messages"] + turns}).json
        assert second["content"][0]["text"] == "It is warm."
        earlier, later = [chat.prompt for chat in stage.engine.chats if chat.refusal is None]
        assert later.startswith(earlier)
        prompts.append(later[later.index("<|im_start|>user") :])
    # The fake template joins the text and the calls, and two results, in its own way.
    written, rendered = ("".join(prompt.replace("<|im_end|>\n<|im_start|>user", "").split()) for prompt in prompts)
    assert written == rendered


def test_count_tokens_counts_what_is_sent(deaf: Stage) -> None:
    body = asked(step("Hello."))
    counted = post(deaf, {name: body[name] for name in ("model", "messages", "tools")}, "/v1/messages/count_tokens")
    assert counted.headers["x-qiao-count"] == "exact"
    used = post(deaf, body).json["usage"]
    assert counted.json["input_tokens"] == sum(
        used[name] for name in ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    )


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "get_weather"}], ids=["any", "tool"])
def test_a_forced_call(deaf: Stage, choice: dict[str, Any]) -> None:
    plain = Say('{"name": "get_weather", "arguments": {"city": "Paris"}}')
    assert essence(both(deaf, asked(step(plain), tool_choice=choice))) == [PARIS]


def test_a_server_that_refuses_tools(stages: Stages) -> None:
    """Ollama with a model that has none, llama.cpp without --jinja."""
    stage = stages("small-7b", behaviour=IGNORANT)
    stage.refusals = True
    message = both(stage, {**asked(step(call("get_weather", city="Paris"))), "model": "small-7b"})
    assert essence(message) == [PARIS]
    found = tools_of(stage)
    assert (found["read_by"], found["tools_written_by"], found["dialect"]) == ("qiao", "qiao", "hermes")
    assert "does not support tools" in found["why"]


def test_a_lesson_learned_without_a_probe(stages: Stages) -> None:
    """A server that refuses tools is healed at the first request, whether the probe was over or not."""
    stage = stages("small-7b", behaviour=IGNORANT, apart="first")
    stage.refusals = True
    reply = post(stage, {**asked(step(call("get_weather", city="Paris"))), "model": "small-7b"})
    assert essence(reply.json) == [PARIS]
    assert "tools: written into the text" in reply.headers["x-qiao-notes"]


def test_a_parser_passed_by_on_a_server_that_hides_tools(stages: Stages) -> None:
    behaviour = Behaviour(renders_tools=False)
    stage = stages("behind-hidden", "--tool-parser", "hermes", behaviour=behaviour)
    assert tools_of(stage)["tools_written_by"] == "qiao"
    body = {**asked(step("Before. ", call("get_weather", city="Paris"), "\nAfter.")), "model": "behind-hidden"}
    assert [block["type"] for block in essence(both(stage, body))] == ["text", "tool_use", "text"]
    plain = stages("hidden", behaviour=behaviour)
    assert tools_of(plain)["read_by"] == "engine"
    both(plain, {**asked(step(call("get_weather", city="Paris"))), "model": "hidden"})
    assert plain.engine.chats[-1].body["tools"]


def test_claude_code_works_without_tools_in_the_prompt(deaf: Stage, tmp_path: Path) -> None:
    claude = ClaudeCode(deaf.url, KEY, tmp_path / "home", tmp_path / "work", model=MODEL)
    outcome = claude.run(
        "Work. "
        + marker(
            step(Think("I begin."), "I run it.", call("Bash", command="echo one > one.txt && cat one.txt")),
            step(call("Write", file_path=str(claude.work / "two.txt"), content='two – "桥" </tool_call>\n')),
            step(
                "Both at once.",
                call("Bash", command="cat one.txt", description="Read it"),
                call("Read", file_path=str(claude.work / "two.txt")),
            ),
            "All is done.",
        ),
        "--max-turns",
        "20",
    )
    assert outcome.exit_code == 0, (outcome.result, outcome.errors)
    assert outcome.result["result"] == "All is done."
    assert (claude.work / "two.txt").read_text() == 'two – "桥" </tool_call>\n'
    assert not any(block.get("is_error") for block in outcome.tool_results())
    chats = [chat for chat in deaf.engine.chats if chat.refusal is None]
    assert len(chats) == 4
    assert not any("tools" in chat.body for chat in chats)
    for earlier, later in itertools.pairwise(chats):
        assert later.prompt.startswith(earlier.prompt)
