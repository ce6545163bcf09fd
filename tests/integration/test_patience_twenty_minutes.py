"""A prefill of twenty minutes, with the timers that ship: the real Claude Code waits, asks once, and gets its answer.

It takes 21 minutes and hardly any work, so it runs only when asked: `make patience`. Both silences run at once: of an
engine that sends its HTTP head and then nothing, as vLLM does, and of one that does not even send its head.
"""

from __future__ import annotations

import json
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fakes.behaviour import MODELS
from tests.fakes.engine import FakeEngine, serving
from tests.fakes.script import Step, marker, step
from tests.integration.conftest import KEY, MODEL
from tests.support.background import Background
from tests.support.claude_code import PROGRAM, VERSION
from tests.support.command import Person
from tests.support.gateway import gateway
from tests.support.tap import Exchange, tapping

pytestmark = [pytest.mark.patience, pytest.mark.timeout(1800)]

SILENCE = 1200.0
SPARE = 240.0
"""Seconds for the start and the end of Claude Code."""


@dataclass(frozen=True)
class Session:
    """How one session went: how it ended, how often the engine was asked, and what passed before the gateway."""

    done: subprocess.CompletedProcess[str]
    seconds: float
    asked: int
    left: int
    exchanges: list[Exchange]


def session(folder: Path, quiet: Step) -> Session:
    """`qiao claude -p`, as a user starts it, on a gateway of its own with nothing set but its key."""
    engine = FakeEngine({MODEL: MODELS[MODEL]})
    person = Person(folder / "home", folder / "work", {"IS_SANDBOX": "1", "QIAO_API_KEY": KEY})
    with Background() as background:
        url = background.enter(serving(engine))
        with gateway(url, folder / "gateway", key=KEY) as front:
            tap = background.enter(tapping(front.url))
            words = ["claude", "--url", tap.url, "--claude", str(PROGRAM), "-p", "Go. " + marker(quiet)]
            begun = time.monotonic()
            done = person.qiao(*words, "--output-format", "json", limit=SILENCE + SPARE)
            seconds = time.monotonic() - begun
            chats = engine.chats
            left = sum(chat.disconnected_at is not None for chat in chats)
            return Session(done, seconds, len(chats), left, tap.exchanges)


def test_the_real_claude_code_bears_twenty_minutes_of_prefill(tmp_path: Path) -> None:
    said = "At last."
    quiet = {
        "head at once": step(said, before_first=SILENCE),
        "no head": step(said, before_headers=SILENCE),
    }
    with ThreadPoolExecutor() as threads:
        running = {
            name: threads.submit(session, tmp_path / name.replace(" ", "-"), each) for name, each in quiet.items()
        }
        sessions = {name: each.result() for name, each in running.items()}
    for name, each in sessions.items():
        asked = [exchange for exchange in each.exchanges if exchange.path == "/v1/messages"]
        pings = sum(exchange.body.count(b"event: ping") for exchange in asked)
        print(f"{name}: Claude Code {VERSION}, {each.seconds:.0f} s, asked {each.asked} time(s), {pings} pings")
        assert each.done.returncode == 0, (name, each.done.stdout[-2000:], each.done.stderr[-2000:])
        assert json.loads(each.done.stdout)["result"] == said, name
        assert each.seconds > SILENCE, name
        assert (each.asked, each.left) == (1, 0), name
        assert [exchange.status for exchange in asked] == [200], name
        assert pings > SILENCE / 20, name
