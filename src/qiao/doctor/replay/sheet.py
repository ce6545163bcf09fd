"""A score sheet: points with their verdicts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal

import msgspec

from qiao.upstream.endpoint import Endpoint

Verdict = Literal["pass", "fail", "skipped"]


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One point. `must`: Claude Code does not work without it; the others cost comfort, speed or money."""

    name: str
    group: str
    about: str
    must: bool
    verdict: Verdict
    evidence: str
    seconds: float = 0.0


class Sheet(msgspec.Struct, frozen=True, kw_only=True):
    """What an endpoint scored. `window`: tokens, where it tells them. `errors`: what it said when it refused."""

    url: str
    server: str
    model: str
    points: tuple[Point, ...]
    window: int | None = None
    errors: tuple[str, ...] = ()

    def count(self, verdict: Verdict) -> int:
        return sum(1 for point in self.points if point.verdict == verdict)

    @property
    def passed(self) -> int:
        return self.count("pass")

    @property
    def total(self) -> int:
        """Points that could be judged."""
        return self.count("pass") + self.count("fail")

    @property
    def failed_musts(self) -> tuple[Point, ...]:
        return tuple(point for point in self.points if point.must and point.verdict == "fail")


class Failed(Exception):
    """The point is not met; the words say what was seen."""


class Unknown(Exception):
    """It could not be judged here; the words say why."""


class Talk(msgspec.Struct):
    """What the points share: the endpoint, the model, and what was learned on the way."""

    endpoint: Endpoint
    model: str
    has_key: bool
    window: int | None = None
    longest_silence: float = 0.0
    saw_ping: bool = False
    errors: list[str] = []


Ask = Callable[[Talk], Awaitable[str]]
"""Asks and gives the evidence of a pass back; raises `Failed` or `Unknown`."""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the sheet before it was asked."""

    name: str
    group: str
    about: str
    ask: Ask
    must: bool = False
