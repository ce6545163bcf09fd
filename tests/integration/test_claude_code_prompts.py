"""Sessions of the real Claude Code, as Qwen's published chat templates turn what qiao sends into prompts: within a
conversation each prompt begins with the one before it, whatever the session holds."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from pathlib import Path

import pytest
from bench.claude_session import GREET, drive, marker, scripts

from tests.fakes.behaviour import Behaviour
from tests.fakes.engine import Recorded
from tests.fakes.script import Step, Think, call, step
from tests.fakes.script import marker as fake_marker
from tests.integration.conftest import Stage, Stages
from tests.support import chat_templates
from tests.support.claude_code import ClaudeCode

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(chat_templates.absence() is not None, reason=str(chat_templates.absence())),
]


def conversations(stage: Stage) -> list[list[Recorded]]:
    """What the engine was asked, by conversation (they differ in their first words); the longest first."""
    found: dict[str, list[Recorded]] = defaultdict(list)
    for chat in stage.engine.chats:
        first = next(message for message in chat.messages if message["role"] == "user")
        found[json.dumps(first)].append(chat)
    return sorted(found.values(), key=len, reverse=True)


def check_growing(chats: list[Recorded], template: str, *, ending: str = "") -> list[str]:
    """The prompts, of which each begins with the one before; `ending`: what may be missing of it."""
    prompts = [chat_templates.prompt(template, chat.body) for chat in chats]
    for number, (before, after) in enumerate(itertools.pairwise(prompts)):
        assert after.startswith(before.removesuffix(ending)), f"request {number + 1} of {len(prompts)}"
    return prompts


def head(prompt: str) -> str:
    """System and tools."""
    return prompt.partition("<|im_end|>")[0]


@pytest.mark.parametrize(
    ("model", "template", "strict"),
    [("qwen3-235b", "qwen3", False), ("qwen3.8-27b", "qwen3_8", True)],
    ids=["system turns in place", "a strict template, reasoning kept"],
)
def test_a_long_session(stages: Stages, tmp_path: Path, model: str, template: str, strict: bool) -> None:
    """Tools found, an MCP server that comes late, parallel pairs, failures, a background task, `--continue`."""
    behaviour = Behaviour(max_model_len=131072, system_anywhere=not strict)
    stage = stages(model, behaviour=behaviour, apart=f"prompts {template}")
    markers = [marker(turns, key=str(number)) for number, (_, turns) in enumerate(scripts(tmp_path / "work"))]
    for _ in drive(stage.url, stage.key, tmp_path, markers, model=model):
        pass
    main, other = conversations(stage)
    # The background task's end may be told in a request of its own.
    assert (len(main) in (36, 37), len(other)) == (True, 3)
    sent = json.dumps(main[-1].messages)
    assert "Good day, Ada!" in sent
    assert "Greets a person by name." in sent
    assert GREET not in main[-1].tool_names
    prompts = check_growing(main, template)
    assert head(check_growing(other, template)[0]) == head(prompts[0])


def test_sub_agents(stage: Stage, tmp_path: Path) -> None:
    inner = fake_marker(step(Think("So."), call("Bash", command="echo sub")), "The report: 42.", key="inner")
    start = call("Agent", description="A sub-task", prompt=f"Do the sub-task. {inner}", subagent_type="general-purpose")
    claude = ClaudeCode(stage.url, stage.key, tmp_path / "home", tmp_path / "work")
    outer = fake_marker(step(Think("Delegate."), start), "It runs.", "It said 42.")
    assert claude.run(f"Delegate. {outer}", "--max-turns", "20").result["result"] == "It said 42."
    found = conversations(stage)
    assert [len(chats) for chats in found] == [3, 2]
    for chats in found:
        check_growing(chats, "qwen3")


def test_compaction(stage: Stage, tmp_path: Path) -> None:
    """The request for a summary reuses the whole conversation; what follows begins anew, with the same head."""
    claude = ClaudeCode(stage.url, stage.key, tmp_path / "home", tmp_path / "work")
    summary = "<analysis>Looked back.</analysis>\n<summary>They wrote a.</summary>"
    answers = Step(attempts=(step("First."), step(summary)))
    first = fake_marker(step(Think("So."), call("Bash", command="seq 1 400")), answers, key="1")
    assert claude.run(f"First. {first}").result["result"] == "First."
    assert claude.run("/compact", "--continue").exit_code == 0
    last = claude.run("And now? " + fake_marker("Still here.", key="2"), "--continue")
    assert last.result["result"] == "Still here."
    before, after = conversations(stage)
    # Claude Code writes what it wants summed up into the turn that was the last one.
    prompts = check_growing(before, "qwen3", ending="\n</tool_response><|im_end|>\n<|im_start|>assistant\n")
    assert len(prompts) == 3
    (anew,) = check_growing(after, "qwen3")
    assert head(anew) == head(prompts[0])
