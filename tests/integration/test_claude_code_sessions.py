"""The real Claude Code, headless, works through the gateway on a scripted engine.

The program is the one inside the package claude-agent-sdk, unchanged. Every test asserts on what a user would see
(files, exit code, result), on what the client received (no unexpected 4xx or 5xx), and on what the engine was shown.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.engine import Recorded
from tests.fakes.script import Call, Step, Think, call, marker, refusal, step, text_of
from tests.integration.conftest import Stage, Stages
from tests.support import mcp_server
from tests.support.claude_code import PROGRAM, VERSION, ClaudeCode, Outcome
from tests.support.files import pdf, png

pytestmark = pytest.mark.timeout(120)

OVERFLOW = (
    "This model's maximum context length is 131072 tokens. However, your prompt contains at least 131073 input tokens, "
    "which exceeds this limit even without any output tokens. Please reduce the length of the input prompt. "
    "(parameter=input_tokens, value=131073)"
)


@dataclass
class User:
    """Claude Code with its stage."""

    claude: ClaudeCode
    stage: Stage

    @property
    def work(self) -> Path:
        return self.claude.work

    def run(self, prompt: str, *arguments: str) -> Outcome:
        return self.claude.run(prompt, "--max-turns", "20", *arguments)

    @property
    def main(self) -> list[Recorded]:
        """The requests of the main conversation that the engine received (sub-agents have another first prompt)."""
        return [chat for chat in self.stage.engine.chats if "Do the sub-task" not in _first_user_text(chat)]

    def statuses(self) -> list[int | None]:
        return [exchange.status for exchange in self.stage.tap.exchanges if exchange.path == "/v1/messages"]


def _first_user_text(chat: Recorded) -> str:
    return next((text_of(message["content"]) for message in chat.messages if message["role"] == "user"), "")


@pytest.fixture
def user(stage: Stage, tmp_path: Path) -> User:
    return User(ClaudeCode(stage.url, stage.key, tmp_path / "home", tmp_path / "work"), stage)


@pytest.fixture
def user_of(stages: Stages, tmp_path: Path) -> Callable[[str], User]:
    def made(model: str) -> User:
        stage = stages(model)
        return User(ClaudeCode(stage.url, stage.key, tmp_path / "home", tmp_path / "work", model=model), stage)

    return made


def succeeded(outcome: Outcome, user: User, answer: str) -> None:
    """The run ended well, and every request that it made was answered well."""
    assert outcome.exit_code == 0, (outcome.result, outcome.errors)
    assert outcome.result["subtype"] == "success"
    assert outcome.result["is_error"] is False
    assert outcome.result["result"] == answer
    assert set(user.statuses()) == {200}


def results(outcome: Outcome) -> list[str]:
    """What Claude Code's tools gave back, as text; a failed tool is an error of the test."""
    found = []
    for block in outcome.tool_results():
        assert not block.get("is_error"), block
        content = block["content"]
        found.append(content if isinstance(content, str) else text_of(content))
    return found


def test_it_is_the_version_that_was_studied() -> None:
    shown = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=True).stdout
    assert shown.startswith(VERSION)


def test_a_trivial_prompt(user: User) -> None:
    outcome = user.run("Say hi. " + marker("Hi there."))
    succeeded(outcome, user, "Hi there.")
    assert len(user.stage.engine.chats) == 1
    sent = user.stage.engine.chats[0]
    assert sent.messages[0]["role"] == "system"
    assert "x-anthropic-billing-header" not in json.dumps(sent.body)
    assert "DeferredToolPlaceholder" not in json.dumps(sent.body)
    assert "Bash" in sent.tool_names
    assert "ToolSearch" in sent.tool_names
    # Claude Code puts a system turn behind the first prompt; it stays there.
    assert [message["role"] for message in sent.messages] == ["system", "user", "system"]
    assert outcome.result["usage"]["input_tokens"] > 1000


def test_a_session_with_tools(user: User) -> None:
    inside = user.work / "in.txt"
    inside.write_text("the secret is 桥\n")
    outcome = user.run(
        "Work. "
        + marker(
            step(Think("I begin."), "I run it.", call("Bash", command="echo one > one.txt && cat one.txt")),
            step(call("Write", file_path=str(user.work / "two.txt"), content='two – "桥"\n')),
            step(call("Read", file_path=str(inside)), split="char", packet=7),
            step(
                Think("Both at once."),
                call("Bash", command="echo three > three.txt; cat one.txt", description="Write a third"),
                call("Read", file_path=str(user.work / "two.txt")),
            ),
            "All is done.",
        )
    )
    succeeded(outcome, user, "All is done.")
    assert (user.work / "one.txt").read_text() == "one\n"
    assert (user.work / "two.txt").read_text() == 'two – "桥"\n'
    assert (user.work / "three.txt").read_text() == "three\n"
    shown = results(outcome)
    assert [shown[0], shown[3]] == ["one", "one"]
    assert "the secret is 桥" in shown[2]
    assert outcome.result["num_turns"] >= 5

    chats = user.stage.engine.chats
    assert len(chats) == 5
    last = chats[-1].messages
    tools = [message for message in last if message["role"] == "tool"]
    assert text_of(tools[0]["content"]).startswith("one")
    assert "the secret is 桥" in text_of(tools[2]["content"])
    parallel = next(message for message in last if len(message.get("tool_calls") or ()) == 2)
    place = last.index(parallel)
    assert [message["role"] for message in last[place + 1 : place + 3]] == ["tool", "tool"]
    # What the engine's prefix cache needs: each prompt goes on where the one before it ended.
    for earlier, later in itertools.pairwise(chats):
        assert later.prompt.startswith(earlier.prompt)


def test_a_sub_agent(user: User) -> None:
    inner = marker(
        step(call("Bash", command="echo sub > sub.txt", description="Write")), "The report: 42.", key="inner"
    )
    start = call("Agent", description="A sub-task", prompt=f"Do the sub-task. {inner}", subagent_type="general-purpose")
    outcome = user.run("Delegate. " + marker(step(start), "It runs.", "The agent said 42."))
    succeeded(outcome, user, "The agent said 42.")
    assert (user.work / "sub.txt").read_text() == "sub\n"
    assert len(user.stage.engine.chats) == 5
    assert len(user.main) == 3
    assert "The report: 42." in json.dumps(user.main[-1].messages)


def test_tool_search_finds_an_mcp_tool(user: User, tmp_path: Path) -> None:
    settings = tmp_path / "mcp.json"
    server = {"type": "stdio", "command": sys.executable, "args": [str(mcp_server.__file__)]}
    settings.write_text(json.dumps({"mcpServers": {"people": server}}))
    name = "mcp__people__greet"
    outcome = user.run(
        "Greet. "
        + marker(step(call("ToolSearch", query=f"select:{name}")), step(call(name, person="Ada")), "Greeted."),
        "--mcp-config",
        str(settings),
        "--strict-mcp-config",
    )
    succeeded(outcome, user, "Greeted.")
    assert results(outcome)[-1] == "Good day, Ada!"
    first, second, third = user.stage.engine.chats
    assert name not in first.tool_names
    found = next(text_of(message["content"]) for message in second.messages if message["role"] == "tool")
    assert name in found
    assert "Greets a person by name." in found
    assert '"person"' in found
    # What was found stands where it was found, and not in the head of the prompt, which stays as it is cached.
    assert second.prompt.startswith(first.prompt)
    assert third.prompt.startswith(second.prompt)


def test_a_session_goes_on(user: User) -> None:
    first = user.run("Remember. " + marker(step(Think("So."), call("Bash", command="echo kept")), "Kept.", key="1"))
    succeeded(first, user, "Kept.")
    before = user.stage.engine.chats[-1]
    second = user.run("And now? " + marker("Still kept.", key="2"), "--continue")
    succeeded(second, user, "Still kept.")
    after = user.stage.engine.chats[-1]
    assert "echo kept" in json.dumps(after.messages)
    assert "Kept." in [text_of(message["content"]) for message in after.messages if message["role"] == "assistant"]
    assert len(after.messages) > len(before.messages)


def test_auto_compaction_after_an_overflow(user: User) -> None:
    """The engine's own wording of an overflow makes Claude Code summarise and go on."""
    summary = "<analysis>Looked back.</analysis>\n<summary>They wrote a.</summary>"
    one = marker(step(call("Bash", command="echo a")), Step(attempts=(step("First."), step(summary))), key="1")
    succeeded(user.run(f"First. {one}"), user, "First.")
    two = marker(Step(attempts=(refusal(400, OVERFLOW), step("After compaction."))), key="2")
    outcome = user.run(f"Second. {two}", "--continue")
    assert outcome.exit_code == 0
    assert outcome.result["result"] == "After compaction."
    assert outcome.result["is_error"] is False
    assert "compact_boundary" in [line.get("subtype") for line in outcome.lines]
    assert user.statuses() == [200, 200, 400, 200, 200]
    refused = next(found for found in user.stage.tap.exchanges if found.status == 400)
    assert refused.answer["error"]["message"].startswith("prompt is too long: ")
    assert "They wrote a." in json.dumps(user.stage.engine.chats[-1].messages)


def test_a_structured_output(user: User) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city", "days"],
    }
    said = marker(step(call("StructuredOutput", city="Paris", days=2)), "unused")
    outcome = user.run(f"Where? {said}", "--json-schema", json.dumps(schema))
    assert outcome.exit_code == 0
    assert outcome.result["structured_output"] == {"city": "Paris", "days": 2}
    assert set(user.statuses()) == {200}
    offered = next(
        tool["function"]["parameters"]
        for tool in user.stage.engine.chats[0].body["tools"]
        if tool["function"]["name"] == "StructuredOutput"
    )
    assert offered["properties"] == schema["properties"]


def test_an_image_for_a_model_that_does_not_see(user: User) -> None:
    path = user.work / "red.png"
    path.write_bytes(png())
    outcome = user.run("Look. " + marker(step(call("Read", file_path=str(path))), "I cannot see it."))
    succeeded(outcome, user, "I cannot see it.")
    tool = next(message for message in user.stage.engine.chats[-1].messages if message["role"] == "tool")
    assert "image" in text_of(tool["content"])
    assert "image_url" not in json.dumps(user.stage.engine.chats[-1].body)


def test_an_image_for_a_model_that_sees(user_of: Callable[[str], User]) -> None:
    user = user_of("vision")
    path = user.work / "red.png"
    path.write_bytes(png())
    outcome = user.run("Look. " + marker(step(call("Read", file_path=str(path))), "It is red."))
    succeeded(outcome, user, "It is red.")
    parts: list[Any] = [
        part
        for message in user.stage.engine.chats[-1].messages
        if message["role"] == "user" and isinstance(message["content"], list)
        for part in message["content"]
    ]
    assert any(part["type"] == "image_url" for part in parts)


def test_a_pdf_is_read(user: User) -> None:
    path = user.work / "bridge.pdf"
    path.write_bytes(pdf("The bridge is 42 metres long"))
    outcome = user.run("Read it. " + marker(step(call("Read", file_path=str(path))), "42 metres."))
    succeeded(outcome, user, "42 metres.")
    assert "The bridge is 42 metres long" in json.dumps(user.stage.engine.chats[-1].messages)


def test_a_template_that_wants_system_first(user_of: Callable[[str], User]) -> None:
    user = user_of("strict-template")
    user.stage.refusals = True
    outcome = user.run("Work. " + marker(step(call("Bash", command="echo a > a.txt")), "Done it."))
    succeeded(outcome, user, "Done it.")
    assert (user.work / "a.txt").exists()
    accepted = [chat for chat in user.stage.engine.chats if chat.status == 200]
    assert [message["role"] for message in accepted[-1].messages] == ["system", "user", "assistant", "tool"]
    assert len(user.stage.engine.chats) - len(accepted) <= 1


def test_a_busy_engine_is_asked_again(user: User) -> None:
    busy = refusal(503, "The server is overloaded")
    outcome = user.run("Say hi. " + marker(Step(attempts=(busy, step("At last.")))))
    assert outcome.exit_code == 0
    assert outcome.result["result"] == "At last."
    assert user.statuses() == [529, 200]


@pytest.mark.parametrize(
    "arguments",
    [
        '{"command": "echo it > it.txt",}',
        '{"command": "echo it > it.txt"',
        '```json\n{"command": "echo it > it.txt"}\n```',
    ],
    ids=["a trailing comma", "a missing brace", "a fence"],
)
def test_broken_arguments_are_repaired_before_it_sees_them(user: User, arguments: str) -> None:
    outcome = user.run("Work. " + marker(Call("Bash", arguments), "Done it."))
    succeeded(outcome, user, "Done it.")
    assert (user.work / "it.txt").read_text() == "it\n"


def test_a_wrong_key_is_told(stage: Stage, tmp_path: Path) -> None:
    claude = ClaudeCode(
        stage.url, "sk-wrong", tmp_path / "home", tmp_path / "work", extra={"CLAUDE_CODE_MAX_RETRIES": "0"}
    )
    outcome = claude.run("Say hi.")
    assert outcome.exit_code == 1
    assert outcome.result["is_error"] is True
    assert outcome.result["api_error_status"] == 401
    assert stage.engine.chats == []
