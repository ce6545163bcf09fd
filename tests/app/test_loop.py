"""What a signal does to a server process: it cleans up, and a second one does not wait for that."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

PROGRAM = """
import asyncio, sys
from qiao.app.loop import run

async def main():
    print("started", flush=True)
    try:
        await asyncio.sleep(60)
    finally:
        print("cleaning", flush=True)
        await asyncio.sleep(float(sys.argv[1]))
        print("cleaned", flush=True)

print(run(main()))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_lets_it_clean_up(number: signal.Signals) -> None:
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, "0.1"], stdout=subprocess.PIPE, encoding="utf-8")
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        process.send_signal(number)
        assert process.stdout.read() == "cleaning\ncleaned\nNone\n"
        assert process.wait(10) == 0


def test_a_second_signal_does_not_wait() -> None:
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, "50"], stdout=subprocess.PIPE, encoding="utf-8")
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "cleaning\n"
        before = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "None\n"
        assert process.wait(10) == 0
        assert time.monotonic() - before < 5


def test_a_result_and_an_exception_come_through() -> None:
    program = """
from qiao.app.loop import run
async def seven(): return 7
async def wrong(): raise ValueError("wrong")
assert run(seven()) == 7
try:
    run(wrong())
except ValueError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, encoding="utf-8", timeout=30, check=False
    )
    assert (done.stdout, done.stderr) == ("wrong\n", "")
