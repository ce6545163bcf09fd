"""What `qiao doctor --fix` can mend: listed first, done after; files that are not ours only where that is said.

Ours: the state folder and its secrets, left-over temporary files, downloads that broke off. Not ours: the settings of
Claude Code, of which a copy is kept.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from qiao.clients.claude_code import REROUTING
from qiao.clients.claude_settings import environment_of, settings_files
from qiao.config import Config
from qiao.ledger.files import tighten, write_private

_SECRETS = ("key", "claude-settings.json")
_OLD = 3600.0
"""Seconds after which a temporary file or a download that nothing writes to counts as left over."""


class Mending(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to mend. `foreign`: the file is not qiao's. `done`: it was mended."""

    name: str
    path: Path
    what: str
    foreign: bool = False
    done: bool = False
    variables: tuple[str, ...] = ()


def plan(
    config: Config, variables: Mapping[str, str], folder: Path, *, now: float | None = None
) -> tuple[Mending, ...]:
    """What could be mended; nothing is touched."""
    moment = time.time() if now is None else now
    return (
        *_open_to_others(config.folders.state),
        *_left_over(config.folders.state, moment),
        *_broken_downloads(config.folders.cache, moment),
        *_conflicts(variables, folder),
    )


def mend(mending: Mending) -> Mending:
    """Do it. A file that cannot be changed stays as it is, and `done` False says so."""
    try:
        match mending.name:
            case "private_file":
                tighten(mending.path)
            case "left_over" | "broken_download":
                _remove(mending.path)
            case "claude_settings":
                _without(mending.path, mending.variables)
            case _:
                raise AssertionError(mending.name)
    except OSError:
        return mending
    return msgspec.structs.replace(mending, done=True)


def _open_to_others(state: Path) -> Iterator[Mending]:
    if os.name != "posix" or not state.is_dir():
        return
    for path in (*(state / name for name in _SECRETS), *sorted((state / "running").glob("*.json"))):
        with contextlib.suppress(OSError):
            if stat.S_IMODE(path.stat().st_mode) & 0o077:
                yield Mending(name="private_file", path=path, what="others can read a key: mode 600")


def _left_over(state: Path, now: float) -> Iterator[Mending]:
    for path in sorted(state.glob(".*.????????????")):
        if _age(path, now) > _OLD:
            yield Mending(name="left_over", path=path, what="left over by a write that broke off: remove")


def _broken_downloads(cache: Path, now: float) -> Iterator[Mending]:
    found = [
        *cache.glob(".download-*"),
        *cache.glob("*/.download-*"),
        *cache.rglob("*.part"),
        *cache.rglob("*.incomplete"),
    ]
    for path in sorted(set(found)):
        if _age(path, now) > _OLD:
            size = _size(path) / 2**20
            yield Mending(name="broken_download", path=path, what=f"a download that broke off ({size:.0f} MiB): remove")


def _conflicts(variables: Mapping[str, str], folder: Path) -> Iterator[Mending]:
    """Lines in Claude Code's own settings that send a session elsewhere."""
    home = Path(variables.get("HOME") or Path.home())
    for file in settings_files(variables, home, folder):
        theirs = environment_of(file)
        wrong = tuple(
            name
            for name, value in theirs.items()
            if (
                (name in ("ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_MODEL"))
                and variables.get(name) not in (None, "", value)
            )
            or (name in REROUTING and value not in ("", "0", "false"))
        )
        if wrong:
            names = ", ".join(wrong)
            yield Mending(
                name="claude_settings",
                path=file,
                what=f"remove {names} from its env (a copy is kept beside it)",
                foreign=True,
                variables=wrong,
            )


def _without(file: Path, names: tuple[str, ...]) -> None:
    """The settings without these variables; the file as it was is kept as FILE.before-qiao."""
    raw = file.read_bytes()
    content: dict[str, Any] = json.loads(raw)
    content["env"] = {name: value for name, value in content["env"].items() if name not in names}
    mode = stat.S_IMODE(file.stat().st_mode)
    copy = file.with_name(f"{file.name}.before-qiao")
    shutil.copy2(file, copy)
    write_private(file, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    file.chmod(mode)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _age(path: Path, now: float) -> float:
    """Seconds since anything in it was written."""
    newest = 0.0
    for each in (path, *(path.rglob("*") if path.is_dir() and not path.is_symlink() else ())):
        with contextlib.suppress(OSError):
            newest = max(newest, each.lstat().st_mtime)
    return now - newest


def _size(path: Path) -> int:
    total = 0
    for each in (path, *(path.rglob("*") if path.is_dir() and not path.is_symlink() else ())):
        with contextlib.suppress(OSError):
            if each.is_file():
                total += each.stat().st_size
    return total
