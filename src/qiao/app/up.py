"""`qiao up`: a model, the gateway in front of it, and the proof that both work, as one thing that starts and stops.

What happens is told by `report` as facts; how they look is the command line's affair.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from typing import Literal, Protocol, TypeAlias

import msgspec

from qiao.app import vllm
from qiao.app.announce import announcing
from qiao.app.binding import check_free
from qiao.app.self_check import Check, self_check
from qiao.app.serve import Observers, configured_upstream, start
from qiao.config import Config
from qiao.core.fault import Fault
from qiao.engines.base import EngineEvent, OnEvent
from qiao.errors import ConfigurationError, StartError
from qiao.hardware.gpus import has_nvidia
from qiao.ledger.running import Running
from qiao.observability.logs import RequestLog
from qiao.planner import plan as planner
from qiao.upstream.base import Upstream
from qiao.upstream.gateway import GatewayClient, ModelFacts

_POLL_SECONDS = 0.5
_GPU_NOTICE = (
    "This machine has NVIDIA GPUs, and the small embedded model that starts now uses none. `qiao plan` shows what they "
    "carry, `qiao up --model qwen3-235b` (or another name) starts it."
)
_VLLM_NOTICE = "vLLM is not installed here: this is the plan for the newest one."
_FOR_VLLM = ("engine.gpus", "engine.users", "engine.prefer", "engine.vllm", "engine.vllm_arguments")
_FOR_EMBEDDED = ("engine.gguf", "engine.yarn")
_FOR_ANY_ENGINE = ("engine.gguf", "engine.context", "engine.yarn", *_FOR_VLLM)


class Plan(msgspec.Struct, frozen=True):
    """What `up` will do: attach to `target`, or start an engine. `notices` say why, where it may surprise.

    `vllm`: how, for an engine of that kind.
    """

    kind: Literal["attach", "embedded", "vllm"]
    target: str
    notices: tuple[str, ...] = ()
    vllm: planner.Plan | None = None


class Refused(msgspec.Struct, frozen=True):
    """The model does not fit on this machine; the planner says what is missing, and what is near."""

    refusal: planner.Refusal


class Waiting(msgspec.Struct, frozen=True):
    """The upstream does not answer yet, and why."""

    reason: str


class Opened(msgspec.Struct, frozen=True):
    """The gateway accepts connections."""

    gateway: Running


class Ready(msgspec.Struct, frozen=True):
    """Everything was checked. `failed`: how many checks did not go well."""

    gateway: Running
    models: tuple[ModelFacts, ...]
    failed: int


Event: TypeAlias = Plan | EngineEvent | Waiting | Opened | Check | Ready
Report: TypeAlias = Callable[[Event], None]


class RunningEngine(Protocol):
    """An engine that this process started and watches."""

    @property
    def upstream(self) -> Upstream:
        """How the gateway reaches it."""
        ...

    @property
    def config(self) -> Config:
        """The configuration of a gateway in front of it."""
        ...

    async def ended(self) -> None:
        """Waits until it has ended for good; raises a QiaoError that says why."""
        ...


EngineStarter: TypeAlias = Callable[[Config, Plan, OnEvent], contextlib.AbstractAsyncContextManager[RunningEngine]]
"""Starts the engine of a plan, restarts it when it crashes, and stops it at the end of the block."""


def decide(config: Config, *, search_path: str | None = None) -> Plan | Refused:
    """Attach where an upstream is named; vLLM for a model that it runs; else the embedded engine."""
    if config.upstream.url is not None:
        return Plan(
            "attach", config.upstream.url, _without_effect(config, ("engine.context", *_FOR_EMBEDDED, *_FOR_VLLM))
        )
    if vllm.is_wanted(config):
        return _decide_vllm(config)
    if config.engine.gguf is not None and not config.engine.gguf.is_file():
        what = "that is a folder" if config.engine.gguf.is_dir() else "there is no such file"
        raise StartError(
            f"{config.origin('engine.gguf')} names {config.engine.gguf}, and {what}.",
            hint="Check the path.",
        )
    if config.engine.gguf is None and (config.models.main or "").endswith(".gguf"):
        raise ConfigurationError(
            f"{config.origin('models.main')} names {config.models.main}, a file for the embedded engine.",
            hint=f"Say so: qiao up --gguf {config.models.main}",
        )
    notices = _without_effect(config, _FOR_VLLM, "vLLM")
    if config.engine.gguf is not None and config.models.main is not None:
        notices = (*notices, f"{config.origin('models.main')} has no effect beside {config.origin('engine.gguf')}.")
    if has_nvidia(search_path):
        notices = (*notices, _GPU_NOTICE)
    named = config.engine.gguf or config.models.main
    return Plan("embedded", str(named) if named else "the embedded model", notices)


def _decide_vllm(config: Config) -> Plan | Refused:
    planned = vllm.planned(config)
    made = planned.outcome
    if isinstance(made, planner.Refusal):
        return Refused(made)
    vllm.arguments(config, made)  # what cannot be read is said before anything is started
    notices = _without_effect(config, _FOR_EMBEDDED, "the embedded engine")
    if not planned.is_installed:
        notices = (*notices, _VLLM_NOTICE)
    version = f" {planned.version}" if planned.version else ""
    return Plan("vllm", f"vLLM{version} with {made.model.repository}", notices, made)


def _without_effect(config: Config, keys: tuple[str, ...], which: str = "an engine started here") -> tuple[str, ...]:
    """What was asked for on the command line, and is for another engine."""
    unused = [key for key in keys if config.origin(key).kind == "flag"]
    return tuple(f"{config.origin(key)} is for {which} and has no effect." for key in unused)


async def up(config: Config, plan: Plan, report: Report, start_engine: EngineStarter) -> None:
    """Start, check, tell how to connect, and serve until cancelled. Raises a QiaoError when it cannot start."""
    report(plan)
    check_free(config.server.host, config.server.port)
    async with contextlib.AsyncExitStack() as stack:
        engine = None
        if plan.kind != "attach":
            engine = await stack.enter_async_context(start_engine(config, plan, report))
            config = engine.config
            upstream: Upstream = engine.upstream
        else:
            upstream = configured_upstream(config)
        ready = stack.enter_context(announcing(config, lambda gateway: report(Opened(gateway))))
        observers = Observers(config, sys.stderr)
        listening = await start(config, upstream, observers)
        stack.push_async_callback(listening.stop)
        gateway = ready(listening)
        # Checking does not end the serving; only the end of the engine does.
        await _both(_check(gateway, upstream, report, observers), _forever() if engine is None else engine.ended())


@contextlib.contextmanager
def _quiet(observers: Observers) -> Iterator[None]:
    """No lines for requests that go well: while checks are told, their requests need no lines of their own."""
    full = observers.log
    observers.log = RequestLog(sys.stderr, level="warning")
    try:
        yield
    finally:
        observers.log = full


async def _check(gateway: Running, upstream: Upstream, report: Report, observers: Observers) -> None:
    """Wait until the upstream answers, then prove the chain. A failed check does not end the gateway."""
    await _await_upstream(upstream, report)
    with _quiet(observers):
        async with GatewayClient(gateway.url, gateway.key) as client:
            models = await client.models()
            checks = [check async for check in _reported(self_check(client, models[0].id), report)]
    report(Ready(gateway, models, failed=_failed(checks)))


async def _await_upstream(upstream: Upstream, report: Report) -> None:
    told = None
    while True:
        try:
            await upstream.facts(fresh=True)
        except Fault as fault:
            if fault.message != told:
                report(Waiting(fault.message))
                told = fault.message
        else:
            return
        await asyncio.sleep(_POLL_SECONDS)


async def _reported(checks: AsyncIterator[Check], report: Report) -> AsyncIterator[Check]:
    async for check in checks:
        report(check)
        yield check


def _failed(checks: Sequence[Check]) -> int:
    return sum(check.problem is not None for check in checks)


async def _both(*works: Coroutine[None, None, None]) -> None:
    """Run all to their end; the first exception cancels the rest and is raised as it is, not in a group."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _forever() -> None:
    await asyncio.Event().wait()
