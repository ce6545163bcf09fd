"""What the embedded engine needs of the machine, checked before anything is downloaded or loaded.

The prebuilt engine ends the process with an illegal instruction on a processor without AVX2, and with the loader's
words where the OpenMP library is missing; both are said here in a way that can be acted on.
"""

from __future__ import annotations

import ctypes
import importlib.util
import platform
import subprocess
import sys
from pathlib import Path

from qiao.errors import StartError

NEEDED_ON_X86 = ("avx2", "fma", "bmi2", "f16c")
"""As /proc/cpuinfo names them."""

_X86 = ("x86_64", "amd64", "x86-64", "i686")
_OPENMP = "libgomp.so.1"
_SYSCTL_TIMEOUT = 5.0


def check() -> None:
    """Raises `StartError` when the embedded engine cannot run on this machine."""
    check_platform(sys.platform, platform.machine(), is_musl=_is_musl())
    if platform.machine().lower() in _X86:
        check_processor(_features())
    if sys.platform == "linux":
        check_openmp()
    if importlib.util.find_spec("xllamacpp") is None:
        raise StartError(
            "The embedded engine (xllamacpp) is not installed.",
            hint="Install qiao with its dependencies, or use a server that runs: `qiao up --upstream URL`.",
        )


def check_platform(system: str, machine: str, *, is_musl: bool = False) -> None:
    """Raises `StartError` where there is no prebuilt engine."""
    kind = machine.lower()
    known = {
        "linux": (*_X86, "aarch64", "arm64"),
        "darwin": (*_X86, "arm64"),
        "win32": _X86,
    }
    hint = "Run the model elsewhere and attach to it: `qiao up --upstream URL`."
    if kind not in known.get(system, ()):
        raise StartError(f"There is no prebuilt embedded engine for {system} on {machine}.", hint=hint)
    if is_musl:
        raise StartError("The embedded engine is built for glibc, and this Python runs on musl (Alpine).", hint=hint)


def check_processor(features: frozenset[str] | None) -> None:
    """Raises `StartError` when `features` lack one that the engine was compiled for; None: unknown, no objection."""
    if features is None:
        return
    missing = [name.upper() for name in NEEDED_ON_X86 if name not in features]
    if missing:
        raise StartError(
            f"This processor lacks {', '.join(missing)}, and the embedded engine is compiled for it.",
            hint="Run the model on a machine from 2013 (Haswell) or later and attach: `qiao up --upstream URL`.",
        )


def check_openmp(name: str = _OPENMP) -> None:
    """Raises `StartError` when the system's OpenMP library cannot be loaded."""
    try:
        ctypes.CDLL(name)
    except OSError:
        raise StartError(
            f"The system library {name} is missing, which the embedded engine needs.",
            hint="Install it: Debian and Ubuntu `apt-get install libgomp1`, Fedora and RHEL `dnf install libgomp`, "
            "Arch `pacman -S gcc-libs`.",
        ) from None


def features_of_cpuinfo(text: str) -> frozenset[str] | None:
    """The features that every processor in /proc/cpuinfo has; None where it names none."""
    sets = [
        frozenset(line.partition(":")[2].lower().split())
        for line in text.splitlines()
        if line.partition(":")[0].strip().lower() == "flags"
    ]
    return frozenset.intersection(*sets) if sets else None


def features_of_sysctl(text: str) -> frozenset[str] | None:
    """The features in `sysctl -n machdep.cpu.features machdep.cpu.leaf7_features` on macOS, in Linux's names."""
    words = frozenset(word.lower() for word in text.split())
    return words or None


def _features() -> frozenset[str] | None:
    system = platform.system()
    if system == "Linux":
        return features_of_cpuinfo(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace"))
    if system == "Darwin":
        command = ("/usr/sbin/sysctl", "-n", "machdep.cpu.features", "machdep.cpu.leaf7_features")
        try:
            answer = subprocess.run(  # noqa: S603 - a fixed program
                command, capture_output=True, text=True, timeout=_SYSCTL_TIMEOUT, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return None  # unknown; the engine itself will tell
        return features_of_sysctl(answer.stdout)
    return None


def _is_musl() -> bool:
    return sys.platform == "linux" and platform.libc_ver()[0] == "" and bool(list(Path("/lib").glob("ld-musl-*")))
