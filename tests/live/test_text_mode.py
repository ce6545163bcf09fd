"""A real vLLM whose tool calls the gateway reads: started without a parser, with one that is passed by, and with
`--exclude-tools-when-tool-choice-none`, which leaves the tools out of the prompt.
"""

from __future__ import annotations

import asyncio
import http.client
import json
from typing import Any

import pytest
from bench.prefix import Engine, setup

from qiao.doctor import look_engine
from qiao.doctor.check_engine import CHECKS
from qiao.doctor.facts import EngineFacts
from qiao.doctor.finding import findings
from tests.live.conftest import BARE, Stages
from tests.live.stage import CHAT, Stage, request, text_of
from tests.live.test_tools import ADAPTIVE, TIME, TOOLS, WEATHER, calls_of
from tests.live.vllm.script import call, marker, said
from tests.live.vllm.server import Setup
from tests.support.gateway import tools_known

DEAF = Setup(parser="off", reasoning="off", flags=("--exclude-tools-when-tool-choice-none",))
DESCRIBED = [WEATHER, {**TIME, "description": "The time in a zone."}]
PARIS = [("get_weather", {"city": "Paris"})]
ANY, NAMED = {"type": "any"}, {"type": "tool", "name": "get_weather"}
CHOICES = pytest.mark.parametrize("choice", [ANY, NAMED], ids=["any", "named"])
DANGLING = {"type": "object", "properties": {"x": {"$ref": "#/$defs/Nope"}}}


def probed(stage: Stage) -> dict[str, Any]:
    """What the gateway knows of its upstream, after its probe."""
    return tools_known(stage.gateway.url)


def tokens(stage: Stage, body: dict[str, Any]) -> list[int]:
    """The prompt of a body as vLLM's own tokenizer has it."""
    connection = http.client.HTTPConnection("127.0.0.1", stage.server.port, timeout=60)
    wanted = {name: body[name] for name in ("model", "messages", "tools", "chat_template_kwargs") if name in body}
    connection.request("POST", "/tokenize", json.dumps(wanted), {"Content-Type": "application/json"})
    answer = json.loads(connection.getresponse().read())
    connection.close()
    found: list[int] = answer["tokens"]
    return found


def doctors_facts(stage: Stage) -> EngineFacts:
    """What the doctor is told by the gateway."""
    facts = asyncio.run(look_engine.of_gateway(stage.gateway.url, stage.gateway.key))
    assert facts is not None
    return facts


@pytest.fixture
def deaf(stages: Stages) -> Stage:
    """It renders no tools when none are to be called."""
    return stages(DEAF)


# -- tools in words ---------------------------------------------------------------------------------------------------


def test_what_the_probe_finds(deaf: Stage, bare: Stage) -> None:
    found = probed(deaf)
    assert (found["read_by"], found["tools_rendered"], found["tools_written_by"]) == ("qiao", False, "qiao")
    assert found["structural_tags"] is True
    found = probed(bare)
    assert (found["read_by"], found["tools_rendered"], found["tools_written_by"]) == ("qiao", True, "template")
    assert "--tool-call-parser" in found["why"]
    assert (found["template_dialect"], found["dialect_from"]) == ("hermes", "the chat template")
    able = {name: found[name] for name in ("tokenize", "structured_outputs", "images", "prefill")}
    assert able == {"tokenize": True, "structured_outputs": True, "images": False, "prefill": True}


def test_a_session_in_words_is_the_native_prompt_token_for_token(deaf: Stage) -> None:
    probed(deaf)
    first = said("I look.", think="Hm.", calls=[call("get_weather", city="北京", days=2), call("get_time")])
    turns: list[dict[str, Any]] = [{"role": "user", "content": "Weather? " + marker(first, said("So.", think="Warm."))}]
    fields: dict[str, Any] = {"tools": DESCRIBED, "thinking": ADAPTIVE, "system": "You are a test."}
    answer = deaf.stream(turns, **fields).message
    assert calls_of(answer) == [("get_weather", {"city": "北京", "days": 2}), ("get_time", {})]
    uses = [block["id"] for block in answer["content"] if block["type"] == "tool_use"]
    results = [{"type": "tool_result", "tool_use_id": use, "content": f"result {use}\nsunny"} for use in uses]
    turns += [{"role": "assistant", "content": answer["content"]}, {"role": "user", "content": results}]
    final = deaf.whole(turns, **fields)
    assert text_of(final) == "So."
    for chat in deaf.chats():
        assert "tools" not in chat.asked
        assert chat.asked["messages"][0]["role"] == "system"
    # What vLLM itself makes of the same conversation with tools, calls and results as such.
    words = deaf.chats()[-1].asked
    functions = [
        {
            "type": "function",
            "function": {
                "name": tool["name"],
                "description": tool["description"],
                "parameters": tool["input_schema"],
            },
        }
        for tool in DESCRIBED
    ]
    calls = [
        {"id": use, "type": "function", "function": {"name": name, "arguments": json.dumps(given)}}
        for use, (name, given) in zip(uses, calls_of(answer), strict=True)
    ]
    native = {
        **words,
        "tools": functions,
        "messages": [
            {"role": "system", "content": "You are a test."},
            {"role": "user", "content": turns[0]["content"]},
            {"role": "assistant", "content": "I look.", "tool_calls": calls},
            *(
                {"role": "tool", "tool_call_id": use, "content": result["content"]}
                for use, result in zip(uses, results, strict=True)
            ),
        ],
    }
    assert tokens(deaf, words) == tokens(deaf, native)
    usage = final["usage"]
    told = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    assert sum(usage[name] for name in told) == len(tokens(deaf, native)) == deaf.count(turns, **fields)


@CHOICES
def test_a_forced_call_in_words(deaf: Stage, choice: dict[str, Any]) -> None:
    probed(deaf)
    prompt = "Weather? " + marker(said(calls=[call("get_weather", city="Paris")]))
    assert calls_of(deaf.both(prompt, tools=DESCRIBED, tool_choice=choice)) == PARIS
    assert all("tools" not in chat.asked for chat in deaf.chats())


# -- forced and guided calls ------------------------------------------------------------------------------------------


@CHOICES
def test_a_forced_call_behind_thoughts(bare: Stage, choice: dict[str, Any]) -> None:
    probed(bare)
    prompt = "Weather? " + marker(said(think="Hm.", calls=[call("get_weather", city="Paris")]))
    message = bare.both(prompt, tools=TOOLS, tool_choice=choice, thinking=ADAPTIVE)
    assert [block["type"] for block in message["content"]] == ["thinking", "tool_use"]
    assert calls_of(message) == PARIS
    assert message["stop_reason"] == "tool_use"
    assert all(chat.asked["response_format"]["type"] == "structural_tag" for chat in bare.chats())


@CHOICES
def test_a_forced_call_by_the_random_model(bare: Stage, choice: dict[str, Any]) -> None:
    """It would never call by itself; whatever it writes, what is said to be a call fits."""
    probed(bare)
    for message in (
        bare.whole("Weather?", tools=TOOLS, tool_choice=choice, max_tokens=60),
        bare.stream("Weather?", tools=TOOLS, tool_choice=choice, max_tokens=60).message,
    ):
        assert message["stop_reason"] in ("tool_use", "max_tokens"), message
        if message["stop_reason"] == "tool_use":
            assert all(isinstance(given, dict) for _, given in calls_of(message))


def test_two_forced_calls_and_one(bare: Stage) -> None:
    probed(bare)
    two = said(calls=[call("get_weather", city="Paris"), call("get_time", zone="UTC")])
    assert len(calls_of(bare.both("Both? " + marker(two), tools=TOOLS, tool_choice=ANY))) == 2
    one = "One? " + marker(said(calls=[call("get_weather", city="Paris")]))
    choice = {**ANY, "disable_parallel_tool_use": True}
    assert calls_of(bare.both(one, tools=TOOLS, tool_choice=choice)) == PARIS


def test_a_schema_that_makes_no_grammar_costs_nobody_the_request(stages: Stages) -> None:
    bare = stages(BARE, apart="culprit")
    probed(bare)
    odd = {"name": "odd", "input_schema": DANGLING}
    tools = [WEATHER, odd, *({"name": f"t{number}", "input_schema": {"type": "object"}} for number in range(5))]
    prompt = "Weather? " + marker(said(calls=[call("get_weather", city="Paris")]))
    for number in range(2):
        bare.begin()
        assert calls_of(bare.both(prompt, tools=tools, tool_choice=ANY)) == PARIS
        assert [chat.status for chat in bare.chats()].count(400) == (1 if number == 0 else 0)
    prompt = "Odd? " + marker(said(calls=[call("odd", x=1)]))
    assert calls_of(bare.both(prompt, tools=tools, tool_choice={"type": "tool", "name": "odd"})) == [("odd", {"x": 1})]


@pytest.mark.parametrize("strict", [False, True], ids=["guided", "strict"])
def test_guided_calls(stages: Stages, strict: bool) -> None:
    """Bound where nobody forces a call: the script may only say what fits."""
    stage = stages(BARE, *(() if strict else ("--guided-tools",)))
    probed(stage)
    tools = [{**tool, **({"strict": True} if strict else {})} for tool in TOOLS]
    prompt = "Weather? " + marker(said("I look.", think="Hm.", calls=[call("get_weather", city="Paris", days=2)]))
    message = stage.both(prompt, tools=tools, thinking=ADAPTIVE)
    assert [block["type"] for block in message["content"]] == ["thinking", "text", "tool_use"]
    assert text_of(stage.both("Hi. " + marker("Hello."), tools=tools)) == "Hello."
    sent = stage.chats()[-1].asked
    assert sent["response_format"]["type"] == "structural_tag"
    assert all("strict" not in tool["function"] for tool in sent["tools"])
    # The schema forbids what this script wants to say, so the engine has no token left.
    stage.expected.add(502)
    stage.expected.add(500)
    bad = "Weather? " + marker(said(calls=[call("get_weather", town="Paris")]))

    assert stage.post(request(bad, tools=tools)).status >= 500


# -- what the engine does to the text ---------------------------------------------------------------------------------


def test_special_tokens_come_through(stages: Stages) -> None:
    """Kimi's, DeepSeek's and Mistral's calls stand between special tokens; here Qwen's own stand for them."""
    stage = stages(BARE, "--tool-parser", "kimi_k2")
    prompt = "Say it. " + marker("a <|box_start|>b<|box_end|> c")
    message = stage.both(prompt, tools=TOOLS)
    assert text_of(message) == "a <|box_start|>b<|box_end|> c"
    assert all(chat.asked["skip_special_tokens"] is False for chat in stage.chats())
    assert message["stop_reason"] == "end_turn"
    # Without tools there is nothing to read, and the engine leaves them out.
    assert text_of(stage.both(prompt)) == "a b c"


def test_a_parser_passed_by(stages: Stages) -> None:
    """By itself: it loses text behind a call."""
    stage = stages()
    found = probed(stage)
    assert (found["read_by"], found["engine_parser"], found["interferes"]) == ("qiao", True, False)
    assert "leaves calls (hermes) in the text" in found["why"]
    answer = said("Before.", calls=[call("get_weather", city="Paris")]) + "\nAfter."
    message = stage.both("Weather? " + marker(answer), tools=TOOLS)
    assert [block["type"] for block in message["content"]] == ["text", "tool_use", "text"]
    assert {chat.asked["tool_choice"] for chat in stage.chats()} == {"none"}


def test_the_prompt_past_a_parser_is_the_same(stages: Stages) -> None:
    """Token for token what the engine's own reading would have: the prefix cache sees no difference."""
    prompts = []
    for options in ((), ("--tool-parser", "engine")):
        stage = stages(setup(), *options)
        first = said("I look.", think="Hm.", calls=[call("get_weather", city="Paris")])
        turns: list[dict[str, Any]] = [
            {"role": "user", "content": "Weather? " + marker(first, said("Warm.", think="So."))}
        ]
        answer = stage.whole(turns, tools=DESCRIBED, thinking=ADAPTIVE)
        uses = [{**block, "id": "toolu_1"} if "id" in block else block for block in answer["content"]]
        result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "sunny"}
        turns += [{"role": "assistant", "content": uses}, {"role": "user", "content": [result]}]
        assert text_of(stage.whole(turns, tools=DESCRIBED, thinking=ADAPTIVE)) == "Warm."
        engine = Engine(stage.server)
        prompts.append([engine.rendered(CHAT, chat.asked) for chat in stage.chats()])
        assert {chat.asked.get("tool_choice", "auto") for chat in stage.chats()} == {"auto" if options else "none"}
    assert len(prompts[0]) == 2
    assert prompts[0] == prompts[1]


@CHOICES
def test_a_forced_call_past_a_parser(stages: Stages, choice: dict[str, Any]) -> None:
    """By structural tags, as on a server without one; the random model writes nothing else."""
    stage = stages()
    probed(stage)
    prompt = "Weather? " + marker(said(calls=[call("get_weather", city="Paris")]))
    assert calls_of(stage.both(prompt, tools=TOOLS, tool_choice=choice)) == PARIS
    assert {chat.asked["tool_choice"] for chat in stage.chats()} == {"none"}
    message = stage.whole("Weather?", tools=TOOLS, tool_choice=choice, max_tokens=60)
    assert message["stop_reason"] in ("tool_use", "max_tokens"), message


def test_a_parser_that_takes_calls_out_of_the_text(stages: Stages) -> None:
    """vLLM 0.32's qwen3_coder, whatever tool_choice says: it is recognised, and its own reading is kept."""
    stage = stages(Setup(parser="qwen3_coder"))
    found = probed(stage)
    assert (found["read_by"], found["engine_parser"], found["interferes"]) == ("engine", True, True)
    assert "takes calls out of the text" in found["why"]
    assert [advice for advice in found["advice"] if "start it without --tool-call-parser" in advice] == found["advice"]
    answer = "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n</function>\n</tool_call>"
    assert calls_of(stage.both("Weather? " + marker(answer), tools=TOOLS)) == PARIS
    assert all(chat.asked.get("tool_choice", "auto") == "auto" for chat in stage.chats())
    facts = doctors_facts(stage)
    said_by_doctor = {finding.check: finding.evidence for finding in findings(CHECKS, facts)}
    assert "takes calls out of the text" in said_by_doctor["tool_reading"]


def test_counting_a_strict_tool_whose_schema_is_refused(stages: Stages) -> None:
    stage = stages(Setup(), "--tool-parser", "engine", apart="count strict")
    tools = [{"name": "odd", "input_schema": DANGLING, "strict": True}, {**WEATHER, "strict": True}]
    prompt = "Hi. " + marker("Hello.")
    counted = stage.count(prompt, tools=tools)
    usage = stage.whole(prompt, tools=tools)["usage"]
    told = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    assert counted == sum(usage[name] for name in told) == stage.count(prompt, tools=tools)
    assert [exchange.status for exchange in stage.behind.exchanges if exchange.path == CHAT][-1] == 200
