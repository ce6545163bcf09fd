"""How many processor cores this process may really use: fewer than the machine has, in most containers."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """Cores that the scheduler lets this process use, at least 1."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    quota = quota_of(_read(_CGROUP / "cpu.max"))
    if quota is None:
        one = _read(_CGROUP / "cpu" / "cpu.cfs_quota_us")
        quota = quota_of(f"{one.strip()} {_read(_CGROUP / 'cpu' / 'cpu.cfs_period_us').strip()}")
    return cores if quota is None else max(1, min(cores, quota))


def quota_of(text: str) -> int | None:
    """Whole cores in a container's limit (`200000 100000` → 2, version 1 and 2 alike); None where there is none."""
    words = text.split()
    if len(words) != 2 or not all(word.isdigit() for word in words) or int(words[1]) == 0:
        return None  # "max 100000", "-1 100000" or nothing
    return max(1, int(words[0]) // int(words[1]))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""
