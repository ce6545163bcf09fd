"""The owner of an engine process, against real processes that start, crash, hang and refuse to end."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import msgspec
import pytest

from qiao.engines.base import EngineEvent
from qiao.engines.supervisor import Policy, Supervisor
from qiao.errors import StartError
from tests.engines.processes import running, runs
from tests.support.embedded import is_alive

QUICK = Policy(first_pause=0.05, longest_pause=0.2, most_restarts=2, healthy_after=0.3, ready_within=20, stop_grace=0.5)
SERVE = """
tell("loading", message="Loading.", fraction=0.5)
tell("ready", address="http://127.0.0.1:1234")
time.sleep(60)
"""


async def test_it_starts_says_so_and_stops(tmp_path: Path) -> None:
    events: list[EngineEvent] = []
    supervisor = Supervisor("engine", running(SERVE, tmp_path), policy=QUICK, on_event=events.append)
    assert await supervisor.start() == "http://127.0.0.1:1234"
    assert supervisor.state == "ready"
    pid = supervisor.pid
    assert pid is not None
    assert is_alive(pid)
    await supervisor.stop()
    assert not is_alive(pid)
    assert supervisor.pid is None
    assert [event.state for event in events] == ["starting", "loading", "ready", "stopped"]
    assert events[1] == EngineEvent("loading", "Loading.", 0.5)
    await supervisor.stop()


async def test_a_crash_is_named_and_mended_at_the_same_address(tmp_path: Path) -> None:
    events: list[EngineEvent] = []
    supervisor = Supervisor("engine", running(SERVE, tmp_path), policy=QUICK, on_event=events.append)
    await supervisor.start()
    first = supervisor.pid
    assert first is not None
    os.kill(first, signal.SIGSEGV)
    await supervisor.wait_until("restarting")
    await supervisor.wait_until("ready")
    assert supervisor.pid != first
    assert supervisor.restarts == 1
    assert runs(tmp_path) == ["None", "http://127.0.0.1:1234"]
    assert "The engine was ended by SIGSEGV; starting it again in 0.05 s." in [event.message for event in events]
    await supervisor.stop()


async def test_it_gives_up_with_the_last_words(tmp_path: Path) -> None:
    script = 'log("model file is broken"); sys.exit(7)'
    supervisor = Supervisor("engine", running(script, tmp_path), policy=QUICK)
    with pytest.raises(StartError) as raised:
        await supervisor.start()
    assert raised.value.message == (
        "The engine ended with status 7, the last of 3 tries. Its last words:\n  model file is broken"
    )
    assert len(runs(tmp_path)) == 3
    assert supervisor.state == "failed"
    await supervisor.stop()
    assert supervisor.state == "failed"


async def test_what_another_try_would_not_change_is_not_tried_again(tmp_path: Path) -> None:
    script = 'tell("failed", message="lacks AVX2", hint="Use another machine."); sys.exit(3)'
    supervisor = Supervisor("engine", running(script, tmp_path), policy=QUICK)
    with pytest.raises(StartError, match="lacks AVX2") as raised:
        await supervisor.start()
    assert raised.value.hint == "Use another machine."
    assert len(runs(tmp_path)) == 1


async def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    def command(address: str | None):  # type: ignore[no-untyped-def]
        made = running(SERVE, tmp_path)(address)
        return type(made)(("/nonexistent/engine",), made.environment)

    with pytest.raises(StartError, match="could not be started: /nonexistent/engine"):
        await Supervisor("engine", command, policy=QUICK).start()


async def test_a_process_that_never_becomes_ready_is_ended(tmp_path: Path) -> None:
    policy = Policy(first_pause=0.01, most_restarts=1, ready_within=0.4, stop_grace=0.5)
    supervisor = Supervisor("engine", running("time.sleep(60)", tmp_path), policy=policy)
    with pytest.raises(StartError, match=r"was not ready within 0\.4 s"):
        await supervisor.start()
    assert len(runs(tmp_path)) == 2


async def test_a_process_that_ignores_the_polite_request_is_killed(tmp_path: Path) -> None:
    script = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SERVE
    supervisor = Supervisor("engine", running(script, tmp_path), policy=QUICK)
    await supervisor.start()
    pid = supervisor.pid
    assert pid is not None
    started = time.monotonic()
    await supervisor.stop()
    assert 0.4 < time.monotonic() - started < 10
    assert not is_alive(pid)


async def test_it_can_be_stopped_while_it_waits_to_restart(tmp_path: Path) -> None:
    policy = Policy(first_pause=30)
    supervisor = Supervisor("engine", running("sys.exit(1)", tmp_path), policy=policy)
    starting = asyncio.create_task(supervisor.start())
    await supervisor.wait_until("restarting")
    await asyncio.wait_for(supervisor.stop(), 5)
    with pytest.raises(StartError, match="stopped before it was ready"):
        await starting


async def test_a_time_of_health_starts_the_count_anew(tmp_path: Path) -> None:
    script = 'tell("ready", address="http://127.0.0.1:1"); time.sleep(0.35); sys.exit(1)'
    policy = msgspec.structs.replace(QUICK, healthy_after=0.1)
    supervisor = Supervisor("engine", running(script, tmp_path), policy=policy)
    await supervisor.start()
    async with asyncio.timeout(20):
        while supervisor.restarts < 4:
            assert supervisor.state != "failed"
            await asyncio.sleep(0.02)
    await supervisor.stop()


async def test_the_first_input_arrives_and_stdin_stays_open(tmp_path: Path) -> None:
    script = """
    line = sys.stdin.readline().strip()
    tell("ready", address="http://127.0.0.1:1", message=line)
    rest = sys.stdin.read()
    log("stdin ended")
    """
    events: list[EngineEvent] = []
    supervisor = Supervisor("engine", running(script, tmp_path, b"secret\n"), policy=QUICK, on_event=events.append)
    await supervisor.start()
    await asyncio.sleep(0.2)
    assert supervisor.state == "ready"
    assert events[-1].message == "secret"
    await supervisor.stop()


async def test_chatter_on_stdout_is_log_and_long_lines_do_no_harm(tmp_path: Path) -> None:
    script = """
    print("plain words"); print("x" * 600_000); sys.stdout.flush()
    log("y" * 600_000); log("last")
    tell("ready", address="http://127.0.0.1:1")
    time.sleep(60)
    """
    supervisor = Supervisor("engine", running(script, tmp_path), policy=QUICK)
    await asyncio.wait_for(supervisor.start(), 10)
    assert "plain words" in supervisor.log
    await supervisor.stop()
