"""What is around the GPUs: memory, processors, the kind of system. From /proc on Linux; elsewhere it stays None."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from qiao.planner.machine import System

_KIB = 1024


def parse_meminfo(text: str) -> tuple[int | None, int | None]:
    """Bytes of memory in all, and bytes that can be had, from /proc/meminfo."""
    figures = dict(re.findall(r"^(\w+):\s*(\d+) kB", text, re.MULTILINE))

    def size(name: str) -> int | None:
        return int(figures[name]) * _KIB if name in figures else None

    return size("MemTotal"), size("MemAvailable")


def is_wsl(version: str) -> bool:
    """Whether the kernel is that of the Windows Subsystem for Linux, from /proc/version."""
    return "microsoft" in version.lower()


def look(disk: Path | None = None, proc: Path = Path("/proc"), shared: Path = Path("/dev/shm")) -> System:  # noqa: S108
    """This system. `disk`: the folder that models are downloaded to."""
    total, free = parse_meminfo(_read(proc / "meminfo") or "")
    version = _read(proc / "version")
    return System(
        platform=os.uname().sysname.lower() if hasattr(os, "uname") else os.name,
        is_wsl=is_wsl(version) if version is not None else None,
        memory=total,
        free_memory=free,
        shared_memory=_space(shared, free=False),
        processors=os.cpu_count(),
        disk_free=_space(disk, free=True) if disk is not None else None,
    )


def _space(folder: Path, *, free: bool) -> int | None:
    existing = next((each for each in (folder, *folder.parents) if each.exists()), None)
    if existing is None:
        return None
    try:
        usage = shutil.disk_usage(existing)
    except OSError:
        return None
    return usage.free if free else usage.total


def _read(path: Path) -> str | None:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return None
