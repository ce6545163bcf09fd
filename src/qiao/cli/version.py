"""`qiao --version`: what a report of a problem needs."""

from __future__ import annotations

import importlib.metadata
import platform
import sys

from qiao import __version__

_PACKAGES = ("aiohttp", "click", "msgspec", "uvloop", "xllamacpp")


def report() -> str:
    """Versions, a line each."""
    rows = [
        ("qiao", __version__),
        ("python", f"{platform.python_version()} ({platform.python_implementation()})"),
        ("platform", platform.platform()),
        *((name, _installed(name)) for name in _PACKAGES),
        ("executable", sys.executable),
    ]
    return "\n".join(f"{name:<10}  {value}" for name, value in rows)


def _installed(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
