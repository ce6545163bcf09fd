"""The real Claude Code, headless, in an empty home and an empty working folder."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import claude_agent_sdk

PROGRAM = Path(claude_agent_sdk.__file__).parent / "_bundled" / "claude"
VERSION = "2.1.330"


@dataclass
class Outcome:
    """What one run left behind. `lines`: the objects of its stream-json output."""

    exit_code: int
    lines: list[dict[str, Any]]
    errors: str
    seconds: float

    @property
    def result(self) -> dict[str, Any]:
        """The `result` line, the last word of every run."""
        found = [line for line in self.lines if line.get("type") == "result"]
        if not found:
            raise AssertionError(f"no result line; exit {self.exit_code}; stderr:\n{self.errors}\n{self.lines[-3:]}")
        return found[-1]

    def tool_results(self) -> list[dict[str, Any]]:
        """The tool_result blocks that it sent back, in order."""
        blocks: list[dict[str, Any]] = []
        for line in self.lines:
            content = line.get("message", {}).get("content") if line.get("type") == "user" else None
            blocks += [block for block in content or [] if isinstance(block, dict) and block["type"] == "tool_result"]
        return blocks


@dataclass
class ClaudeCode:
    """One user: a home that persists over runs, and a working folder."""

    base_url: str
    key: str
    home: Path
    work: Path
    model: str = "qwen3-235b"
    extra: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        self.work.mkdir(parents=True, exist_ok=True)

    @property
    def environment(self) -> dict[str, str]:
        """Nothing of the developer's own environment gets in."""
        return {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.home),
            "CLAUDE_CONFIG_DIR": str(self.home / ".claude"),
            "LANG": "C.UTF-8",
            "TERM": "xterm-256color",
            "IS_SANDBOX": "1",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
            "ANTHROPIC_BASE_URL": self.base_url,
            "ANTHROPIC_API_KEY": self.key,
            **self.extra,
        }

    def run(self, prompt: str, *arguments: str, limit: float = 60.0) -> Outcome:
        """One `claude -p`; killed with all it started after `limit` seconds."""
        command = [str(PROGRAM), "-p", prompt, "--model", self.model, "--dangerously-skip-permissions"]
        command += ["--output-format", "stream-json", "--verbose", *arguments]
        return _run(command, self.environment, self.work, limit)


def _run(command: Sequence[str], environment: Mapping[str, str], work: Path, limit: float) -> Outcome:
    begun = time.monotonic()
    process = subprocess.Popen(
        command,
        env=dict(environment),
        cwd=work,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, errors = process.communicate(timeout=5)
        raise AssertionError(f"Claude Code was not done after {limit} s:\n{output[-3000:]}\n{errors[-2000:]}") from None
    finally:
        # Background commands of its own may outlive it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return Outcome(process.returncode, lines, errors, time.monotonic() - begun)
