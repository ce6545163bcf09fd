"""What a plan is asked for: the machine, the checkpoints to choose from, the goal. Values only."""

from __future__ import annotations

import msgspec

from qiao.planner.machine import Machine
from qiao.planner.model import ModelFacts
from qiao.planner.plan import Goal


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One question to the planner.

    * `models`: the same model in one or several precisions.
    * `wanted`: how the person named it.
    * `notes`: what has to be said about that name.
    * `data_parallel`: whether one engine may run the model several times side by side; some starters cannot.
    * `since`: first engine version that knows the architecture, and where that was seen.
    """

    machine: Machine
    models: tuple[ModelFacts, ...]
    goal: Goal
    wanted: str
    notes: tuple[str, ...] = ()
    data_parallel: bool = True
    since: tuple[tuple[int, ...], str] | None = None
