"""Whether this machine has GPUs that an engine could use. For now by the presence of NVIDIA's tool alone."""

from __future__ import annotations

import shutil


def has_nvidia(search_path: str | None = None) -> bool:
    """Whether `nvidia-smi` is installed, which comes with the driver. `search_path`: PATH to look in."""
    return shutil.which("nvidia-smi", path=search_path) is not None
