"""Small processes that behave as an engine might, for the supervisor."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

from qiao.engines.supervisor import Command

_BEGIN = """
import json, os, signal, sys, time
def tell(state, **more):
    sys.stdout.write(json.dumps({"state": state, **more}) + "\\n"); sys.stdout.flush()
def log(text):
    sys.stderr.write(text + "\\n"); sys.stderr.flush()
"""


def running(script: str, folder: Path, first_input: bytes = b"") -> Callable[[str | None], Command]:
    """A command that runs `script`; `tell` and `log` are there, the runs so far in the file `runs`."""
    file = folder / "script.py"
    file.write_text(_BEGIN + textwrap.dedent(script))

    def command(address: str | None) -> Command:
        with (folder / "runs").open("a") as runs:
            runs.write(f"{address}\n")
        return Command((sys.executable, str(file), str(folder)), {"PATH": "/usr/bin:/bin"}, first_input)

    return command


def runs(folder: Path) -> list[str]:
    """The address that each run was given."""
    return (folder / "runs").read_text().split()
