"""`qiao claude`: a stand-in shows what Claude Code gets; then Claude Code itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.claude_code import PROGRAM
from tests.support.command import Person
from tests.support.gateway import Gateway

# The shell looks first: a Python that starts has already changed how signals are treated.
SHELL_PART = """#!/bin/sh
IGNORED=$(sed -n 's/SigIgn:[[:space:]]*//p' /proc/$$/status) exec "{python}" "$0.py" "$@"
"""
PYTHON_PART = """
import json, os, signal, sys, time

if sys.argv[1:] == ["--version"]:
    print("2.1.330 (Claude Code)")
    sys.exit(0)
found = {
    "arguments": sys.argv[1:],
    "environment": dict(os.environ),
    "process": os.getpid(),
    "stdin": sys.stdin.read(),
    "ignored": os.environ["IGNORED"],
}
with open("seen.json", "w") as file:
    json.dump(found, file)
if "wait" in sys.argv:
    signal.signal(signal.SIGINT, lambda *_: sys.exit(77))
    print("waiting", flush=True)
    time.sleep(60)
print("said by the stand-in")
sys.exit(42)
"""


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    """A program in the place of Claude Code that writes down what it was given."""
    path = tmp_path / "claude"
    path.write_text(SHELL_PART.format(python=sys.executable), "utf-8")
    path.chmod(0o755)
    (tmp_path / "claude.py").write_text(PYTHON_PART, "utf-8")
    return path


def seen(person: Person) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((person.work / "seen.json").read_bytes())
    return found


def test_arguments_environment_stdin_and_status_pass(running: Gateway, somebody: Person, stand_in: Path) -> None:
    odd = ["-p", "--weird", "it's", "--", "-x", "--help", "--version-of=1", ""]
    done = somebody.qiao("claude", *odd, stdin="from stdin", QIAO_CLAUDE=str(stand_in), ANTHROPIC_API_KEY="sk-theirs")
    assert done.returncode == 42
    assert done.stdout == "said by the stand-in\n"
    assert "note: ANTHROPIC_API_KEY is set and left out here" in done.stderr
    found = seen(somebody)
    assert found["arguments"][:1] == ["--settings"]
    assert found["arguments"][2:] == odd
    assert found["stdin"] == "from stdin"
    environment = found["environment"]
    assert environment["ANTHROPIC_BASE_URL"] == running.url
    assert environment["ANTHROPIC_MODEL"] == "qwen3-235b"
    assert environment["CLAUDE_CODE_MAX_CONTEXT_TOKENS"] == "131072"
    assert "ANTHROPIC_API_KEY" not in environment
    assert environment["HOME"] == str(somebody.home)
    sigpipe = 1 << (signal.SIGPIPE - 1)
    assert int(found["ignored"], 16) & sigpipe == 0, "Python ignores SIGPIPE; the program must not inherit that"


def test_it_takes_our_place(running: Gateway, somebody: Person, stand_in: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "qiao", "claude", "wait"],
        env={**somebody.environment, "QIAO_CLAUDE": str(stand_in)},
        cwd=somebody.work,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        assert seen(somebody)["process"] == process.pid, "no process of ours stands between"
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(10) == 77
    finally:
        process.kill()
        process.wait(10)
        assert process.stdout is not None
        process.stdout.close()


def test_its_own_commands_need_no_gateway(person: Person, stand_in: Path) -> None:
    done = person.qiao("claude", "--claude", str(stand_in), "mcp", "list", ANTHROPIC_API_KEY="sk-theirs")
    assert done.returncode == 42
    assert done.stderr == ""
    assert seen(person)["arguments"] == ["mcp", "list"]
    assert seen(person)["environment"]["ANTHROPIC_API_KEY"] == "sk-theirs"


def test_without_a_gateway_nothing_starts(person: Person, stand_in: Path) -> None:
    done = person.qiao("claude", "--claude", str(stand_in), "--url", "127.0.0.1:9", "--no-such", "hi")
    assert done.returncode == 1
    assert done.stderr.startswith("error: No gateway answers at http://127.0.0.1:9.\nhint: Start one with `qiao up`")
    assert not (person.work / "seen.json").exists()


def test_a_program_that_cannot_run_is_named(running: Gateway, somebody: Person, tmp_path: Path) -> None:
    broken = tmp_path / "claude"
    broken.write_bytes(b"\x7fELF")
    broken.chmod(0o755)
    done = somebody.qiao("claude", "-p", "hi", QIAO_CLAUDE=str(broken))
    assert done.returncode == 1
    assert f"error: {broken} cannot be run: " in done.stderr


def test_a_settings_file_that_would_lead_elsewhere_is_overruled(
    running: Gateway, somebody: Person, stand_in: Path
) -> None:
    folder = somebody.home / ".claude"
    folder.mkdir(exist_ok=True)
    file = folder / "settings.json"
    file.write_text('{"env": {"ANTHROPIC_BASE_URL": "http://127.0.0.1:9"}}', "utf-8")
    try:
        done = somebody.qiao("claude", "-p", "hi", QIAO_CLAUDE=str(stand_in))
        assert f"note: {file} sets ANTHROPIC_BASE_URL otherwise: it is overruled here." in done.stderr
        given = json.loads(seen(somebody)["arguments"][1])
        assert given["env"] == {"ANTHROPIC_BASE_URL": running.url}
        real = somebody.qiao("claude", "-p", "say hi", QIAO_CLAUDE=str(PROGRAM), IS_SANDBOX="1")
        assert real.returncode == 0, real.stderr
    finally:
        file.unlink()


def test_claude_code_itself(running: Gateway, somebody: Person) -> None:
    before = time.monotonic()
    done = somebody.qiao("claude", "-p", "say hi", "--output-format", "json", QIAO_CLAUDE=str(PROGRAM), IS_SANDBOX="1")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["is_error"] is False
    assert result["modelUsage"]["qwen3-235b"]["contextWindow"] == 131072
    assert time.monotonic() - before < 30
    assert running.process.poll() is None
