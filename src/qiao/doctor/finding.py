"""What a check says: a `Finding` with its evidence and the mend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Literal, TypeVar

import msgspec

Grade = Literal["problem", "warning", "note", "ok"]
"""`problem`: it does not work, or not as asked. `warning`: it works, but worse or not for long. `note`: worth knowing.
`ok`: looked at and found well."""

ORDER: tuple[Grade, ...] = ("problem", "warning", "note", "ok")


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of one check.

    * `check`: its name, stable. `about`: what was looked at (an address, a file, "this machine").
    * `evidence`: what was seen, one or two sentences. `mend`: what to do; None where nothing is to be done.
    """

    check: str
    grade: Grade
    about: str
    evidence: str
    mend: str | None = None


_Facts = TypeVar("_Facts", contravariant=True)


class Check(msgspec.Struct, Generic[_Facts], frozen=True):
    """One check: its name, what it looks for (for the reference), and the function."""

    name: str
    looks_for: str
    run: Callable[[_Facts], Finding | None]


def findings(checks: tuple[Check[_Facts], ...], facts: _Facts) -> list[Finding]:
    """What the checks say; None, which is "nothing to say", is left out."""
    return [found for check in checks if (found := check.run(facts)) is not None]
