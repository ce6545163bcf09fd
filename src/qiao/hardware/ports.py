"""Who listens on a TCP port of this machine. Unknown stays None: other systems, other users' processes.

Linux tells it in two places: /proc/net/tcp lists sockets with their inode, /proc/PID/fd links processes to inodes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

_LISTEN = "0A"
# Somebody else's command line may carry a key, and what is printed here ends in logs.
_SECRET = re.compile(r"(--?[\w-]*(?:key|token|secret|password)[= ])\S+", re.IGNORECASE)


class Owner(msgspec.Struct, frozen=True):
    """A process that listens: its id, and its command line where it may be read."""

    process: int
    command: str | None = None

    def __str__(self) -> str:
        return f"process {self.process} ({self.command})" if self.command else f"process {self.process}"


def listening_inodes(table: str, port: int) -> list[int]:
    """The inodes of the sockets that listen on `port`, from the text of /proc/net/tcp or tcp6."""
    inodes = []
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 10 or fields[3] != _LISTEN:
            continue
        _, _, hexadecimal = fields[1].rpartition(":")
        if int(hexadecimal, 16) == port and fields[9].isdigit():
            inodes.append(int(fields[9]))
    return inodes


def command_line(raw: bytes, limit: int = 80) -> str | None:
    """The words of /proc/PID/cmdline on one line, shortened to `limit` characters."""
    words = raw.decode("utf-8", "replace").replace("\0", " ").split()
    text = _SECRET.sub(r"\1…", " ".join(words))
    return (text if len(text) <= limit else text[: limit - 1] + "…") or None


def owner_of(port: int, proc: Path = Path("/proc")) -> Owner | None:
    """The process that listens on `port`, if this system and this user can tell."""
    wanted = {f"socket:[{inode}]" for inode in _inodes(port, proc)}
    if not wanted:
        return None
    for process in _processes(proc):
        if _holds(proc / str(process) / "fd", wanted):
            return Owner(process, _command(proc / str(process) / "cmdline"))
    return None


def port_here(address: str) -> int | None:
    """The port of a URL that names this machine; None for every other address."""
    try:
        parts = urlsplit(address)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return None
    return port if parts.hostname in ("127.0.0.1", "localhost", "::1") else None


def lineage(process: int, proc: Path = Path("/proc")) -> tuple[int, ...]:
    """`process`, its parent, and so on up, as far as the system tells it."""
    found = [process]
    while parent := _parent(proc / str(found[-1]) / "stat"):
        if parent in found:  # never on a living system, whose files are not read at one moment
            break
        found.append(parent)
    return tuple(found)


def _parent(stat: Path) -> int | None:
    try:
        text = stat.read_text("utf-8", "replace")
    except OSError:  # gone, or another system
        return None
    # The name, in brackets, may hold anything.
    fields = text.rpartition(")")[2].split()
    return int(fields[1]) if len(fields) > 1 and fields[1].isdigit() else None


def _inodes(port: int, proc: Path) -> list[int]:
    found: list[int] = []
    for name in ("tcp", "tcp6"):
        try:
            found += listening_inodes((proc / "net" / name).read_text("ascii", "replace"), port)
        except OSError:  # no such table: another system, or a kernel without IPv6
            continue
    return found


def _processes(proc: Path) -> Iterable[int]:
    return sorted(int(entry.name) for entry in proc.iterdir() if entry.name.isdigit())


def _holds(folder: Path, wanted: set[str]) -> bool:
    try:
        names = list(folder.iterdir())
    except OSError:  # gone, or another user's
        return False
    for name in names:
        try:
            if os.readlink(name) in wanted:  # noqa: PTH115 - the target is no path, Path would normalise it
                return True
        except OSError:
            continue
    return False


def _command(path: Path) -> str | None:
    try:
        return command_line(path.read_bytes())
    except OSError:
        return None
