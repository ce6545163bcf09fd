"""The Claude Code program on this machine: where it is, which version, and how it takes this process's place."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import msgspec

from qiao.errors import ClientMissingError

VERIFIED = "2.1.330"
"""The version that qiao is tested with."""

_OLDEST_GOOD = (2, 1, 200)

INSTALL_HINT = (
    f"Install it with `npm install -g @anthropic-ai/claude-code@{VERIFIED}` (name the version: without it, npm under a "
    "Node older than 22 silently installs 2.1.197), or `pip install claude-agent-sdk`, which holds the same program. "
    "If it is installed elsewhere, name it with --claude or QIAO_CLAUDE."
)


class Program(msgspec.Struct, frozen=True):
    """Claude Code as found. `source` says where, for messages."""

    path: Path
    source: str


def find(chosen: Path | None, chosen_by: str, variables: Mapping[str, str], home: Path) -> Program:
    """The program to run: the chosen one, `claude` on the PATH, in its usual places, or inside claude_agent_sdk."""
    if chosen is not None:
        found = shutil.which(str(chosen), path=variables.get("PATH")) or shutil.which(str(chosen.absolute()))
        if found is None:
            raise ClientMissingError(
                f"{chosen_by} names {chosen}, and there is no such program.", hint="Check the path."
            )
        return Program(Path(found), chosen_by)
    on_path = shutil.which("claude", path=variables.get("PATH"))
    if on_path:
        return Program(Path(on_path), "PATH")
    for place in (home / ".local/bin/claude", home / ".claude/local/claude"):
        if os.access(place, os.X_OK):
            return Program(place, str(place.parent))
    bundled = _bundled()
    if bundled is not None:
        return Program(bundled, "claude-agent-sdk")
    raise ClientMissingError("Claude Code is not installed.", hint=INSTALL_HINT)


def _bundled() -> Path | None:
    found = importlib.util.find_spec("claude_agent_sdk")
    if found is None or found.origin is None:
        return None
    name = "claude.exe" if sys.platform == "win32" else "claude"
    program = Path(found.origin).parent / "_bundled" / name
    return program if os.access(program, os.X_OK) else None


def version(program: Program, variables: Mapping[str, str]) -> str | None:
    """What the program says its version is; None if it does not say."""
    try:
        said = subprocess.run(  # noqa: S603 - the user's own program
            [program.path, "--version"],
            env=dict(variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(rb"\d+\.\d+\.\d+", said.stdout)
    return found.group().decode() if found else None


def version_notice(found: str | None) -> str | None:
    """What to say of this version; None where it is new enough."""
    if found is None or tuple(int(part) for part in found.split(".")) >= _OLDEST_GOOD:
        return None
    return (
        f"This is Claude Code {found}, and qiao is tested with {VERIFIED}. npm under a Node older than 22 silently "
        f"installs an old one: `npm install -g @anthropic-ai/claude-code@{VERIFIED}`."
    )


def run(program: Program, arguments: Sequence[str], variables: Mapping[str, str]) -> int:
    """Run it with this terminal, and return its exit status. Where the system can, it takes this process's place."""
    command = [str(program.path), *arguments]
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name == "posix":
        _replace(command, variables)
    return _child(command, variables)


def _replace(command: Sequence[str], variables: Mapping[str, str]) -> NoReturn:
    # Then signals, job control, the terminal and the exit status are Claude Code's own, with nothing in between.
    # Python ignores SIGPIPE, and what is ignored stays so in the new program.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    try:
        os.execve(command[0], list(command), dict(variables))  # noqa: S606 - no shell is meant
    except OSError as problem:
        raise ClientMissingError(f"{command[0]} cannot be run: {problem.strerror}.", hint=INSTALL_HINT) from problem


def _child(command: Sequence[str], variables: Mapping[str, str]) -> int:
    # The console sends Ctrl-C to both processes: it is the child's to handle, ours to outlive.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return subprocess.run(list(command), env=dict(variables), check=False).returncode  # noqa: S603
    except OSError as problem:
        raise ClientMissingError(f"{command[0]} cannot be run: {problem.strerror}.", hint=INSTALL_HINT) from problem
    finally:
        signal.signal(signal.SIGINT, before)
