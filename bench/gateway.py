"""What the gateway costs, beside the bare upstream and an aiohttp server that only passes bytes through, in one run.

Processor time is what the process itself used, from the kernel's own accounting (Linux only); an idle process of the
same kind is subtracted. Rounds of the candidates alternate, and the lowest round of each is told: neighbours on the
machine can only add to it. Times are told as median, of all and of the lowest round, and as 99th percentile.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from bench import load

# The engine writes one such word a chunk; whoever puts two chunks into one event is not counted short.
MARKER = b" word"
# Requests of a session whose times are told, and those before them.
BURST = 20
UNTOLD = 2


class Effort(NamedTuple):
    """How much is measured. `streams` chunks every `interval` seconds for `seconds`, in `rounds`.

    A round in which more than `crowding` chunks came at once on average does not count: on a machine that cannot keep
    up, chunks are passed on by the handful, and each looks cheap.
    """

    rounds: int = 8
    streams: int = 40
    interval: float = 0.02
    seconds: float = 2.0
    answers: int = 500
    requests: int = 150
    sessions: int = 20
    starts: int = 7
    crowding: float = 1.1


FULL = Effort()
QUICK = Effort(
    rounds=1, streams=4, interval=0.01, seconds=0.4, answers=20, requests=10, sessions=2, starts=1, crowding=100.0
)


class Candidate(NamedTuple):
    """A server under measurement."""

    name: str
    url: str
    pid: int


# --- processes -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def spoken(*arguments: str) -> Iterator[tuple[int, int]]:
    """A module of this package as a process; yields (pid, port). It ends when its standard input closes."""
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process.pid, int(process.stdout.readline())
    finally:
        process.stdin.close()
        process.stdout.close()
        ended(process)


@contextlib.contextmanager
def gateway(upstream: str) -> Iterator[tuple[int, int, float]]:
    """`qiao serve` as a process of its own; yields (pid, port, seconds until /healthz answered)."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        str(Path(sys.executable).with_name("qiao")),
        "serve",
        "--upstream",
        upstream,
        "--no-auth",
        "--port",
        str(port),
    ]
    with tempfile.TemporaryDirectory() as folder:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("QIAO_")}
        started = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**kept, "QIAO_STATE": folder},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_healthy(port, process)
            yield process.pid, port, time.perf_counter() - started
        finally:
            process.terminate()
            ended(process)


def ended(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_healthy(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the gateway ended with status {process.returncode} before it answered")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            if connection.recv(64).startswith(b"HTTP/1.1 200"):
                return
        time.sleep(0.003)
    raise RuntimeError("the gateway did not answer /healthz in 30 s")


def processor_seconds(pid: int) -> float:
    """Processor time that all threads of a process used so far."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a thread that just ended
            total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def memory(pid: int, field: str) -> float:
    """`VmRSS` or `VmHWM` of a process in megabytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise ValueError(field)


# --- measurements ----------------------------------------------------------------------------------------------------


async def chunk_cost(candidate: Candidate, effort: Effort) -> float:
    """Microseconds of processor time for one paced chunk, many streams at once; not a number in a crowd."""
    chunks = int((effort.seconds + 2.0) / effort.interval)
    request = load.request(candidate.url, load.small(model="paced", stream=True, max_tokens=chunks))
    idle = await idle_cost(candidate)
    connections = [await load.connect(candidate.url) for _ in range(effort.streams)]
    answers = [connection.ask(request, MARKER) for connection in connections]
    while not all(connection.markers for connection in connections):
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    for connection in connections:
        connection.markers = connection.reads = 0
    used, began = processor_seconds(candidate.pid), time.perf_counter()
    await asyncio.sleep(effort.seconds)
    used = processor_seconds(candidate.pid) - used - idle * (time.perf_counter() - began)
    seen = sum(connection.markers for connection in connections)
    reads = sum(connection.reads for connection in connections)
    for connection in connections:
        connection.transport.close()
    await asyncio.gather(*answers, return_exceptions=True)
    await asyncio.sleep(0.1)
    return used / seen * 1e6 if seen <= effort.crowding * reads else math.nan


async def idle_cost(candidate: Candidate, seconds: float = 0.5) -> float:
    """Processor seconds a second of a process that does nothing."""
    used = processor_seconds(candidate.pid)
    await asyncio.sleep(seconds)
    return (processor_seconds(candidate.pid) - used) / seconds


async def request_cost(candidate: Candidate, body: bytes, count: int, *, at_once: int = 4) -> float:
    """Microseconds of processor time for one whole request and its answer, on kept connections."""
    request = load.request(candidate.url, body)
    connections = [await load.connect(candidate.url) for _ in range(at_once)]

    async def work(connection: load.Connection, times: int) -> None:
        for _ in range(times):
            seen = await connection.ask(request, MARKER)
            if seen.status != 200:
                raise RuntimeError(f"{candidate.name} answered {seen.status}")

    await asyncio.gather(*(work(connection, 3) for connection in connections))
    used = processor_seconds(candidate.pid)
    share = -(-count // at_once)
    await asyncio.gather(*(work(connection, share) for connection in connections))
    used = processor_seconds(candidate.pid) - used
    for connection in connections:
        connection.transport.close()
    return used / (share * at_once) * 1e6


async def first_tokens(candidates: list[Candidate], rounds: int) -> list[list[list[float]]]:
    """Milliseconds until the first token, one request after the other, by candidate and round. Candidates take turns;
    each round is a session of its own, of which the first `UNTOLD` requests are not told."""
    connections = [await load.connect(candidate.url) for candidate in candidates]
    times: list[list[list[float]]] = [[[] for _ in range(rounds)] for _ in candidates]
    for number in range(rounds):
        session = load.session(model="prefill", max_tokens=3, number=number)
        bodies = list(itertools.islice(session, UNTOLD + BURST))
        for place, candidate in enumerate(candidates):
            for turn, request in enumerate([load.request(candidate.url, body) for body in bodies]):
                seen = await connections[place].ask(request, MARKER)
                if seen.status != 200:
                    raise RuntimeError(f"{candidate.name} answered {seen.status}")
                if turn >= UNTOLD:
                    times[place][number].append(seen.first * 1000)
    for connection in connections:
        connection.transport.close()
    return times


async def lowest(
    candidates: list[Candidate], rounds: int, measure: Callable[[Candidate], Awaitable[float]]
) -> list[float]:
    results: list[list[float]] = [[] for _ in candidates]
    for _ in range(rounds):
        for place, candidate in enumerate(candidates):
            results[place].append(await measure(candidate))
    return [min((value for value in values if not math.isnan(value)), default=math.nan) for values in results]


def microseconds(value: float) -> str:
    return "the machine was too busy" if math.isnan(value) else f"{value:.0f} µs"


def milliseconds(value: float) -> str:
    return f"{value:.2f} ms"


def compared(name: str, pair: list[float], shown: Callable[[float], str], wanted: str = "") -> tuple[str, ...]:
    """A row of the table: ours, aiohttp's, and how many times theirs ours is."""
    ratio = pair[0] / pair[1] if pair[1] > 0 else math.nan
    return (name, *map(shown, pair), "" if math.isnan(ratio) else f"{ratio:.2f}", wanted)


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


# --- the run ---------------------------------------------------------------------------------------------------------


async def measure(engine: str, effort: Effort) -> str:
    small = load.small(model="instant", stream=False, max_tokens=16)
    agent = load.agent(model="instant", max_tokens=3)
    start_times, start_memory = [], []
    for _ in range(effort.starts):
        with gateway(engine) as (pid, _, seconds):
            start_times.append(seconds)
            start_memory.append(memory(pid, "VmRSS"))
    with gateway(engine) as (pid, port, _), spoken("bench.passthrough", "--upstream", engine) as (other, other_port):
        ours = Candidate("qiao", f"http://127.0.0.1:{port}/v1/messages", pid)
        passing = Candidate("aiohttp", f"http://127.0.0.1:{other_port}/", other)
        bare = Candidate("upstream", f"{engine}/chat/completions", 0)
        both = [ours, passing]
        # One request first: names are resolved and connections opened once in a gateway's life.
        await request_cost(ours, small, 8)
        chunk = await lowest(both, effort.rounds, lambda one: chunk_cost(one, effort))
        whole = await lowest(both, effort.rounds, lambda one: request_cost(one, small, effort.answers))
        large = await lowest(both, effort.rounds, lambda one: request_cost(one, agent, effort.requests))
        firsts = await first_tokens([bare, ours, passing], effort.sessions)
        peak = memory(ours.pid, "VmHWM")
    direct, *others = [list(itertools.chain.from_iterable(rounds)) for rounds in firsts]
    added = [statistics.median(times) - statistics.median(direct) for times in others]
    tail = [percentile(times, 0.99) - percentile(direct, 0.99) for times in others]
    quiet = [min(statistics.median(times) for times in rounds) for rounds in firsts]
    undisturbed = [value - quiet[0] for value in quiet[1:]]
    rows = [
        compared("processor time a paced chunk", chunk, microseconds, "≤ 60 µs"),
        compared("processor time a small whole answer", whole, microseconds),
        compared(f"processor time a {len(agent) / 1000:.0f} KB agent request", large, microseconds),
        compared("added to the first token of such a request, lowest round", undisturbed, milliseconds, "≤ 1 ms"),
        compared("added to its first token, median of all", added, milliseconds, "≤ 1 ms"),
        compared("added to its first token, 99th percentile of all", tail, milliseconds),
        ("start until /healthz answers, median", f"{statistics.median(start_times):.2f} s", "", "", "< 1 s"),
        ("memory after the start", f"{statistics.median(start_memory):.0f} MB", "", "", "< 80 MB"),
        ("most memory during this run", f"{peak:.0f} MB", "", "", ""),
    ]
    lines = ["| | qiao, translating | aiohttp, passing bytes through | ratio | wanted |", "|---|---|---|---|---|"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    per_second = effort.streams / effort.interval
    return "\n".join(lines) + (
        f"\n\nPaced chunks: {effort.streams} streams, one chunk every {effort.interval * 1000:.0f} ms each "
        f"({per_second:.0f} a second), out of step. Processor times are the lowest of {effort.rounds} rounds, in which "
        "the candidates take turns. The agent request's answer has three chunks. For the first token sessions grow as "
        f"an agent's do: each request is that of before, {len(agent) / 1000:.0f} KB in the beginning, and one more "
        f"call with its result; the first {UNTOLD} of each session, of which a gateway knows nothing, are not told. "
        f"A round is a session of {BURST}; of {effort.sessions} rounds the lowest median is told beside that of all. "
        "The upstream accepts at once, and its first chunk comes 5 ms later, the others 5 ms after that; asked "
        f"directly with the same requests its first token came after {statistics.median(direct):.2f} ms (median of "
        f"{len(direct)}; 99th percentile {percentile(direct, 0.99):.2f} ms). The wanted numbers were set on a "
        "machine on which a paced chunk costs aiohttp 43 µs.\n"
    )


def run(*, effort: Effort = FULL) -> str:
    """Measure; returns a Markdown table and how it was made."""
    if not Path("/proc/self/schedstat").exists():
        return "Not measured: the processor time of a process is read from /proc, which only Linux has.\n"
    with spoken("bench.engine", "--interval", str(effort.interval)) as (_, port):
        return asyncio.run(measure(f"http://127.0.0.1:{port}/v1", effort))
