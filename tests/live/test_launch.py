"""`qiao up --model FOLDER` with the real vLLM: planned, started, crashed, restarted, stopped; what it cannot start."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.vllm.install import MODEL
from tests.live.vllm.server import ENGINE_FILES, ENVIRONMENT, absence
from tests.support.command import Person
from tests.support.embedded import is_alive

READY = 540.0
"""Seconds until all is up; about 90 on two idle cores."""

NAME = "Qwen3-235B-A22B-Instruct-2507"
ARGUMENTS = "--dtype bfloat16 --enforce-eager --num-gpu-blocks-override 640"


@pytest.fixture
def person(tmp_path: Path) -> Person:
    reason = absence()
    if reason is not None:
        pytest.skip(reason)
    extra = {
        "PYTHONPATH": str(ENGINE_FILES),
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "2",
    }
    return Person(tmp_path / "home", tmp_path / "work", extra)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The tiny model under the name of the large one, so that it is planned and served as that."""
    folder = tmp_path / NAME
    folder.mkdir()
    for file in (ENVIRONMENT / MODEL).iterdir():
        (folder / file.name).symlink_to(file)
    return folder


class Up:
    """A running `qiao up`, with what it says in a file."""

    def __init__(self, person: Person, model: Path, more: str = "") -> None:
        self.log = person.work / "up.log"
        words = ("--model", str(model), "--gpus", "1xRTX-4090", "--vllm-command", str(ENVIRONMENT / "bin" / "vllm"))
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "qiao", "up", "--port", "0", *words),
                    *("--vllm-arguments", f"{ARGUMENTS} {more}"),
                ],
                env=person.environment,
                cwd=person.work,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def said(self) -> str:
        return self.log.read_text("utf-8")

    def until(self, words: str, times: int = 1, limit: float = READY) -> None:
        end = time.monotonic() + limit
        while self.said.count(words) < times:
            assert self.process.poll() is None, self.said
            assert time.monotonic() < end, f"not within {limit} s: {words}\n{self.said}"
            time.sleep(0.2)


@contextlib.contextmanager
def running(person: Person, model: Path, more: str = "") -> Iterator[Up]:
    up = Up(person, model, more)
    try:
        yield up
    finally:
        up.process.terminate()
        try:
            up.process.wait(60)
        finally:
            up.process.kill()


def descendants(pid: int) -> list[int]:
    found = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, children.read_text().split()):
                found += [child, *descendants(child)]
    return found


def engine_core(pid: int) -> int:
    for each in descendants(pid):
        with contextlib.suppress(OSError):
            if b"EngineCore" in Path(f"/proc/{each}/cmdline").read_bytes():
                return each
    raise LookupError(f"no engine process under {pid}")


def test_planned_started_checked_and_stopped(person: Person, model: Path) -> None:
    with running(person, model) as up:
        up.until("Ctrl-C stops everything.")
        said = up.said
        assert f"Starting vLLM 0.32.0+cpu with {model}." in said
        assert "--tool-call-parser hermes" in said
        for step in ("Loading shard 1 of 1.", "vLLM is ready."):
            assert step in said, said
        for check in ("text", "stream", "count"):  # random weights call no tool, even when they are made to
            assert f"  ok      {check}: " in said, said
        assert "serves qwen3-235b, window 40960 tokens" in said
        now = descendants(up.process.pid)
        assert len(now) >= 4, "the keeper, the server, the engine, its worker"
        begun = time.monotonic()
        up.process.send_signal(signal.SIGINT)
        assert up.process.wait(60) == 0
        assert time.monotonic() - begun < 40
        assert up.said.endswith("note: Stopped.\n")
        assert not [pid for pid in now if is_alive(pid)]


def test_a_crashed_engine_is_named_and_started_again(person: Person, model: Path) -> None:
    with running(person, model) as up:
        up.until("vLLM is ready.")
        before = descendants(up.process.pid)
        os.kill(engine_core(up.process.pid), signal.SIGKILL)
        up.until("warning: The vLLM engine ended with status", limit=60)
        up.until("vLLM is ready.", times=2)
        assert not [pid for pid in before if is_alive(pid)], "of the first run nothing is left"


@pytest.mark.parametrize(
    ("more", "cause"),
    [
        ("--enable-auto-tool-choice --tool-call-parser no-such-parser", "no-such-parser"),
        ("--no-such-flag", "no-such-flag"),
        ("--max-model-len 9000000", "9000000"),
    ],
)
def test_what_it_cannot_start_is_named(person: Person, model: Path, more: str, cause: str) -> None:
    with running(person, model, more) as up:
        assert up.process.wait(READY) == 3, up.said
        assert "error: The vLLM engine could not start: " in up.said, up.said
        last = up.said[up.said.index("error: ") :]
        assert cause in last, last
        assert "hint: " in last
        assert "starting it again" not in up.said, "another try would end the same way"
