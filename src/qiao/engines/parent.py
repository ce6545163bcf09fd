"""A process that must not outlive the one that started it: asked of the kernel, where it can (Linux)."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def end_with(parent: int) -> None:
    """Let this process be killed when `parent`, the process that started it, is gone; end now if it already is."""
    if not sys.platform.startswith("linux"):
        return
    _ask(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def ask_for_the_end() -> None:
    """Let the kernel ask this process to end (SIGTERM) when the one that started it is gone."""
    if sys.platform.startswith("linux"):
        _ask(signal.SIGTERM)


def _ask(number: signal.Signals) -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
