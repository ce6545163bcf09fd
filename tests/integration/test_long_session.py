"""A session that is longer than the model's window goes through: the real Claude Code compacts by itself, in time.

`qiao claude` tells it the true window, in the numbers that make it compact in time. The engine has 32k tokens, refuses
what does not fit, and has Claude Code read file after file until it has seen far more than that.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.behaviour import Behaviour
from tests.fakes.engine import FakeEngine, Recorded, serving
from tests.fakes.prompt import count
from tests.fakes.script import Step, call, step, text_of
from tests.integration.conftest import KEY, MODEL
from tests.support.background import Background
from tests.support.claude_code import PROGRAM
from tests.support.gateway import gateway
from tests.support.tap import Tap, tapping

pytestmark = pytest.mark.timeout(300)

WINDOW = 32_768
NEEDED = 120_000
FILES = 66
LINES = 110
# What the tool Read gave is put back after a compaction, the output of commands is not.
READ_EVERY = 8
SUMMARY = "<analysis>Files were read.</analysis>\n<summary>The task: read every file, then say so.</summary>"


@dataclass
class Reader(FakeEngine):
    """A model that reads one file after the other, and summarises when it is asked to."""

    folder: Path = Path()
    read: int = 0
    summaries: int = 0
    known: dict[str, Step] = field(default_factory=dict)

    def _step(self, body: dict[str, Any], behaviour: Behaviour, record: Recorded) -> Step:
        if "qiao-probe" in record.headers.values():
            return super()._step(body, behaviour, record)
        last = text_of(body["messages"][-1].get("content"))
        if "detailed summary" in last:
            self.summaries += 1
            return step(SUMMARY)
        # A request that comes again gets the answer of the first time.
        if record.prompt not in self.known:
            self.known[record.prompt] = self._next()
        return self.known[record.prompt]

    def _next(self) -> Step:
        if self.read == FILES:
            return step("All files are read.")
        self.read += 1
        path = self.folder / f"part{self.read}.txt"
        if self.read % READ_EVERY:
            return step(call("Bash", command=f"cat {path}", description="Read the next file"))
        return step(call("Read", file_path=str(path)))


@dataclass
class Session:
    """An engine with a small window, its gateway, and a folder full of files."""

    engine: Reader
    tap: Tap
    home: Path
    work: Path

    def claude(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`qiao claude`, as a user starts it."""
        environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.home),
            "CLAUDE_CONFIG_DIR": str(self.home / ".claude"),
            "LANG": "C.UTF-8",
            "IS_SANDBOX": "1",
            "DISABLE_AUTOUPDATER": "1",
            "QIAO_API_KEY": KEY,
        }
        own = ["--url", self.tap.url, "--claude", str(PROGRAM)]
        flags = ["--dangerously-skip-permissions", "--output-format", "stream-json", "--verbose", "--max-turns", "200"]
        return subprocess.run(
            [sys.executable, "-m", "qiao", "claude", *own, "-p", *arguments, *flags],
            env=environment,
            cwd=self.work,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=280,
        )


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    work = tmp_path / "work"
    work.mkdir()
    for number in range(1, FILES + 1):
        lines = (
            f"{number}.{line}: the quick brown fox jumps over the lazy dog, again and again" for line in range(LINES)
        )
        (work / f"part{number}.txt").write_text("\n".join(lines))
    engine = Reader({MODEL: Behaviour(max_model_len=WINDOW)}, folder=work)
    with Background() as background:
        engine_url = background.enter(serving(engine))
        with gateway(engine_url, tmp_path / "gateway", key=KEY) as front:
            home = tmp_path / "home"
            home.mkdir()
            yield Session(engine, background.enter(tapping(front.url)), home, work)


def test_a_session_of_120k_tokens_goes_through_a_window_of_32k(session: Session) -> None:
    done = session.claude("Read every file in this folder, one after the other.")
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    result = lines[-1]
    sizes = [(count(chat.prompt), "summary" in text_of(chat.messages[-1]["content"])) for chat in session.engine.chats]
    assert done.returncode == 0, (result["terminal_reason"], result.get("result"), sizes, done.stderr[-2000:])
    assert (result["subtype"], result["is_error"], result["result"]) == ("success", False, "All files are read.")
    shown = [
        block
        for line in lines
        if line.get("type") == "user"
        for block in line["message"]["content"]
        if isinstance(block, dict) and block.get("type") == "tool_result"
    ]
    assert len(shown) == FILES
    assert not any(block.get("is_error") for block in shown)
    # What it read does not fit the window by far, and no turn failed: it compacted whenever the gateway told it to.
    assert sum(count(text_of(block["content"]) or str(block["content"])) for block in shown) > NEEDED
    assert session.engine.summaries >= 3
    assert [line.get("subtype") for line in lines].count("compact_boundary") == session.engine.summaries
    # All that it was refused is said in the one sentence, with the true count, and the engine never saw it.
    asked = [exchange for exchange in session.tap.exchanges if exchange.path == "/v1/messages"]
    refused = [exchange for exchange in asked if exchange.status != 200]
    for exchange in refused:
        assert exchange.status == 400
        found = re.fullmatch(r"prompt is too long: (\d+) tokens > (\d+) maximum", exchange.answer["error"]["message"])
        assert found is not None
        assert int(found[1]) > int(found[2]) >= WINDOW - 1024
    assert len(refused) <= 2 * session.engine.summaries
    for chat in session.engine.chats:
        assert chat.refusal is None
        assert count(chat.prompt) <= WINDOW - 1024, "no room for an answer, or for a summary"
    assert max(count(chat.prompt) for chat in session.engine.chats) > WINDOW * 0.85, "the window is used"
