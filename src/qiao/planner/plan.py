"""What planning ends in: a Plan, or a Refusal that says what is missing. Values only."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from qiao.planner.cache import Cache
from qiao.planner.machine import Machine
from qiao.planner.memory import GpuMemory, Load
from qiao.planner.model import ModelFacts
from qiao.planner.vllm import Version
from qiao.planner.weights import Division

Preference = Literal["balanced", "quality", "speed"]

PORT = 8000


class Goal(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted.

    * `window`: tokens of one conversation; None: as many as fit, up to the model's own window.
    * `users`: conversations that may fill their window at the same time.
    * `preference`: the best precision, the fastest, or the usual middle.
    * `version`: the vLLM that will run it.
    """

    window: int | None = None
    users: int = 1
    preference: Preference = "balanced"
    version: Version = (0, 33, 0)


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """Why something is as it is. `about` is the flag or the part that it explains; `source` where the fact is from."""

    about: str
    text: str
    source: str = ""


class Warned(msgspec.Struct, frozen=True, kw_only=True):
    """Something to know before starting. `code` is stable."""

    code: str
    text: str


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How to start the engine on this machine.

    * `served_name`: how clients call the model.
    * `arguments`: what stands after `vllm serve`.
    * `environment`: variables to set.
    * `nodes`: computers that one engine takes; `replicas`: how many such engines the machine has room for.
    * `memory`: one GPU of each pipeline stage.
    * `window`: tokens of one conversation; `concurrency`: how many such fit at once, in one engine.
    * `tokens`: tokens of the whole cache of one engine.
    """

    machine: Machine
    model: ModelFacts
    goal: Goal
    served_name: str
    division: Division
    nodes: int
    replicas: int
    load: Load
    memory: tuple[GpuMemory, ...]
    cache: Cache
    window: int
    concurrency: float
    tokens: int
    arguments: tuple[str, ...]
    environment: dict[str, str]
    tool_parser: str | None
    reasoning_parser: str | None
    reasons: tuple[Reason, ...]
    warnings: tuple[Warned, ...]

    @property
    def command(self) -> tuple[str, ...]:
        """The whole command line."""
        return ("vllm", "serve", *self.arguments)

    @property
    def tightest(self) -> GpuMemory:
        """The GPU with the least room for the cache."""
        return min(self.memory, key=lambda each: each.cache)


class Nearest(msgspec.Struct, frozen=True, kw_only=True):
    """Something near the wish that fits. `command` is how to ask for it."""

    text: str
    command: str


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why it does not fit.

    * `missing`: bytes missing on each GPU, for the best way of cutting that was found; None where memory is not what
      is missing.
    * `closest`: that way's memory, where there is one.
    """

    machine: Machine
    goal: Goal
    model: ModelFacts | None
    message: str
    missing: int | None = None
    division: Division | None = None
    closest: tuple[GpuMemory, ...] = ()
    nearest: tuple[Nearest, ...] = ()
    reasons: tuple[Reason, ...] = ()
    warnings: tuple[Warned, ...] = ()


Outcome: TypeAlias = Plan | Refusal
