"""A server that was started without parsers gives full tool calling: the gateway reads calls and reasoning itself."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.behaviour import Behaviour
from tests.fakes.script import Say, Step, Think, call, marker, step
from tests.integration.conftest import KEY, Stage, Stages
from tests.support.claude_code import ClaudeCode
from tests.support.gateway import tools_known
from tests.support.plain_http import Reply, ask

pytestmark = pytest.mark.timeout(120)

MODEL = "no-parser"
WEATHER = {
    "name": "get_weather",
    "description": "The weather in a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city"],
    },
}
TIME = {"name": "get_time", "input_schema": {"type": "object", "properties": {"zone": {"type": "string"}}}}
PARIS = {"type": "tool_use", "name": "get_weather", "input": {"city": "Paris"}}


@pytest.fixture
def bare(stages: Stages) -> Stage:
    """A vLLM without a tool parser and without a reasoning parser."""
    stage = stages(MODEL)
    stage.refusals = True
    tools_of(stage)  # the probe is over
    stage.engine.forget()
    return stage


def post(stage: Stage, body: dict[str, Any], path: str = "/v1/messages") -> Reply:
    return ask(stage.url, "POST", path, body, headers={"x-api-key": stage.key, "anthropic-version": "2023-06-01"})


def asked(*steps: Step | str, **fields: Any) -> dict[str, Any]:
    turn = {"role": "user", "content": f"Go on. {marker(*steps)}"}
    return {"model": MODEL, "max_tokens": 2000, "messages": [turn], "tools": [WEATHER, TIME], **fields}


def essence(message: dict[str, Any]) -> list[dict[str, Any]]:
    """The blocks without ids and signatures."""
    names = ("type", "text", "thinking", "name", "input")
    return [{name: block[name] for name in names if name in block} for block in message["content"]]


def both(stage: Stage, body: dict[str, Any]) -> dict[str, Any]:
    """The message, whole and streamed; they must be the same."""
    whole = post(stage, body)
    assert whole.status == 200, whole.body
    streamed = post(stage, {**body, "stream": True})
    assert streamed.status == 200
    message = told(streamed.body)
    assert essence(message) == essence(whole.json)
    assert message["stop_reason"] == whole.json["stop_reason"]
    return message


def told(body: bytes) -> dict[str, Any]:
    """What a client builds of a stream."""
    message: dict[str, Any] = {"content": []}
    inputs: dict[int, str] = {}
    for line in body.decode().splitlines():
        if not line.startswith("data: "):
            continue
        event = json.loads(line[6:])
        match event["type"]:
            case "content_block_start":
                message["content"].append(dict(event["content_block"]))
            case "content_block_delta":
                block, delta = message["content"][event["index"]], event["delta"]
                if delta["type"] == "input_json_delta":
                    inputs[event["index"]] = inputs.get(event["index"], "") + delta["partial_json"]
                elif delta["type"] in ("text_delta", "thinking_delta"):
                    name = delta["type"].removesuffix("_delta")
                    block[name] += delta[name]
            case "content_block_stop" if event["index"] in inputs:
                message["content"][event["index"]]["input"] = json.loads(inputs[event["index"]])
            case "message_delta":
                message["stop_reason"] = event["delta"]["stop_reason"]
    return message


ANSWERS: dict[str, tuple[Step, list[dict[str, Any]], str]] = {
    "a call": (step(call("get_weather", city="Paris")), [PARIS], "tool_use"),
    "reasoning, text and a call": (
        step(Think("Let me see."), "I look.\n", call("get_weather", city="Paris")),
        [{"type": "thinking", "thinking": "Let me see."}, {"type": "text", "text": "I look."}, PARIS],
        "tool_use",
    ),
    "text after a call": (
        step("Before. ", call("get_weather", city="Paris"), "\nAfter.", split="char"),
        [{"type": "text", "text": "Before."}, PARIS, {"type": "text", "text": "After."}],
        "tool_use",
    ),
    "parallel calls": (
        step(call("get_weather", city="Paris"), "\n", call("get_time", zone="UTC")),
        [PARIS, {"type": "tool_use", "name": "get_time", "input": {"zone": "UTC"}}],
        "tool_use",
    ),
    "badly written": (
        step(Say('<tool_call>{"name": "Get-Weather", "arguments": {"city": "Paris", "days": "3",}}</tool_call>')),
        [{"type": "tool_use", "name": "get_weather", "input": {"city": "Paris", "days": 3}}],
        "tool_use",
    ),
    "a tag in prose": (
        step("The tag <tool_call> opens a call."),
        [{"type": "text", "text": "The tag <tool_call> opens a call."}],
        "end_turn",
    ),
    "reasoning and text": (
        step(Think("Hm."), "Yes."),
        [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "Yes."}],
        "end_turn",
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_calls_are_read_from_the_text(bare: Stage, name: str) -> None:
    said, wanted, reason = ANSWERS[name]
    message = both(bare, asked(said))
    assert essence(message) == wanted
    assert message["stop_reason"] == reason


def test_the_first_request_is_healed_and_the_lesson_kept(stages: Stages) -> None:
    stage = stages(MODEL, apart="lesson")
    stage.refusals = True
    body = asked(step(call("get_weather", city="Paris")))
    for _ in range(3):
        reply = post(stage, body)
        assert essence(reply.json) == [PARIS]
        assert "tools: read from the text, hermes" in reply.headers["x-qiao-notes"]
    refused = [chat for chat in stage.engine.chats if chat.refusal is not None]
    assert len(refused) <= 1
    sent = stage.engine.chats[-1].body
    assert sent["tool_choice"] == "none"
    assert [tool["function"]["name"] for tool in sent["tools"]] == ["get_weather", "get_time"]


def test_repairs_are_named(bare: Stage) -> None:
    reply = post(bare, asked(ANSWERS["badly written"][0]))
    assert reply.headers["x-qiao-repairs"] == "near_name=1, string_to_number=1, trailing_comma=1"


def test_repair_can_be_turned_off(stages: Stages) -> None:
    stage = stages(MODEL, "--no-repair", apart="no repair")
    stage.refusals = True
    message = both(stage, asked(ANSWERS["badly written"][0]))
    assert [block["type"] for block in message["content"]] == ["text"]
    assert '"days": "3",}' in message["content"][0]["text"]
    assert essence(both(stage, asked(step(call("get_weather", city="Paris"))))) == [PARIS]


def test_without_tools_text_stays_text(bare: Stage) -> None:
    body = asked(step(call("get_weather", city="Paris")))
    for fields in ({"tools": []}, {"tool_choice": {"type": "none"}}):
        message = both(bare, {**body, **fields})
        assert [block["type"] for block in message["content"]] == ["text"]
        assert message["content"][0]["text"].startswith("<tool_call>")
        assert message["stop_reason"] == "end_turn"


def test_a_cut_call_is_never_executed(bare: Stage) -> None:
    long = call("get_weather", city="a city with a name that goes on and on and on and on and never comes to its end")
    body = asked(step("I look.", call("get_time", zone="UTC"), long), max_tokens=80)
    whole = post(bare, body).json
    assert whole["stop_reason"] == "max_tokens"
    assert [block["name"] for block in whole["content"] if block["type"] == "tool_use"] == ["get_time"]
    assert "a city with" in whole["content"][-1]["text"]
    streamed = post(bare, {**body, "stream": True}).body.decode()
    assert '"stop_reason":"max_tokens"' in streamed


def test_one_call_only(bare: Stage) -> None:
    said = step(call("get_weather", city="Paris"), call("get_time", zone="UTC"))
    message = both(bare, asked(said, tool_choice={"type": "auto", "disable_parallel_tool_use": True}))
    assert essence(message) == [PARIS]


def test_openai_clients_get_it_too(bare: Stage) -> None:
    body = asked(step(Think("Hm."), "I look.", call("get_weather", city="Paris")))
    functions = [
        {"type": "function", "function": {"name": tool["name"], "parameters": tool["input_schema"]}}
        for tool in (WEATHER, TIME)
    ]
    reply = post(bare, {**body, "tools": functions}, "/v1/chat/completions")
    choice = reply.json["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == "I look."
    called = choice["message"]["tool_calls"][0]["function"]
    assert (called["name"], json.loads(called["arguments"])) == ("get_weather", {"city": "Paris"})


def test_a_parser_that_reads_badly_can_be_passed_by(stages: Stages) -> None:
    stage = stages("behind", "--tool-parser", "hermes", behaviour=Behaviour())
    message = both(stage, {**asked(ANSWERS["text after a call"][0]), "model": "behind"})
    assert essence(message) == ANSWERS["text after a call"][1]
    assert {chat.body["tool_choice"] for chat in stage.engine.chats} == {"none"}


def test_the_engine_alone_can_be_insisted_on(stages: Stages) -> None:
    stage = stages("alone", "--tool-parser", "engine", behaviour=Behaviour(tool_parser=False))
    stage.refusals = True
    message = both(stage, {**asked(step(call("get_weather", city="Paris"))), "model": "alone"})
    assert [block["type"] for block in message["content"]] == ["text"]


def test_xml_calls_of_a_coder(stages: Stages) -> None:
    behaviour = Behaviour(tool_parser=False, reasoning_parser=False, calls="qwen3_coder")
    stage = stages("qwen3-coder-30b", behaviour=behaviour)
    stage.refusals = True
    said = Say(
        "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n<parameter=days>\n3\n"
        "</parameter>\n</function>\n</tool_call>"
    )
    message = both(stage, {**asked(step(said)), "model": "qwen3-coder-30b"})
    assert essence(message) == [{**PARIS, "input": {"city": "Paris", "days": 3}}]


CODER_CALL = Say(
    "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n</function>\n</tool_call>"
)


@pytest.mark.parametrize("model", ["my-model", "qwen2.5-7b"], ids=["a name that tells nothing", "another family"])
def test_the_template_says_how_calls_are_written(stages: Stages, model: str) -> None:
    """Whatever the name says: the template is what the model imitates."""
    behaviour = Behaviour(tool_parser=False, reasoning_parser=False, calls="qwen3_coder")
    stage = stages(model, behaviour=behaviour, apart="template")
    stage.refusals = True
    found = tools_of(stage)
    assert (found["dialect"], found["template_dialect"], found["read_by"]) == ("qwen3_coder", "qwen3_coder", "qiao")
    assert found["dialect_from"].startswith("the chat template")
    assert ("Qwen2.5 writes hermes otherwise" in found["dialect_from"]) is (model == "qwen2.5-7b")
    message = both(stage, {**asked(step(CODER_CALL)), "model": model})
    assert essence(message) == [PARIS]


def test_a_template_that_shows_no_calls_leaves_it_to_the_family(stages: Stages) -> None:
    behaviour = Behaviour(tool_parser=False, reasoning_parser=False, calls="")
    found = tools_of(stages("qwen3-coder-30b", behaviour=behaviour, apart="shows none"))
    assert (found["dialect"], found["template_dialect"]) == ("qwen3_coder", None)
    assert found["dialect_from"] == "the model's family, Qwen3-Coder"
    found = tools_of(stages("my-model", behaviour=behaviour, apart="shows none"))
    assert (found["dialect"], found["dialect_from"]) == ("hermes", "nobody told; it is the commonest")


def test_a_parser_of_ours_that_the_template_contradicts(stages: Stages) -> None:
    behaviour = Behaviour(tool_parser=False, calls="qwen3_coder")
    found = tools_of(stages("my-model", "--tool-parser", "hermes", behaviour=behaviour))
    assert (found["dialect"], found["dialect_from"]) == ("hermes", "--tool-parser hermes")
    (advice,) = found["advice"]
    assert "asks the model for calls in qwen3_coder" in advice


@pytest.mark.parametrize(
    ("name", "behaviour", "wanted"),
    [
        ("able", Behaviour(multimodal=True), (True, True, True, True)),
        ("blind", Behaviour(structural_tags=False), (True, True, False, True)),
        ("old", Behaviour(schemas=False), (True, False, False, True)),
        ("ray", Behaviour(server="ray"), (False, True, None, None)),
    ],
)
def test_what_the_engine_can_do(
    stages: Stages, name: str, behaviour: Behaviour, wanted: tuple[bool | None, ...]
) -> None:
    found = tools_of(stages("my-model", behaviour=behaviour, apart=f"able {name}"))
    assert tuple(found[each] for each in ("tokenize", "structured_outputs", "images", "prefill")) == wanted


def test_sglang_without_a_parser(stages: Stages) -> None:
    """It takes tools, leaves the calls in the text, and tells so itself; with none to be called it lists no tools."""
    silent = Behaviour(server="sglang", tool_parser=False, reasoning_parser=False, renders_tools=False)
    stage = stages("qwen3-235b", behaviour=silent, apart="sglang")
    stage.inexact_usage = True  # it tells the prompt's tokens at the end only
    found = tools_of(stage)
    assert (found["read_by"], found["dialect"], found["tools_written_by"]) == ("qiao", "hermes", "qiao")
    assert found["why"] == "SGLang was started without --tool-call-parser"
    assert essence(both(stage, {**asked(ANSWERS["a call"][0]), "model": "qwen3-235b"})) == [PARIS]
    trusted = stages("qwen3-235b", behaviour=Behaviour(server="sglang"), apart="sglang trusted")
    found = tools_of(trusted)
    assert (found["read_by"], found["engine_parser"], found["reasoning_split_by_engine"]) == ("engine", True, False)


def test_llamacpp_is_asked_by_its_own_routes(stages: Stages) -> None:
    behaviour = Behaviour(server="llamacpp", calls="qwen3_coder")
    found = tools_of(stages("my-model", behaviour=behaviour))
    assert (found["engine_parser"], found["tools_rendered"], found["template_dialect"]) == (True, True, "qwen3_coder")
    assert (found["structural_tags"], found["interferes"]) == (None, None)


def test_claude_code_works_through_it(bare: Stage, tmp_path: Path) -> None:
    claude = ClaudeCode(bare.url, KEY, tmp_path / "home", tmp_path / "work", model=MODEL)
    inside = claude.work / "in.txt"
    inside.write_text("the secret is 桥\n")
    outcome = claude.run(
        "Work. "
        + marker(
            step(Think("I begin."), "I run it.", call("Bash", command="echo one > one.txt && cat one.txt")),
            step(call("Write", file_path=str(claude.work / "two.txt"), content='two – "桥" </tool_call>\n')),
            step(call("Read", file_path=str(inside)), split="char", packet=7),
            step(
                "Both at once.",
                call("Bash", command="echo three > three.txt; cat one.txt", description="Write a third"),
                call("Read", file_path=str(claude.work / "two.txt")),
            ),
            "All is done.",
        ),
        "--max-turns",
        "20",
    )
    assert outcome.exit_code == 0, (outcome.result, outcome.errors)
    assert outcome.result["result"] == "All is done."
    assert (claude.work / "one.txt").read_text() == "one\n"
    assert (claude.work / "two.txt").read_text() == 'two – "桥" </tool_call>\n'
    assert (claude.work / "three.txt").read_text() == "three\n"
    assert not any(block.get("is_error") for block in outcome.tool_results())
    assert len(outcome.tool_results()) == 5
    chats = [chat for chat in bare.engine.chats if chat.refusal is None]
    assert len(chats) == 5
    for earlier, later in itertools.pairwise(chats):
        assert later.prompt.startswith(earlier.prompt)


def tools_of(stage: Stage) -> dict[str, Any]:
    return tools_known(stage.gateway.url)


def test_readyz_says_who_reads_calls_and_why(bare: Stage, stage: Stage) -> None:
    found = tools_of(bare)
    assert (found["read_by"], found["dialect"], found["engine_parser"]) == ("qiao", "hermes", False)
    assert "--tool-call-parser" in found["why"]
    assert found["tools_rendered"] is True
    assert found["reasoning_field"] == "reasoning"
    found = tools_of(stage)
    assert (found["read_by"], found["dialect"], found["engine_parser"]) == ("engine", None, True)
    assert found["why"] == "--tool-parser engine"


def test_the_first_user_waits_for_no_healing(stages: Stages) -> None:
    stage = stages(MODEL, apart="probed")
    assert tools_of(stage)["engine_parser"] is False
    reply = post(stage, asked(step(call("get_weather", city="Paris"))))
    assert essence(reply.json) == [PARIS]
    assert [chat.status for chat in stage.engine.chats] == [200]


def test_reasoning_that_the_template_opened(stages: Stages) -> None:
    """The model writes only the closing tag; who asks for no thinking gets a template without the opening one."""
    opening = Behaviour(tool_parser=False, reasoning_parser=False, opens_reasoning=True)
    stage = stages("opening", behaviour=opening)
    found = tools_of(stage)
    assert found["reasoning_opened_by_template"] is True
    assert found["reasoning_split_by_engine"] is False
    said = step(Think("Let me see."), "I look.", call("get_weather", city="Paris"))
    message = both(stage, {**asked(said), "model": "opening"})
    assert essence(message) == [
        {"type": "thinking", "thinking": "Let me see."},
        {"type": "text", "text": "I look."},
        PARIS,
    ]
    message = both(stage, {**asked(said), "model": "opening", "thinking": {"type": "disabled"}})
    assert essence(message) == [{"type": "text", "text": "I look."}, PARIS]


def test_a_parser_that_interferes_is_recognised(stages: Stages) -> None:
    """It makes calls of the text although it was told not to: said in readyz and the log; the calls are passed on."""
    stage = stages("eager", "--tool-parser", "hermes", behaviour=Behaviour(eats_calls=True))
    found = tools_of(stage)
    assert (found["interferes"], found["engine_parser"]) == (True, True)
    (advice,) = found["advice"]
    assert "start it without --tool-call-parser, or run qiao with --tool-parser engine" in advice
    end = time.monotonic() + 10
    while f"warning {advice}" not in stage.gateway.output and time.monotonic() < end:
        time.sleep(0.05)
    assert f"warning {advice}" in stage.gateway.output
    message = both(stage, {**asked(step(call("get_weather", city="Paris"))), "model": "eager"})
    assert essence(message) == [PARIS]
    quiet = stages("behind", "--tool-parser", "hermes", behaviour=Behaviour())
    found = tools_of(quiet)
    assert (found["interferes"], found["advice"]) == (False, [])


def test_other_advice(stages: Stages) -> None:
    stage = stages("alone", "--tool-parser", "engine", behaviour=Behaviour(tool_parser=False))
    stage.refusals = True
    assert "the engine has no tool parser" in tools_of(stage)["advice"][0]
    stage = stages("devstral-small", "--tool-parser", "mistral", behaviour=Behaviour(calls="mistral"))
    assert "Mistral tokenizer" in tools_of(stage)["advice"][0]
    stage = stages("qwen3-235b", "--guided-tools", "--tool-parser", "engine", behaviour=Behaviour())
    assert tools_of(stage)["advice"][0].startswith("--guided-tools has no effect: the engine reads the calls")


# -- a server with a parser -------------------------------------------------------------------------------------------


def begun(stages: Stages, model: str, behaviour: Behaviour, *arguments: str, apart: str = "") -> Stage:
    """The probe is over."""
    stage = stages(model, *arguments, behaviour=behaviour, apart=apart)
    tools_of(stage)
    stage.engine.forget()
    return stage


def test_a_parser_that_leaves_calls_alone_is_passed_by(stages: Stages) -> None:
    """By itself: the same tools in the same prompt, and what the parser would lose is there."""
    stage = begun(stages, "qwen3-235b", Behaviour())
    found = tools_of(stage)
    assert (found["read_by"], found["dialect"], found["engine_parser"]) == ("qiao", "hermes", True)
    assert (found["interferes"], found["advice"]) == (False, [])
    assert found["why"].startswith("the engine's parser leaves calls (hermes) in the text")
    body = asked(step("Before. ", call("get_weather", city="Paris"), " After.")) | {"model": "qwen3-235b"}
    message = both(stage, body)
    assert essence(message) == [{"type": "text", "text": "Before."}, PARIS, {"type": "text", "text": "After."}]
    assert "read from the text, hermes (past the engine's parser)" in post(stage, body).headers["x-qiao-notes"]
    sent = stage.engine.chats[-1]
    assert (sent.body["tool_choice"], [tool["function"]["name"] for tool in sent.body["tools"]]) == (
        "none",
        ["get_weather", "get_time"],
    )
    unnamed = begun(stages, "my-model", Behaviour())
    found = tools_of(unnamed)
    assert (found["read_by"], found["dialect"], found["dialect_from"]) == ("qiao", "hermes", "the chat template")
    trusted = begun(stages, "qwen3-235b", Behaviour(), "--tool-parser", "engine")
    post(trusted, body)
    assert trusted.engine.chats[-1].prompt == sent.prompt
    assert "tool_choice" not in trusted.engine.chats[-1].body or trusted.engine.chats[-1].body["tool_choice"] == "auto"


@pytest.mark.parametrize(
    ("name", "model", "behaviour", "why"),
    [
        ("swallows", "qwen3-235b", Behaviour(swallows_calls=True), "takes calls out of the text"),
        ("eats", "qwen3-235b", Behaviour(eats_calls=True), "makes calls of the text"),
        ("hides", "qwen3-235b", Behaviour(renders_tools=False), "the prompt does not list the tools"),
        ("no tags", "qwen3-235b", Behaviour(structural_tags=False), "could not be found out"),
        ("unknown", "small-7b", Behaviour(calls=""), "was not put to the test"),
        ("untested", "kimi-k2-instruct", Behaviour(calls="kimi_k2"), "was not put to the test"),
        ("ray", "qwen3-235b", Behaviour(server="ray"), "could not be found out"),
    ],
)
def test_a_parser_that_is_trusted(stages: Stages, name: str, model: str, behaviour: Behaviour, why: str) -> None:
    """Where the probe has not seen that the text can be read."""
    stage = begun(stages, model, behaviour, apart=name)
    found = tools_of(stage)
    assert (found["read_by"], found["dialect"], found["engine_parser"]) == ("engine", None, True)
    assert why in found["why"]
    assert [advice for advice in found["advice"] if "start it without --tool-call-parser" in advice] == (
        found["advice"] if name == "swallows" else []
    )
    message = both(stage, asked(step(call("get_weather", city="Paris"))) | {"model": model})
    assert essence(message) == [PARIS]
    assert all(chat.body.get("tool_choice", "auto") == "auto" for chat in stage.engine.chats)


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "get_weather"}], ids=["any", "named"])
def test_a_forced_call_keeps_the_stronger_grammar(stages: Stages, choice: dict[str, Any]) -> None:
    """Structural tags bind the arguments to the schema; where this request's make no grammar, the engine's own does."""
    stage = begun(stages, "qwen3-235b", Behaviour(), apart="forced")
    body = asked(step(call("get_weather", city="Paris"))) | {"model": "qwen3-235b", "tool_choice": choice}
    assert essence(both(stage, body)) == [PARIS]
    assert {chat.body["response_format"]["type"] for chat in stage.engine.chats} == {"structural_tag"}
    prefilled = {**body, "messages": [*body["messages"], {"role": "assistant", "content": "So:"}]}
    stage.engine.forget()
    assert essence(post(stage, prefilled).json) == [PARIS]
    (chat,) = stage.engine.chats
    assert chat.body["tool_choice"] != "none"
