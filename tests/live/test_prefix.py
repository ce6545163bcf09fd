"""What qiao sends for sessions of the real Claude Code, as the real vLLM turns it into prompts: each begins with the
one before it, and vLLM finds that part in its cache."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from bench.claude_session import GREET, drive, scripts, vllm_marker
from bench.prefix import Engine, setup
from bench.prefix_cache import shared

from tests.live.conftest import Stages
from tests.live.stage import Stage
from tests.live.vllm.script import call, marker, said
from tests.support.claude_code import ClaudeCode

Body = dict[str, Any]

# The end of a prompt is the opening of the answer, whose first token may melt into it.
SLACK = 2


def conversations(stage: Stage) -> list[list[Body]]:
    """What the engine was asked, by conversation (they differ in their first words), each in its order."""
    found: dict[str, list[Body]] = defaultdict(list)
    for chat in stage.chats():
        assert chat.status == 200
        first = next(message for message in chat.asked["messages"] if message["role"] == "user")
        found[json.dumps(first)].append(chat.asked)
    # A gateway keeps several connections; within a conversation the history only grows, at times by words in the last
    # turn alone (Claude Code asks once more where an answer had no text).
    return [sorted(bodies, key=lambda body: len(json.dumps(body["messages"]))) for bodies in found.values()]


def check_growing(stage: Stage, bodies: list[Body], *, slack: int = SLACK) -> list[list[int]]:
    """Each prompt begins with the one before, but for its last `slack` tokens. Gives back the prompts, in tokens."""
    engine = Engine(stage.server)
    prompts = [engine.rendered("/v1/chat/completions", body) for body in bodies]
    for number, (before, after) in enumerate(itertools.pairwise(prompts)):
        lost = len(before) - shared(before, after)
        if lost > slack:
            same = len(before) - lost
            was, became = engine.text(before[same - 20 :]), engine.text(after[same - 20 : same + lost + 20])
            pytest.fail(f"request {number + 1} lost {lost} of {len(before)} tokens:\n{was!r}\nbecame\n{became!r}")
    assert all(body.get("tools") == bodies[0].get("tools") for body in bodies)
    return prompts


@pytest.mark.timeout(580)
def test_a_long_session(stages: Stages, tmp_path: Path) -> None:
    """Tools found, an MCP server that comes late, parallel pairs, failures, a background task, `--continue`."""
    stage = stages(setup(), apart="prefix")
    markers = [vllm_marker(turns) for _, turns in scripts(tmp_path / "work")]
    before = Engine(stage.server).told()
    for _ in drive(stage.url, stage.key, tmp_path, markers):
        pass
    asked, found = (after - earlier for after, earlier in zip(Engine(stage.server).told(), before, strict=True))
    main, other = sorted(conversations(stage), key=len, reverse=True)
    # The background task's end may be told in a request of its own.
    assert (len(main) in (36, 37), len(other)) == (True, 3)
    sent = json.dumps(main[-1]["messages"])
    assert "Good day, Ada!" in sent, "the late server's tool was called"
    assert GREET not in [tool["function"]["name"] for tool in main[-1]["tools"]]
    prompts = check_growing(stage, main)
    others = check_growing(stage, other)
    # A new session in the same folder has the same head: system and tools.
    head = min(shared(prompts[0], others[0]), len(prompts[0]))
    assert head > 9_000
    # By vLLM's own count each token was computed about once.
    assert asked - found < 1.05 * (len(prompts[-1]) + len(others[-1]) - head)


@pytest.mark.timeout(300)
def test_sub_agents(stages: Stages, tmp_path: Path) -> None:
    stage = stages(setup(), apart="prefix")
    inner = marker(said(think="So.", calls=[call("Bash", command="echo sub")]), said("The report: 42.", think="Done."))
    start = call("Agent", description="A sub-task", prompt=f"Do the sub-task. {inner}", subagent_type="general-purpose")
    outer = marker(
        said(think="Delegate.", calls=[start]), said("It runs.", think="Wait."), said("It said 42.", think="Good.")
    )
    claude = ClaudeCode(stage.url, stage.key, tmp_path / "home", tmp_path / "work")
    outcome = claude.run(f"Delegate. {outer}", "--max-turns", "20", limit=240)
    assert outcome.exit_code == 0, outcome.result
    found = conversations(stage)
    assert len(found) == 2
    for bodies in found:
        assert len(bodies) >= 2
        # A background task's notice may go on in the turn before: the end of that turn comes again.
        check_growing(stage, bodies, slack=8)


@pytest.mark.timeout(300)
def test_compaction(stages: Stages, tmp_path: Path) -> None:
    """The request for a summary reuses the whole conversation; what follows begins anew, with the same head."""
    stage = stages(setup(), apart="prefix")
    claude = ClaudeCode(stage.url, stage.key, tmp_path / "home", tmp_path / "work")
    summary = said("<analysis>Looked back.</analysis>\n<summary>They wrote a.</summary>", think="Sum up.")
    first = marker(said(think="So.", calls=[call("Bash", command="seq 1 400")]), said("First.", think="Done."), summary)
    assert claude.run(f"First. {first}", limit=120).exit_code == 0
    assert claude.run("/compact", "--continue", limit=120).exit_code == 0
    last = claude.run("And now? " + marker(said("Still here.", think="Yes.")), "--continue", limit=120)
    assert last.result["result"] == "Still here."
    found = sorted(conversations(stage), key=len, reverse=True)
    assert len(found) == 2, [len(bodies) for bodies in found]
    # Claude Code writes what it wants summed up into the turn that was the last one: the turn's end moves.
    prompts = check_growing(stage, found[0], slack=12)
    assert len(found[0]) >= 3
    (anew,) = check_growing(stage, found[1])
    assert shared(prompts[0], anew) > 9_000
