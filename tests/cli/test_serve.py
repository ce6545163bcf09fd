"""`qiao serve` as a process: what it says, what it leaves, and how it ends."""

from __future__ import annotations

import json
import re
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.command import Person


@contextmanager
def started(person: Person, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server command on a free port, and the line with which it says that it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-m", "qiao", *arguments, "--port", "0"],
        env=person.environment,
        cwd=person.work,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    assert process.stderr is not None
    try:
        yield process, process.stderr.readline()
    finally:
        process.kill()
        process.wait(10)
        process.stderr.close()
        assert process.stdout is not None
        process.stdout.close()


def notes(person: Person) -> list[Path]:
    return sorted((person.home / ".local/state/qiao/running").glob("*"))


def test_one_line_says_where_it_serves_and_how_to_connect(person: Person, engine_url: str) -> None:
    with started(person, "serve", "--upstream", engine_url) as (process, line):
        found = re.fullmatch(
            rf"qiao serves (http://127\.0\.0\.1:\d+) for {re.escape(engine_url)}/v1\. "
            r"Connect with `qiao claude`; `qiao key` prints the key\.\n",
            line.replace(f"{sys.executable} -m qiao", "qiao"),
        )
        assert found, line
        with urllib.request.urlopen(f"{found[1]}/healthz", timeout=10) as answer:
            assert answer.status == 200
        [note] = notes(person)
        assert stat.S_IMODE(note.stat().st_mode) == 0o600
        assert json.loads(note.read_bytes())["url"] == found[1]
        assert person.qiao("key").stdout.strip() == json.loads(note.read_bytes())["key"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert process.stdout is not None
        assert process.stdout.read() == "", "stdout is for data"
    assert notes(person) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly(person: Person, number: signal.Signals) -> None:
    with started(person, "serve", "--upstream", "http://127.0.0.1:9") as (process, line):
        assert line.startswith("qiao serves"), "the upstream may come later"
        before = time.monotonic()
        process.send_signal(number)
        assert process.wait(10) == 0
        assert time.monotonic() - before < 5
        assert process.stderr is not None
        assert process.stderr.read() == "note: Stopped.\n"


def test_a_port_in_use_is_said_with_its_owner(person: Person) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = person.qiao("serve", "--upstream", "gpu:8000", "--port", str(port))
    assert done.returncode == 3
    first, second = done.stderr.splitlines()
    assert re.match(rf"error: Port {port} on 127\.0\.0\.1 is in use by process \d+ \(.*python.*\)\.$", first), first
    assert second == "hint: Stop it, or choose another port: --port 0 takes a free one."


def test_no_auth_and_an_own_key_are_said(person: Person) -> None:
    with started(person, "serve", "--upstream", "gpu:8000", "--no-auth") as (_, line):
        assert "no key is asked for" in line
        assert not (person.home / ".local/state/qiao/key").exists()
    with started(person, "serve", "--upstream", "gpu:8000", "--api-key", "own-key") as (_, line):
        assert person.qiao("key").stdout == "own-key\n", "the key of the gateway that runs"


def test_an_address_that_others_reach_is_said(person: Person) -> None:
    with started(person, "serve", "--upstream", "gpu:8000", "--host", "0.0.0.0") as (_, line):
        assert line.startswith("qiao serves http://127.0.0.1:"), "what this machine uses"
        assert line.endswith(" It listens on 0.0.0.0: other machines use this machine's own address.\n")


def test_settings_of_the_folder(person: Person, engine_url: str) -> None:
    (person.work / "qiao.toml").write_text(f'[upstream]\nurl = "{engine_url}"\n', "utf-8")
    with started(person, "serve") as (_, line):
        assert f"for {engine_url}/v1" in line


def test_help_is_quick_and_loads_no_server(person: Person) -> None:
    def load(*arguments: str) -> tuple[float, set[str]]:
        before = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-X", "importtime", *arguments],
            env=person.environment,
            capture_output=True,
            encoding="utf-8",
            timeout=30,
            check=True,
        )
        names = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time")}
        return time.perf_counter() - before, names

    load("-m", "qiao", "--help")
    seconds, modules = min((load("-m", "qiao", "--help") for _ in range(3)), key=lambda each: each[0])
    assert not {"aiohttp", "uvloop", "asyncio", "prometheus_client", "pypdf"} & modules
    bare, _ = min((load("-c", "") for _ in range(3)), key=lambda each: each[0])
    assert seconds < 0.5 + 5 * bare, "0.15 s on a quiet machine, and 0.03 s for Python alone"


def test_the_table_of_commands_agrees_with_the_commands(person: Person) -> None:
    listed = person.qiao("--help").stdout
    for name in ("up", "serve", "claude", "env", "key"):
        first = person.qiao(name, "--help").stdout.split("\n\n")[1].strip()
        assert first in listed
        assert name in listed


def test_version(person: Person) -> None:
    lines = dict(line.split(None, 1) for line in person.qiao("--version").stdout.splitlines())
    assert re.match(r"\d+\.\d+", lines["qiao"])
    assert lines["python"].startswith("3.")
    assert {"platform", "aiohttp", "msgspec", "click", "xllamacpp"} <= lines.keys()


def test_colour_only_for_terminals_that_want_it(person: Person) -> None:
    assert "\x1b" not in person.qiao("serve").stderr
    for extra, coloured in (({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)):
        done = subprocess.run(
            ["script", "-qec", f"{sys.executable} -m qiao serve", "/dev/null"],
            env={**person.environment, "TERM": "xterm", **extra},
            cwd=person.work,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=30,
            check=False,
        )
        assert "error:" in done.stdout
        assert ("\x1b" in done.stdout) is coloured, extra


def test_a_reader_that_goes_away_is_no_crash(person: Person) -> None:
    done = subprocess.run(
        f"{sys.executable} -m qiao --help | true",
        shell=True,
        env=person.environment,
        capture_output=True,
        encoding="utf-8",
        timeout=30,
        check=False,
    )
    assert done.stderr == ""
