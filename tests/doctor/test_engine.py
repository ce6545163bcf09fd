"""An engine is asked, and each fault is found on the one that has it and on no other."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from qiao.core.fault import Fault
from qiao.doctor import look_engine
from qiao.doctor.check_engine import CHECKS
from qiao.doctor.facts import EngineFacts
from qiao.doctor.finding import Finding, findings
from tests.fakes.behaviour import Behaviour
from tests.fakes.engine import FakeEngine, serving
from tests.fakes.script import Call, Step, marker
from tests.support.background import Background
from tests.support.gateway import free_port, gateway

HEALTHY = Behaviour(max_model_len=131_072)
MODEL = "Qwen3-235B-A22B-Instruct-2507"


@pytest.fixture(scope="module")
def background() -> Iterator[Background]:
    with Background() as running:
        yield running


async def examined(background: Background, behaviour: Behaviour, version: str = "0.32.0") -> dict[str, Finding]:
    url = background.enter(serving(FakeEngine({MODEL: behaviour}, version=version)))
    facts = await look_engine.look(url, None)
    return {finding.check: finding for finding in findings(CHECKS, facts)}


def grades(found: dict[str, Finding]) -> dict[str, str]:
    return {name: finding.grade for name, finding in found.items() if finding.grade != "ok"}


async def test_a_healthy_engine_has_nothing(background: Background) -> None:
    found = await examined(background, HEALTHY)
    assert grades(found) == {}
    looked_at = {"engine_too_old", "parser_missing", "template_without_tools", "system_in_the_middle"}
    looked_at |= {"window_too_small", "prefix_caching_off", "token_details_off", "reasoning_swallows_text"}
    assert looked_at <= set(found)


@pytest.mark.parametrize(
    ("behaviour", "check", "grade", "words"),
    [
        ({"tool_parser": False, "reasoning_parser": False}, "parser_missing", "problem", "--tool-call-parser hermes"),
        ({"leaks_calls": True}, "parser_wrong", "problem", "--tool-call-parser hermes"),
        ({"template_has_tools": False}, "template_without_tools", "problem", "chat template"),
        ({"system_anywhere": False}, "system_in_the_middle", "problem", "qiao"),
        ({"max_model_len": 8192}, "window_too_small", "problem", "--max-model-len"),
        ({"max_model_len": 20_000}, "window_too_small", "warning", "--max-model-len"),
        ({"prefix_caching": False}, "prefix_caching_off", "problem", "prefix-caching"),
        ({"prompt_details": False}, "token_details_off", "warning", "--enable-prompt-tokens-details"),
        ({"swallows_text": True}, "reasoning_swallows_text", "problem", "--reasoning-parser"),
        ({"version": "0.7.3"}, "engine_too_old", "problem", "Update"),
        ({"version": "0.9.2"}, "engine_too_old", "warning", "Update"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
async def test_each_fault_is_found_and_no_other(
    background: Background, behaviour: dict[str, object], check: str, grade: str, words: str
) -> None:
    changes = dict(behaviour)
    version = str(changes.pop("version", "0.32.0"))
    found = await examined(background, msgspec.structs.replace(HEALTHY, **changes), version)
    assert grades(found) == {check: grade}
    assert words in (found[check].mend or "")
    assert found[check].evidence


@pytest.mark.parametrize(
    ("flavor", "flag"), [("vllm", "--max-model-len"), ("sglang", "--context-length"), ("llamacpp", "--ctx-size")]
)
def test_a_small_window_is_raised_by_the_engines_own_flag(flavor: str, flag: str) -> None:
    for window in (8192, 20_000):
        facts = EngineFacts(about="http://h", flavor=flavor, window=window)
        (found,) = [finding for finding in findings(CHECKS, facts) if finding.check == "window_too_small"]
        assert flag in (found.mend or "")


async def test_a_call_that_comes_as_a_call_is_well(background: Background) -> None:
    url = background.enter(serving(FakeEngine({MODEL: HEALTHY})))
    asked = marker(Step(parts=(Call("get_weather", '{"city": "Paris"}'),)))
    facts = await look_engine.look(url, None, ask=asked)
    assert facts.leak == ""
    found = {finding.check: finding.grade for finding in findings(CHECKS, facts)}
    assert found["parser_wrong"] == "ok"


async def test_an_engine_that_does_not_answer_is_a_fault() -> None:
    with pytest.raises(Fault):
        await look_engine.look(f"http://127.0.0.1:{free_port()}", None)


async def test_what_the_engine_can_do_is_told(background: Background) -> None:
    found = await examined(background, msgspec.structs.replace(HEALTHY, multimodal=True, structural_tags=False))
    assert found["abilities"].evidence == (
        "What the engine can do: count prompts (/tokenize): yes; hold to a schema: yes; structural tags: no; "
        "see images: yes; continue an answer (prefill): yes; its chat template asks for calls in: hermes."
    )


async def test_few_requests_and_few_tokens(background: Background) -> None:
    engine = FakeEngine({MODEL: HEALTHY})
    url = background.enter(serving(engine))
    await look_engine.look(url, None)
    chats = [request for request in engine.requests if request.path == "/v1/chat/completions"]
    assert len(chats) <= 11
    asked = [request.body.get("max_tokens") or request.body.get("max_completion_tokens") for request in chats]
    assert sum(asked) < 400


async def test_what_a_gateway_knows_of_its_engine(
    background: Background, tmp_path_factory: pytest.TempPathFactory
) -> None:
    bare = Behaviour(tool_parser=False, reasoning_parser=False, system_anywhere=False)
    engine = background.enter(serving(FakeEngine({MODEL: bare})))
    with gateway(engine, tmp_path_factory.mktemp("gateway"), key="sk-doctor-7c1d2e3f4a") as running:
        facts = await look_engine.of_gateway(running.url, running.key)
    assert facts is not None
    assert (facts.reader, facts.tool_parser, facts.version) == ("qiao", False, "0.32.0")
    found = {finding.check: finding for finding in findings(CHECKS, facts)}
    assert found["parser_missing"].grade == "note"
    assert "qiao reads the calls itself" in found["parser_missing"].evidence
    assert "(hermes, as told by the chat template)" in found["tool_reading"].evidence
    assert "hold to a schema: yes" in found["abilities"].evidence
    assert "--tool-call-parser" in found["tool_reading"].evidence


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (EngineFacts(about="log", model="Qwen/Qwen3-Coder-480B-A35B-Instruct", parser_name="hermes"), "qwen3_coder"),
        (EngineFacts(about="log", model="Qwen/Qwen3-235B-A22B-Instruct-2507", parser_name="qwen3_coder"), "hermes"),
        (EngineFacts(about="log", model="Qwen/Qwen3-235B-A22B-Instruct-2507", parser_name="hermes"), None),
        (EngineFacts(about="log", model="Qwen/Qwen3-Coder-480B-A35B-Instruct", parser_name="qwen3_xml"), None),
    ],
)
def test_the_parser_by_name(facts: EngineFacts, expected: str | None) -> None:
    found = {finding.check: finding for finding in findings(CHECKS, facts)}
    if expected is None:
        assert "parser_wrong" not in found
    else:
        assert f"--tool-call-parser {expected}" in (found["parser_wrong"].mend or "")


def test_lessons_are_told() -> None:
    facts = EngineFacts(about="http://e", quirks=("fold_system", "stop_limit=4"))
    found = {finding.check: finding for finding in findings(CHECKS, facts)}
    assert "stop_limit=4" in found["lessons"].evidence
    assert found["system_in_the_middle"].grade == "note"


def test_a_low_hit_rate_is_told() -> None:
    low = {each.check: each.grade for each in findings(CHECKS, EngineFacts(about="log", hit_rate=3.1))}
    high = {each.check: each.grade for each in findings(CHECKS, EngineFacts(about="log", hit_rate=91.0))}
    assert low == {"prefix_caching_off": "warning"}
    assert high == {}


async def test_what_the_engine_and_its_gateway_know_together(background: Background) -> None:
    url = background.enter(serving(FakeEngine({MODEL: Behaviour(system_anywhere=False, leaks_calls=True)})))
    asked = await look_engine.look(url, None)
    known = EngineFacts(about=url, model="qwen3-235b", reader="qiao", is_behind_qiao=True, tool_parser=False)
    both = look_engine.together(known, asked)
    assert (both.model, both.reader, both.tool_parser) == ("qwen3-235b", "qiao", False)
    found = {finding.check: finding.grade for finding in findings(CHECKS, both)}
    assert (found["system_in_the_middle"], found["parser_wrong"], found["prefix_caching_off"]) == ("note", "note", "ok")
    alone = {finding.check: finding.grade for finding in findings(CHECKS, asked)}
    assert (alone["system_in_the_middle"], alone["parser_wrong"]) == ("problem", "problem")
