"""One row of the table of log lines: what a line says (`Hint`), and how it is recognised (`LogRule`). Pure."""

from __future__ import annotations

from typing import Literal

import msgspec

Severity = Literal["fatal", "refused", "warning", "echo"]
"""`fatal`: the server does not start, or ends. `refused`: one request failed. `warning`: it goes on, but worse.
`echo`: only repeats that something failed; the cause stands elsewhere in the log."""


class Hint(msgspec.Struct, frozen=True):
    """What a line says. `name` is stable; `cause` and `mend` are sentences for a person; `source`: who writes it."""

    name: str
    cause: str
    mend: str
    severity: Severity = "fatal"
    source: str = "vLLM"


class LogRule(msgspec.Struct, frozen=True):
    """Patterns, searched without regard to case; their named groups fill `cause` and `mend` of the hint."""

    hint: Hint
    patterns: tuple[str, ...]


def rule(
    name: str, cause: str, mend: str, *patterns: str, severity: Severity = "fatal", source: str = "vLLM"
) -> LogRule:
    """One row."""
    return LogRule(Hint(name, cause, mend, severity, source), patterns)
