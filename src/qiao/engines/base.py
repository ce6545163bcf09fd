"""What every engine that qiao starts has in common: its states, what it tells about them, how it is reached."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import msgspec

State = Literal["starting", "loading", "ready", "restarting", "stopped", "failed"]


class EngineEvent(msgspec.Struct, frozen=True):
    """Something a person who waits wants to know.

    * `message`: one sentence. `fraction`: how much of it is done, 0 to 1, if that is known.
    """

    state: State
    message: str
    fraction: float | None = None


OnEvent: TypeAlias = Callable[[EngineEvent], None]


class Endpoint(msgspec.Struct, frozen=True):
    """Where a started engine answers. `address`: `http://127.0.0.1:PORT`; `key`: its own, made for this run."""

    address: str
    key: str


def ignore(event: EngineEvent) -> None:
    """For callers who do not want to know."""
