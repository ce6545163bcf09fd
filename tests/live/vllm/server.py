"""A real vLLM on loopback, as a process of the tests.

    with Pool(folder) as pool:
        server = pool.server(Setup(parser="off"))

A server takes about a minute to start and 4 GB of memory, so a pool starts each setup once, keeps at most `Pool.LIMIT`
of them, and ends the one that was used least lately when it needs room.

While tests are written, `python -m tests.live.vllm.server FILE` keeps servers running and says in FILE where they are;
tests that run with `QIAO_LIVE_SERVERS=FILE` use them instead of starting their own.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.live.vllm.install import ABSENT, MODEL, ROOT
from tests.support.gateway import free_port

ENVIRONMENT = ROOT / ".venv-live"
ENGINE_FILES = Path(__file__).parent / "engine"
NAME = "qwen3-235b"
WINDOW = 40_960

OPENING = (
    *("--chat-template", str(ENGINE_FILES / "template.jinja")),
    *("--default-chat-template-kwargs", '{"opens_reasoning": true}'),
)
"""Flags of a server whose chat template writes the opening tag of the reasoning into the prompt."""

START_LIMIT = 300.0
"""Seconds until a server must be ready; it takes 70 on two idle cores."""

LIFE_LIMIT = 7200
"""Seconds after which a server ends by itself, whatever became of the tests that started it."""

MEMORY = 5 * 2**30
"""Bytes that have to be free before a second server is started."""


def absence() -> str | None:
    """Why this checkout cannot run vLLM; None if it can."""
    absent = ENVIRONMENT / ABSENT
    if absent.exists():
        return absent.read_text("utf-8").strip()
    if not (ENVIRONMENT / MODEL / "config.json").exists():
        return f"no vLLM in {ENVIRONMENT.name}: run `make live`, which installs it"
    return None


@dataclass(frozen=True)
class Setup:
    """How a server is started.

    * `parser`: the tool parser, or "off" for a server that was started without one.
    * `reasoning`: the reasoning parser, or "off".
    * `window`: its context in tokens.
    * `flags`: further flags of `vllm serve`.
    """

    parser: str = "hermes"
    reasoning: str = "qwen3"
    window: int = WINDOW
    flags: tuple[str, ...] = ()

    def command(self, port: int) -> list[str]:
        options = ["--tool-call-parser", self.parser, "--enable-auto-tool-choice"] if self.parser != "off" else []
        options += ["--reasoning-parser", self.reasoning] if self.reasoning != "off" else []
        return [
            *("timeout", "--kill-after=10", str(LIFE_LIMIT)),
            *(str(ENVIRONMENT / "bin" / "vllm"), "serve", str(ENVIRONMENT / MODEL), "--served-model-name", NAME),
            *("--host", "127.0.0.1", "--port", str(port), "--max-model-len", str(self.window)),
            *("--dtype", "bfloat16", "--enforce-eager", "--max-num-seqs", "16", "--enable-prompt-tokens-details"),
            *("--logits-processors", "scripted_words:ScriptedWords", *options, *self.flags),
        ]


@dataclass
class Server:
    """A server that is ready. `log` grows while it runs; `process` is None for one that somebody else keeps."""

    setup: Setup
    port: int
    pid: int
    log: Path
    process: subprocess.Popen[bytes] | None = None
    seconds_to_start: float = 0.0
    last_used: float = field(default_factory=time.monotonic)

    @property
    def url(self) -> str:
        """Without /v1."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def is_running(self) -> bool:
        return self.process is None or self.process.poll() is None

    @property
    def output(self) -> str:
        return self.log.read_text("utf-8", errors="replace")

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        text = self.get("/metrics")[1].decode()
        found = re.findall(rf"^{re.escape(name)}(?:\{{[^}}]*\}})? (\S+)$", text, re.MULTILINE)
        if not found:
            raise KeyError(name)
        return sum(float(value) for value in found)

    def get(self, path: str, limit: float = 5.0) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=limit)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def engine_process(self) -> int:
        """The id of the process that holds the model (the server itself only speaks HTTP)."""
        for pid in _descendants(self.pid):
            title = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
            if b"EngineCore" in title:
                return pid
        raise LookupError(f"no engine process under {self.pid}")

    def stop(self) -> None:
        """End it and all that it started. They form a process group of their own."""
        if self.process is None:
            return
        if self.is_running:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait(5)


def start(setup: Setup, folder: Path) -> Server:
    """Start a server and wait until it is ready. `folder`: for its log and whatever it wants to keep at home."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "vllm.log"
    port = free_port()
    environment = {
        "PATH": f"{ENVIRONMENT / 'bin'}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(ENGINE_FILES),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "2",
    }
    begun = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            setup.command(port),
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Server(setup, port, process.pid, log, process)
    try:
        _await_ready(server)
    except BaseException:
        server.stop()
        raise
    server.seconds_to_start = time.monotonic() - begun
    return server


class Pool:
    """Servers by their setup; see the module."""

    LIMIT = 2

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._servers = _kept_elsewhere()
        self._started = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self._servers.values():
            server.stop()

    def server(self, setup: Setup) -> Server:
        """The server with this setup; it is started if it does not run, or runs no more."""
        known = self._servers.get(setup)
        if known is None or not known.is_running:
            self.forget(setup)
            self._make_room()
            self._started += 1
            known = self._servers[setup] = start(setup, self._folder / f"vllm-{self._started}")
        known.last_used = time.monotonic()
        return known

    def forget(self, setup: Setup) -> None:
        """Stop the server with this setup, if there is one."""
        server = self._servers.pop(setup, None)
        if server is not None:
            server.stop()

    def own(self, setup: Setup) -> Server:
        """A server that the caller may kill: never one that somebody else keeps."""
        if (known := self._servers.get(setup)) is not None and known.process is None:
            del self._servers[setup]
        return self.server(setup)

    def _make_room(self) -> None:
        while self._servers and (len(self._servers) >= self.LIMIT or _free_memory() < MEMORY):
            oldest = min(self._servers.values(), key=lambda server: server.last_used)
            self.forget(oldest.setup)


def _await_ready(server: Server) -> None:
    limit = time.monotonic() + START_LIMIT
    while time.monotonic() < limit:
        if not server.is_running:
            raise RuntimeError(f"vLLM ended before it was ready:\n{server.output[-4000:]}")
        with contextlib.suppress(OSError):
            if server.get("/health")[0] == 200:
                return
        time.sleep(0.3)
    raise RuntimeError(f"vLLM was not ready within {START_LIMIT:g} s:\n{server.output[-4000:]}")


def _free_memory() -> int:
    found = re.search(r"^MemAvailable:\s+(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _descendants(pid: int) -> Iterator[int]:
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in children.read_text().split():
                yield int(child)
                yield from _descendants(int(child))


def _kept_elsewhere() -> dict[Setup, Server]:
    """The servers of `QIAO_LIVE_SERVERS`."""
    path = os.environ.get("QIAO_LIVE_SERVERS")
    if not path:
        return {}
    found = {}
    for entry in json.loads(Path(path).read_text("utf-8")):
        setup = Setup(**{**entry["setup"], "flags": tuple(entry["setup"]["flags"])})
        found[setup] = Server(setup, entry["port"], entry["pid"], Path(entry["log"]))
    return found


def main() -> None:
    """Keep the two usual servers running until this process is ended."""
    path = Path(sys.argv[1])
    setups = (Setup(), Setup(parser="off", reasoning="off"))
    with tempfile.TemporaryDirectory() as folder, Pool(Path(folder)) as pool:
        entries = []
        for setup in setups:
            server = pool.server(setup)
            entries.append({"setup": asdict(setup), "port": server.port, "pid": server.pid, "log": str(server.log)})
            path.write_text(json.dumps(entries), "utf-8")
            print(f"{setup} is ready after {server.seconds_to_start:.0f} s: {server.url}", flush=True)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # by which the pool ends its servers
        try:
            signal.pause()
        except (KeyboardInterrupt, SystemExit):
            path.unlink()


if __name__ == "__main__":
    main()
