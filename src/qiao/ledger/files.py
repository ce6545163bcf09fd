"""Small private files: written whole or not at all, readable by their owner only."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from qiao.errors import ConfigurationError


def write_private(path: Path, text: str) -> None:
    """Replace `path` by `text`, mode 600, in a folder of mode 700. A reader sees the old text or the new one."""
    temporary = _write_beside(path, text)
    temporary.replace(path)


def create_private(path: Path, text: str) -> bool:
    """Write `text` to `path` unless the file exists. False: somebody else was first, and theirs stays."""
    temporary = _write_beside(path, text)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without links: the short race is better than no key
        if path.exists():
            return False
        temporary.replace(path)
        return True
    finally:
        temporary.unlink(missing_ok=True)
    return True


def tighten(path: Path) -> bool:
    """Take everybody else's rights on `path` away. True if there were any."""
    if os.name != "posix" or not stat.S_IMODE(path.stat().st_mode) & 0o077:
        return False
    path.chmod(0o600)
    return True


def _write_beside(path: Path, text: str) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as problem:
        raise ConfigurationError(
            f"{path.parent} cannot be written: {problem.strerror}.",
            hint="Give it to this user, or name another folder with QIAO_STATE.",
        ) from problem
    return temporary
