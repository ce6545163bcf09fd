"""Every way of starting Claude Code gets an answer, and every trouble with an engine ends well for its user."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import claude_agent_sdk
import pytest

from tests.fakes.script import Break, Call, Pause, Step, Think, call, marker, refusal, step, text_of
from tests.integration.conftest import MODEL, Stage
from tests.support.claude_code import PROGRAM, ClaudeCode, Outcome

pytestmark = pytest.mark.timeout(120)

HI = "Say hi. " + marker("Hi there.")


def run(stage: Stage, folder: Path, prompt: str, *arguments: str, model: str = MODEL, **environment: str) -> Outcome:
    claude = ClaudeCode(stage.url, stage.key, folder / "home", folder / "work", model=model, extra=environment)
    return claude.run(prompt, "--max-turns", "10", *arguments)


def statuses(stage: Stage) -> list[int | None]:
    return [exchange.status for exchange in stage.tap.exchanges]


WAYS: dict[str, tuple[list[str], dict[str, str]]] = {
    "without tools": (["--tools", ""], {}),
    "bare": (["--bare"], {}),
    "in plan mode": (["--permission-mode", "plan"], {}),
    "with the greatest effort": (["--effort", "max"], {}),
    "without experimental betas": ([], {"CLAUDE_CODE_DISABLE_EXPERIMENTAL_BETAS": "1"}),
    "without tool search": ([], {"ENABLE_TOOL_SEARCH": "false"}),
    "with automatic tool search": ([], {"ENABLE_TOOL_SEARCH": "auto"}),
    "as through a proxy": ([], {"CLAUDE_CODE_SIMULATE_PROXY_USAGE": "1"}),
    "without thinking": ([], {"MAX_THINKING_TOKENS": "0"}),
    "with fine-grained tool streaming": ([], {"CLAUDE_CODE_ENABLE_FINE_GRAINED_TOOL_STREAMING": "1"}),
    "with an hour's cache": ([], {"ENABLE_PROMPT_CACHING_1H": "1"}),
    "without cache marks": ([], {"DISABLE_PROMPT_CACHING": "1"}),
    "with a body of its own": ([], {"CLAUDE_CODE_EXTRA_BODY": '{"temperature": 0.7, "top_k": 20}'}),
    "with all its traffic": ([], {"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": ""}),
    "discovering models": (
        [],
        {"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "", "CLAUDE_CODE_ENABLE_GATEWAY_MODEL_DISCOVERY": "1"},
    ),
    "with a bearer token": ([], {"ANTHROPIC_API_KEY": "", "ANTHROPIC_AUTH_TOKEN": "KEY"}),
}


@pytest.mark.parametrize("way", WAYS)
def test_it_is_answered(stage: Stage, tmp_path: Path, way: str) -> None:
    arguments, environment = WAYS[way]
    settings = {name: stage.key if value == "KEY" else value for name, value in environment.items()}
    outcome = run(stage, tmp_path, HI, *arguments, **settings)
    assert outcome.exit_code == 0, (outcome.result, outcome.errors)
    assert outcome.result["result"] == "Hi there."
    assert set(statuses(stage)) == {200}


@pytest.mark.parametrize(
    "name",
    ["claude-sonnet-5", "claude-sonnet-4-5-20250929", "claude-3-5-haiku-20241022", "claude-opus-5-5[1m]", "opus"],
)
def test_claudes_own_names_reach_the_model(stage: Stage, tmp_path: Path, name: str) -> None:
    outcome = run(stage, tmp_path, HI, model=name)
    assert outcome.exit_code == 0, (outcome.result, outcome.errors)
    assert outcome.result["result"] == "Hi there."
    assert {chat.body["model"] for chat in stage.engine.chats} == {MODEL}
    assert set(statuses(stage)) == {200}


def test_its_context_page_counts_with_the_engine(stage: Stage, tmp_path: Path) -> None:
    outcome = run(stage, tmp_path, "/context")
    assert outcome.exit_code == 0
    assert "Context Usage" in outcome.result["result"]
    assert len(statuses(stage)) > 10
    assert set(statuses(stage)) == {200}
    assert {request.path for request in stage.engine.requests} >= {"/tokenize"}


TROUBLE: dict[str, tuple[list[Any], str, list[int | None]]] = {
    "the engine dies in the middle": (
        [Step(attempts=(step("a b", Break("error")), step("fine")))],
        "fine",
        [200, 200],
    ),
    "the connection is reset": (
        [Step(attempts=(step("a b", Pause(0.1), Break("reset")), step("fine")))],
        "fine",
        [200, 200],
    ),
    "the engine fails at once": ([Step(attempts=(refusal(500, "boom"), step("fine")))], "fine", [502, 200]),
    "the answer is cut": ([step("Half an", finish="length"), "answer."], "answer.", [200, 200]),
    "nothing is said": ([Step(attempts=(step(), step("something")))], "something", [200, 200]),
    "only thoughts": ([Step(attempts=(step(Think("hm")), step("something")))], "something", [200, 200]),
    "a tool that does not exist": ([step(call("Nope", x=1)), "sorry"], "sorry", [200, 200]),
    "a tool in the wrong case": ([step(call("bash", command="true")), "sorry"], "sorry", [200, 200]),
    "input that does not fit": ([step(call("Read", path=1)), "sorry"], "sorry", [200, 200]),
    "two calls with the same id": (
        [step(call("Bash", call_id="x", command="echo 1"), call("Bash", call_id="x", command="echo 2")), "both"],
        "both",
        [200, 200],
    ),
}


@pytest.mark.parametrize("name", TROUBLE)
def test_trouble_ends_well(stage: Stage, tmp_path: Path, name: str) -> None:
    steps, answer, wanted = TROUBLE[name]
    outcome = run(stage, tmp_path, "Go on. " + marker(*steps))
    assert outcome.exit_code == 0, (outcome.result, outcome.errors)
    assert outcome.result["result"] == answer
    assert statuses(stage) == wanted


def test_arguments_beyond_repair_are_shown_and_not_run(stage: Stage, tmp_path: Path) -> None:
    outcome = run(stage, tmp_path, "Go on. " + marker(Call("Bash", "please run ls"), "unused"))
    assert outcome.exit_code == 0
    assert "please run ls" in outcome.result["result"]
    assert outcome.tool_results() == []


def test_a_search_that_we_cannot_do_does_not_end_the_session(stage: Stage, tmp_path: Path) -> None:
    """Claude Code's WebSearch is a request of its own with a tool that only Anthropic's servers have."""
    search = step(call("ToolSearch", query="select:WebSearch")), step(call("WebSearch", query="bridges")), "No search."
    outcome = run(stage, tmp_path, "Search. " + marker(*search))
    assert outcome.exit_code == 0
    assert outcome.result["result"] == "No search."
    assert "search" in json.dumps(outcome.tool_results()[-1])


async def test_the_agent_sdk(stage: Stage, tmp_path: Path) -> None:
    claude = ClaudeCode(stage.url, stage.key, tmp_path / "home", tmp_path / "work")
    options = claude_agent_sdk.ClaudeAgentOptions(
        model=MODEL,
        cwd=claude.work,
        env=claude.environment,
        cli_path=PROGRAM,
        permission_mode="bypassPermissions",
        max_turns=5,
    )
    said = marker(step(call("Bash", command="echo sdk > sdk.txt")), "Written.")
    last: Any = None
    async for message in claude_agent_sdk.query(prompt=f"Go. {said}", options=options):
        last = message
    assert isinstance(last, claude_agent_sdk.ResultMessage)
    assert (last.is_error, last.result) == (False, "Written.")
    assert (claude.work / "sdk.txt").read_text() == "sdk\n"
    assert set(statuses(stage)) == {200}
    shown = [text_of(message["content"]) for message in stage.engine.chats[0].messages if message["role"] == "system"]
    assert all("x-anthropic-billing-header" not in text for text in shown)
