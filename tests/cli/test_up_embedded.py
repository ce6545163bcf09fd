"""`qiao up` with nothing but itself: a real model in the process tree, a real client, a crash, and a clean end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from qiao.ledger.running import is_alive
from tests.support.claude_code import PROGRAM
from tests.support.command import Person

CACHE = Path(__file__).parents[2] / ".cache" / "qiao"
"""Where the model stays between runs of the tests (98 MB)."""

START_LIMIT = 180.0
"""Seconds, the download included."""


class Up:
    """A running `qiao up`, with what it says in a file."""

    def __init__(self, person: Person) -> None:
        self.person = person
        self.log = person.work / "up.log"
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "qiao", "up", "--port", "0"],
                env=person.environment,
                cwd=person.work,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def said(self) -> str:
        return self.log.read_text("utf-8")

    @property
    def children(self) -> list[int]:
        """The processes that it started and that are still there (Linux)."""
        text = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text("ascii")
        return [int(each) for each in text.split()]

    def until(self, words: str, times: int = 1, limit: float = 30.0) -> None:
        end = time.monotonic() + limit
        while self.said.count(words) < times:
            assert self.process.poll() is None, self.said
            assert time.monotonic() < end, f"not within {limit} s: {words}\n{self.said}"
            time.sleep(0.05)


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("up")
    started = Up(Person(folder / "home", folder / "work", {"QIAO_CACHE": str(CACHE), "IS_SANDBOX": "1"}))
    try:
        started.until("Ctrl-C stops everything.", limit=START_LIMIT)
        yield started
    finally:
        started.process.terminate()
        started.process.wait(20)


def test_it_checks_itself_and_says_how_to_connect(up: Up) -> None:
    for name in ("text", "stream", "tool call", "count"):
        assert f"  ok      {name}: " in up.said, up.said
    assert "serves smollm2-135m, window 8192 tokens" in up.said


def test_claude_code_converses_with_it(up: Up) -> None:
    arguments = ("-p", "Say hello.", "--output-format", "json")
    done = up.person.qiao("claude", "--claude", str(PROGRAM), *arguments)
    assert done.returncode == 0, done.stderr + up.said
    assert "window has only 8192 tokens, so Claude Code starts with --bare" in done.stderr
    result = json.loads(done.stdout)
    assert (result["is_error"], result["terminal_reason"]) == (False, "completed")
    assert result["result"].strip()


def test_a_crashed_engine_is_named_and_started_again(up: Up) -> None:
    [engine] = up.children
    os.kill(engine, signal.SIGKILL)
    up.until("warning: The embedded engine was ended by SIGKILL; starting it again")
    up.until("The engine is ready.", times=2)
    [again] = up.children
    assert again != engine
    done = up.person.qiao("env", "--client", "curl")
    answer = subprocess.run(["/bin/bash", "-c", done.stdout], capture_output=True, timeout=60, check=True)
    assert json.loads(answer.stdout)["type"] == "message"


def test_ctrl_c_stops_everything(up: Up) -> None:
    [engine] = up.children
    before = time.monotonic()
    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(20) == 0
    assert time.monotonic() - before < 10
    assert not is_alive(engine)
    assert up.said.endswith("The embedded engine is stopped.\nnote: Stopped.\n"), up.said[-500:]
    assert list((up.person.home / ".local/state/qiao/running").iterdir()) == []
