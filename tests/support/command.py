"""The command `qiao` as a person runs it: a process with an environment of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

PATH = "/usr/local/bin:/usr/bin:/bin"


@dataclass
class Person:
    """Somebody with a home and a folder to work in. `extra`: variables besides the few that everybody has."""

    home: Path
    work: Path
    extra: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        self.work.mkdir(parents=True, exist_ok=True)

    @property
    def environment(self) -> dict[str, str]:
        """Nothing of the developer's own environment gets in."""
        fixed = {"PATH": PATH, "HOME": str(self.home), "LANG": "C.UTF-8", "COLUMNS": "100", "SHELL": "/bin/bash"}
        return {**fixed, **self.extra}

    def qiao(
        self, *arguments: str, stdin: str | None = None, limit: float = 60.0, **extra: str
    ) -> subprocess.CompletedProcess[str]:
        """Run one command to its end, for `limit` seconds at most."""
        return subprocess.run(
            [sys.executable, "-m", "qiao", *arguments],
            env={**self.environment, **extra},
            cwd=self.work,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            encoding="utf-8",
            timeout=limit,
            check=False,
        )

    @contextmanager
    def up(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """`qiao up` on a free port, ended with what it started."""
        process = subprocess.Popen(
            [sys.executable, "-m", "qiao", "up", "--port", "0", *arguments],
            env=self.environment,
            cwd=self.work,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.communicate(timeout=20)
            finally:
                process.kill()


def until(process: subprocess.Popen[str], last: str) -> str:
    """What it says on its standard error, up to the line `last`."""
    assert process.stderr is not None
    text = ""
    while not text.endswith(last):
        line = process.stderr.readline()
        assert line, text
        text += line
    return text
