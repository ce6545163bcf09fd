"""The command `qiao` as a person runs it: a process with an environment of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
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

    def qiao(self, *arguments: str, stdin: str | None = None, **extra: str) -> subprocess.CompletedProcess[str]:
        """Run one command to its end."""
        return subprocess.run(
            [sys.executable, "-m", "qiao", *arguments],
            env={**self.environment, **extra},
            cwd=self.work,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            encoding="utf-8",
            timeout=60,
            check=False,
        )
