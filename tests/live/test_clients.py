"""The official SDK and the real Claude Code on a real vLLM, through the gateway."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.live.stage import MODEL, WINDOW, Stage
from tests.live.test_tools import WEATHER
from tests.live.vllm.script import call, marker, said
from tests.support import sdk
from tests.support.claude_code import ClaudeCode


def test_the_official_sdk(stage: Stage) -> None:
    prompt = "Weather? " + marker(said("I look.", think="Hm.", calls=[call("get_weather", city="Paris")]), "Done.")
    params: dict[str, Any] = {
        "model": MODEL,
        "max_tokens": 500,
        "thinking": {"type": "adaptive"},
        "tools": [WEATHER],
        "messages": [{"role": "user", "content": prompt}],
    }
    with sdk.driving("python") as client:
        client.base_url, client.key = stage.url, stage.key
        whole = client.do("create", **params)["message"]
        streamed = client.do("stream", **params)["message"]
        del params["max_tokens"]
        counted = client.do("count", **params)
        (listed,) = client.do("models")
    for message in (whole, streamed):
        assert [block["type"] for block in message["content"]] == ["thinking", "text", "tool_use"]
        assert message["content"][-1]["input"] == {"city": "Paris"}
        assert message["stop_reason"] == "tool_use"
    usage = whole["usage"]
    assert (
        counted["input_tokens"]
        == usage["input_tokens"] + usage["cache_read_input_tokens"] + (usage["cache_creation_input_tokens"])
    )
    assert listed["max_input_tokens"] == WINDOW


@pytest.mark.timeout(300)
def test_a_session_of_claude_code(stage: Stage, tmp_path: Path) -> None:
    claude = ClaudeCode(stage.url, stage.key, tmp_path / "home", tmp_path / "work")
    inside = claude.work / "in.txt"
    inside.write_text("the secret is 桥\n")
    two = claude.work / "two.txt"
    script = marker(
        said("I run it.", think="I begin.", calls=[call("Bash", command="echo one > one.txt && cat one.txt")]),
        said(think="A file.", calls=[call("Write", file_path=str(two), content='two – "桥"\n')]),
        said(think="What is inside?", calls=[call("Read", file_path=str(inside))]),
        said(
            "Both at once.",
            think="Two more.",
            calls=[call("Bash", command="echo three > three.txt; cat one.txt"), call("Read", file_path=str(two))],
        ),
        said("All is done.", think="That was it."),
    )
    outcome = claude.run(f"Work. {script}", "--max-turns", "20", limit=240)
    assert outcome.exit_code == 0, (outcome.result, outcome.errors)
    assert outcome.result["result"] == "All is done."
    assert outcome.result["is_error"] is False
    assert (claude.work / "one.txt").read_text() == "one\n"
    assert two.read_text() == 'two – "桥"\n'
    assert (claude.work / "three.txt").read_text() == "three\n"
    results = outcome.tool_results()
    assert len(results) == 5
    assert not any(block.get("is_error") for block in results)
    assert "the secret is 桥" in str(results[2]["content"])
    assert [chat.status for chat in stage.chats()] == [200] * 5
    # From the second turn on the engine had most of the prompt already.
    usage = outcome.result["usage"]
    assert usage["cache_read_input_tokens"] > 3 * usage["input_tokens"], usage
