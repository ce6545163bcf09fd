"""Which gateways run on this machine, so that `qiao claude` needs no address and no key.

A gateway notes itself in the state folder while it serves; the note is as private as the key it holds. A note that
outlived its process is recognised by the process id and removed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from qiao.ledger.files import write_private
from qiao.options import Secret

FOLDER = "running"


class Running(msgspec.Struct, frozen=True):
    """One gateway: its address for clients, its key (None: it asks for none), and the process that serves."""

    url: str
    key: Secret | None
    process: int
    started: float
    small: str | None = None
    subagent: str | None = None


class _Note(msgspec.Struct, forbid_unknown_fields=False):
    url: str
    process: int
    started: float
    key: str | None = None
    small: str | None = None
    subagent: str | None = None


def client_url(host: str, port: int) -> str:
    """The address that clients on this machine use for a server that listens on `host`."""
    match host.strip("[]"):
        case "" | "0.0.0.0":  # noqa: S104 - compared, not bound
            name = "127.0.0.1"
        case "::":
            name = "[::1]"
        case bare:
            name = f"[{bare}]" if ":" in bare else bare
    return f"http://{name}:{port}"


@contextlib.contextmanager
def noted(folder: Path, gateway: Running) -> Iterator[None]:
    """Keep the note of `gateway` while the block runs."""
    path = folder / FOLDER / f"{gateway.process}.json"
    note = _Note(
        url=gateway.url,
        process=gateway.process,
        started=gateway.started,
        key=gateway.key.reveal() if gateway.key else None,
        small=gateway.small,
        subagent=gateway.subagent,
    )
    write_private(path, msgspec.json.encode(note).decode())
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def running(folder: Path) -> list[Running]:
    """The gateways whose process is alive, the one started last first."""
    notes = (_read(path) for path in sorted((folder / FOLDER).glob("*.json")))
    return sorted((note for note in notes if note is not None), key=lambda each: each.started, reverse=True)


def _read(path: Path) -> Running | None:
    try:
        note = msgspec.json.decode(path.read_bytes(), type=_Note)
    except (OSError, msgspec.DecodeError):
        return None
    if not is_alive(note.process):
        with contextlib.suppress(OSError):
            path.unlink()
        return None
    key = Secret(note.key) if note.key is not None else None
    return Running(note.url, key, note.process, note.started, note.small, note.subagent)


def is_alive(process: int) -> bool:
    """Whether a process of this id exists, whoever owns it."""
    if os.name != "posix":
        return True  # os.kill would end it there; a stale note then shows as a refused connection
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
