"""Limits of this process and what its packages were built for. Unknown stays None."""

from __future__ import annotations

import importlib.metadata
import re
import sys

if sys.platform != "win32":
    import resource

_RUNTIMES = ("nvidia-cuda-runtime", "nvidia-cuda-runtime-cu13", "nvidia-cuda-runtime-cu12")


def open_files() -> int | None:
    """How many files this process may open; None: no limit, or unknown."""
    if sys.platform == "win32":
        return None
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return None if most == resource.RLIM_INFINITY else most


def torch_cuda() -> str | None:
    """The CUDA version that the PyTorch here was built for, `13.0`; None: there is none, or it hides it."""
    torch = _version("torch")
    if torch is None:
        return None
    built = re.search(r"\+cu(\d\d)(\d+)", torch)
    if built is not None:
        return f"{built[1]}.{built[2]}"
    runtime = next((found for name in _RUNTIMES if (found := _version(name))), None)
    return ".".join(runtime.split(".")[:2]) if runtime else None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
