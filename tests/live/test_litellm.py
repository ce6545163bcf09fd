"""LiteLLM, the gateway of the usual guides: our export in front of qiao works, the guide's own file does not.

docs/guides/litellm.md tells what these tests hold.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.live.conftest import BARE, Stages
from tests.live.stage import MODEL, Stage
from tests.live.test_tools import WEATHER
from tests.live.vllm.script import call, marker, said
from tests.support.background import Background
from tests.support.claude_code import ClaudeCode
from tests.support.litellm import NotStarted, Proxy, absence, litellm
from tests.support.plain_http import Reply, ask
from tests.support.tap import Tap, tapping

pytestmark = pytest.mark.timeout(400)

KEY = "sk-own-key-of-this-house-93c1"
GUIDE = """
model_list:
  - model_name: claude-3-5-sonnet-20240620
    litellm_params:
      model: openai/{model}
      api_base: {url}/v1
      api_key: sk-empty
      drop_params: true
general_settings:
  master_key: {key}
  drop_params: true
"""


@pytest.fixture(autouse=True, scope="session")
def _can_run() -> None:
    reason = absence()
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The file as `qiao export litellm` writes it."""
    folder = tmp_path_factory.mktemp("export")
    command = [sys.executable, "-m", "qiao", "export", "litellm", "--gpus", "4xH20-96G", "--out", str(folder)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return (folder / "litellm_config.yaml").read_text("utf-8")


@pytest.fixture
def chained(stages: Stages) -> Stage:
    """qiao on a server that was started without a parser."""
    return stages(BARE, apart="behind LiteLLM")


@pytest.fixture
def proxy(exported: str, chained: Stage, tmp_path: Path) -> Iterator[Proxy]:
    """LiteLLM with the exported file; only the gateway's address is another."""
    assert exported.count("http://127.0.0.1:4000") == 1
    config = exported.replace("http://127.0.0.1:4000", chained.url)
    keys = {"QIAO_API_KEY": chained.key, "LITELLM_MASTER_KEY": KEY}
    with litellm(config, tmp_path / "litellm", key=KEY, **keys) as running:
        yield running


def post(proxy: Proxy, path: str, body: Any) -> Reply:
    return ask(proxy.url, "POST", path, body, headers={"x-api-key": proxy.key}, limit=120.0)


def test_both_protocols_come_through(proxy: Proxy, chained: Stage) -> None:
    prompt = "Weather? " + marker(said("I look.", think="Hm.", calls=[call("get_weather", city="Paris")]))
    messages = [{"role": "user", "content": prompt}]
    body = {"model": MODEL, "max_tokens": 300, "messages": messages, "tools": [WEATHER]}
    reply = post(proxy, "/v1/messages", {**body, "thinking": {"type": "adaptive"}})
    assert reply.status == 200, reply.body
    assert [block["type"] for block in reply.json["content"]] == ["thinking", "text", "tool_use"]
    assert reply.json["content"][-1]["input"] == {"city": "Paris"}
    assert reply.json["stop_reason"] == "tool_use"
    function = {"name": "get_weather", "parameters": WEATHER["input_schema"]}
    tools = [{"type": "function", "function": function}]
    chat = post(proxy, "/v1/chat/completions", {**body, "tools": tools})
    assert chat.status == 200, chat.body
    (called,) = chat.json["choices"][0]["message"]["tool_calls"]
    assert json.loads(called["function"]["arguments"]) == {"city": "Paris"}
    assert {exchange.path for exchange in chained.tap.exchanges} == {"/v1/messages"}


@pytest.fixture
def watched(proxy: Proxy, background: Background) -> Tap:
    """What passes between Claude Code and LiteLLM."""
    return background.enter(tapping(proxy.url))


def test_claude_code_works_through_the_chain(proxy: Proxy, watched: Tap, chained: Stage, tmp_path: Path) -> None:
    """Claude Code → LiteLLM → qiao → vLLM without a parser."""
    claude = ClaudeCode(watched.url, proxy.key, tmp_path / "home", tmp_path / "work", model=MODEL)
    two = claude.work / "two.txt"
    script = marker(
        said("I run it.", think="I begin.", calls=[call("Bash", command="echo one > one.txt && cat one.txt")]),
        said(think="A file.", calls=[call("Write", file_path=str(two), content='two – "桥"\n')]),
        said(
            "Both at once.",
            think="Two more.",
            calls=[call("Bash", command="echo three > three.txt"), call("Read", file_path=str(two))],
        ),
        said("All is done.", think="That was it."),
    )
    outcome = claude.run(f"Work. {script}", "--max-turns", "20", limit=300)
    assert outcome.exit_code == 0, (outcome.result, outcome.errors)
    assert outcome.result["result"] == "All is done."
    assert outcome.result["is_error"] is False
    assert (claude.work / "one.txt").read_text() == "one\n"
    assert two.read_text() == 'two – "桥"\n'
    assert (claude.work / "three.txt").read_text() == "three\n"
    assert [bool(block.get("is_error")) for block in outcome.tool_results()] == [False] * 4
    asked = [exchange for exchange in watched.exchanges if exchange.path == "/v1/messages"]
    assert [exchange.status for exchange in asked] == [200] * 4
    assert [chat.status for chat in chained.chats()] == [200] * 4


# -- the guide's own file ---------------------------------------------------------------------------------------------


def test_the_guides_key_is_refused(stages: Stages, tmp_path: Path) -> None:
    stage = stages(BARE)
    config = GUIDE.format(model=MODEL, url=stage.server.url, key="sk-1234")
    with pytest.raises(NotStarted, match="publicly known default"), litellm(config, tmp_path / "guide", key="sk-1234"):
        pass


@pytest.mark.parametrize("prefix", ["openai", "hosted_vllm"])
def test_without_qiao_the_chain_has_no_tools(stages: Stages, tmp_path: Path, prefix: str) -> None:
    """The guide's file with a key of one's own, on the server that was started without a parser."""
    stage = stages(BARE)
    config = GUIDE.format(model=MODEL, url=stage.behind.url, key=KEY).replace("openai/", f"{prefix}/")
    placed = yaml.safe_load(config)
    assert "drop_params" in placed["general_settings"]
    prompt = "Weather? " + marker(said(calls=[call("get_weather", city="Paris")]))
    body = {"max_tokens": 300, "messages": [{"role": "user", "content": prompt}], "tools": [WEATHER]}
    with litellm(config, tmp_path / "guide", key=KEY) as proxy:
        reply = post(proxy, "/v1/messages", {"model": "claude-3-5-sonnet-20240620", **body})
    print(prefix, reply.status, reply.body[:600])
    asked = [exchange.path for exchange in stage.behind.exchanges if exchange.method == "POST"]
    if prefix == "openai":
        assert "/v1/responses" in asked
    else:
        assert "/v1/chat/completions" in asked
        assert reply.status == 400
        assert b"--enable-auto-tool-choice" in reply.body
    assert b'"tool_use"' not in reply.body
